"""What the processes of a benchmark exchange: the job of a candidate, its rounds, and what became of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from gpt2tui.preset.schema import Preset

if TYPE_CHECKING:
    from torch import Tensor

    from gpt2tui.data.batches import Batch

BATCH_SIZES = (1, 16)
"""Texts that are continued at once."""


@dataclass(frozen=True)
class Job:
    """What a candidate is to do. The preset has its vocabulary, device and precision filled in."""

    part: Literal["train", "generate"]
    candidate: str
    preset: Preset
    tokens: tuple[str, str] | None = None
    """The file of prepared tokens and their dtype; None: random ones."""
    settle: bool = False
    """Whether a round begins with work that is not measured, because another candidate had the machine."""


@dataclass(frozen=True)
class Round:
    """Seconds of what was done, by what it was, and the peak memory so far."""

    seconds: dict[str, list[float]]
    memory: dict[str, int | None]


Candidate = tuple[dict[str, Any], Callable[[float], Round]]
"""A model that is warmed up: what is known of it, and a function that works for about so many seconds."""


@dataclass
class Outcome:
    """What became of a candidate; one that `failed`, and why, may have rounds from before."""

    facts: dict[str, Any] = field(default_factory=dict)
    rounds: list[Round] = field(default_factory=list)
    failed: str | None = None


Facts = dict[str, Any]
"""What is known of a candidate, by name."""

Forward = Callable[..., "Tensor"]
"""Inputs and targets, (B, T) each -> the mean loss, a scalar."""

Step = Callable[[Sequence["Batch"], int], Callable[[], float]]
"""Updates the weights with the micro-batches of the step of this number; what it returns reads the loss, in nats."""

Write = Callable[["Tensor", int], tuple[float, float]]
"""Continues prompts (B, T) by so many tokens each; returns the seconds to the first one, and in all."""

Precisions = dict[int, str]
"""What the weights are in, by batch size."""
