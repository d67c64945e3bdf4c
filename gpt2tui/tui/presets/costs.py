"""What the estimator has to find out by looking: the device's speed and the state of the corpus. For threads.

The first look at the device imports torch.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from gpt2tui.errors import Gpt2TuiError
from gpt2tui.estimate import Estimate, estimate
from gpt2tui.preset.files import LoadedPreset
from gpt2tui.preset.schema import DataTable, Preset
from gpt2tui.system.device_speed import DeviceSpeed
from gpt2tui.system.host_memory import load_torch

if TYPE_CHECKING:
    from gpt2tui.data.readiness import DataState

ASSUMED_CHARACTERS = 128  # as a dry run does for a vocabulary that only the corpus can tell
NARROW = 256  # below it auto may choose another precision; the width itself does not matter to the speed

T = TypeVar("T")

DeviceKey = tuple[str, str, bool]
CorpusKey = tuple[DataTable, int | None]


@dataclass(frozen=True)
class Found(Generic[T]):
    """What a look gave, or why it gave nothing."""

    value: T | None
    problem: str = ""


@dataclass(frozen=True)
class Costs:
    """An estimate with what it stands on."""

    estimate: Estimate
    vocab_size_is_exact: bool
    device_problem: str
    corpus: str
    corpus_missing: bool


def device_key(preset: Preset) -> DeviceKey:
    """What decides which device is measured, and in which precision."""
    return preset.training.device, preset.training.precision, preset.model.n_embd < NARROW


def corpus_key(preset: Preset) -> CorpusKey:
    """What decides which corpus is looked at, and which tokens of it."""
    return preset.data, preset.model.vocab_size


def measure_device(preset: Preset) -> Found[DeviceSpeed]:
    """The speed of the preset's device in its precision; takes a second, and torch."""
    load_torch()
    from gpt2tui.device import choose_device, choose_precision
    from gpt2tui.system.device_speed import measure

    try:
        device = choose_device(preset.training.device)
        return Found(measure(device, choose_precision(preset, device)))
    except Gpt2TuiError as error:
        return Found(None, str(error))


def look_at_corpus(loaded: LoadedPreset) -> "Found[DataState]":
    """The corpus as far as it is here; downloads and prepares nothing."""
    from gpt2tui.data.readiness import look_at_data

    try:
        return Found(look_at_data(loaded))
    except (Gpt2TuiError, OSError, ValueError) as error:
        return Found(None, str(error))


def costs(preset: Preset, device: Found[DeviceSpeed] | None, corpus: "Found[DataState] | None") -> Costs:
    """The preset's costs with what is known so far; None is what nobody has looked at yet."""
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
