"""What the processes of a benchmark exchange: jobs, rounds of measurements and results."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from gpt2tui.data.joined_tokens import FilePart
from gpt2tui.preset.schema import Preset
from gpt2tui.system.device_speed import Limit

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gpt2tui.data.batches import Batch
    from gpt2tui.device import Precision


def batch_sizes(device: "torch.device") -> tuple[int, ...]:
    """The numbers of texts that are continued at once."""
    return (1, 16, 64) if device.type == "cuda" else (1, 16)


def precision_of(candidate: str, preset: Preset) -> "Precision":
    """The number format that a candidate trains in beside ours in that of `preset`, whose device is decided."""
    on_gpu = preset.training.device.startswith("cuda")
    in_fp32 = candidate == "transformers" or (candidate == "nanogpt" and not on_gpu)
    return "fp32" if in_fp32 else cast("Precision", preset.training.precision)


@dataclass(frozen=True)
class Job:
    """The work of a candidate. The preset has its vocabulary, device and precision filled in."""

    part: Literal["train", "generate"]
    candidate: str
    preset: Preset
    tokens: tuple[FilePart, ...] = ()
    """Where the prepared tokens lie; none: random ones."""
    warm_up_rounds: bool = False
    """Whether each round begins with work that is not measured, because other candidates take turns with this one."""


@dataclass(frozen=True)
class Round:
    """The seconds of each repetition, by what was done, the peak memory so far, and the limit of the device."""

    seconds: dict[str, list[float]]
    memory: dict[str, int | None]
    limit: Limit | None = None
    """What the device could do right after it, in the candidate's number format."""


ReadyCandidate = tuple[dict[str, Any], Callable[[float], Round]]
"""A candidate that is warmed up: its facts, and a function that measures a round of about the given seconds."""


@dataclass
class CandidateResult:
    """What a candidate measured; `failed` is the reason why it ended early, and rounds before that are kept."""

    facts: dict[str, Any] = field(default_factory=dict)
    rounds: list[Round] = field(default_factory=list)
    failed: str | None = None


Facts = dict[str, Any]
"""What is known of a candidate besides its timings, by name."""

Forward = Callable[..., "Tensor"]
"""Inputs and targets, (B, T) each -> the mean loss, a scalar."""

TrainStep = Callable[[Sequence["Batch"], int], Callable[[], float]]
"""(micro-batches, step number): updates the weights; the result reads the loss, in nats per token."""

Generate = Callable[["Tensor", int], tuple[float, float]]
"""(prompts (B, T), new tokens each) -> the seconds to the first new token, and to the last."""

Precisions = dict[int, str]
"""The number format of the weights, by batch size."""
