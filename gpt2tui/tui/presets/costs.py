"""The inputs of an estimate that take time to find: the device's speed and the state of the corpus. Called in threads.

The first measurement of a device imports torch.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from gpt2tui.errors import Gpt2TuiError
from gpt2tui.estimate import Estimate, estimate
from gpt2tui.preset.files import LoadedPreset
from gpt2tui.preset.schema import DataTable, Preset
from gpt2tui.system.device_speed import DeviceSpeed
from gpt2tui.system.host_memory import load_torch
from gpt2tui.tui.presets.library import ASSUMED_CHARACTERS

if TYPE_CHECKING:
    from gpt2tui.data.readiness import DataState

NARROW = 256  # below this width auto may choose another precision; the speed does not depend on the width

T = TypeVar("T")

DeviceKey = tuple[str, str, bool]
CorpusKey = tuple[DataTable, int | None]


@dataclass(frozen=True)
class Found(Generic[T]):
    """The result of a lookup, or why there is none."""

    value: T | None
    problem: str = ""


@dataclass(frozen=True)
class Costs:
    """An estimate and what it is based on."""

    estimate: Estimate
    vocab_size_is_exact: bool
    device_problem: str
    corpus: str
    corpus_missing: bool


def device_key(preset: Preset) -> DeviceKey:
    """The settings that determine the device and the precision to measure."""
    return preset.training.device, preset.training.precision, preset.model.n_embd < NARROW


def corpus_key(preset: Preset) -> CorpusKey:
    """The settings that determine the corpus and its tokens."""
    return preset.data, preset.model.vocab_size


def measure_device(preset: Preset) -> Found[DeviceSpeed]:
    """Measures the speed of the preset's device in its precision; takes a second and imports torch."""
    load_torch()
    from gpt2tui.device import choose_device, choose_precision
    from gpt2tui.system.device_speed import measure

    try:
        device = choose_device(preset.training.device)
        return Found(measure(device, choose_precision(preset, device)))
    except Gpt2TuiError as error:
        return Found(None, str(error))


def look_at_corpus(loaded: LoadedPreset) -> "Found[DataState]":
    """The state of the corpus on this machine; downloads and prepares nothing."""
    from gpt2tui.data.readiness import check_data

    try:
        return Found(check_data(loaded))
    except (Gpt2TuiError, OSError, ValueError) as error:
        return Found(None, str(error))


def costs(preset: Preset, device: Found[DeviceSpeed] | None, corpus: "Found[DataState] | None") -> Costs:
    """The preset's costs with what is known so far; None where a lookup has not finished."""
    data = corpus.value if corpus else None
    known = (data.vocab_size if data else None) or preset.known_vocab_size
    state = "looking …" if corpus is None else data.state if data else corpus.problem
    return Costs(
        estimate=estimate(
            preset,
            vocab_size=known or ASSUMED_CHARACTERS,
            train_tokens=(data.train_tokens if data else None) or None,
            device=device.value if device else None,
        ),
        vocab_size_is_exact=known is not None,
        device_problem=device.problem if device else "measuring …",
        corpus=state,
        corpus_missing=corpus is not None and (data is None or state.startswith("not here")),
    )
