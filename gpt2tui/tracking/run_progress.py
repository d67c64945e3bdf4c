"""Progress, speed and metrics of a run, computed from its events. Pure: each event gives a new state."""

import math
import statistics
from dataclasses import dataclass, field, replace

from gpt2tui.run.events import (
    Evaluated,
    Event,
    LearningRateChanged,
    NumIterationsChanged,
    Paused,
    Resumed,
    RunStarted,
    Step,
)
from gpt2tui.run.state import RunState, state_at
from gpt2tui.system.numbers import xz_comparison

_RECENT_STEPS = 50


@dataclass(frozen=True)
class ExponentialAverage:
    """An exponential moving average with bias correction.

    It is divided by the sum of the weights so far, so that the first values are not pulled towards zero (Kingma and Ba,
    "Adam", section 3). About the last 1 / (1 - beta) values count.
    """

    beta: float = 0.95
    weighted_sum: float = 0.0
    weights: float = 0.0

    def add(self, value: float) -> "ExponentialAverage":
        """The average with one more value; values that are not finite are ignored, because they would stay forever."""
        if not math.isfinite(value):
            return self
        return replace(
            self,
            weighted_sum=self.beta * self.weighted_sum + (1 - self.beta) * value,
            weights=self.beta * self.weights + (1 - self.beta),
        )

    @property
    def value(self) -> float | None:
        """The average; None before the first value."""
        return self.weighted_sum / self.weights if self.weights else None


@dataclass(frozen=True)
class RunProgress:
    """The state of a run after some of its events."""

    step: int = 0
    num_iterations: int = 0
    tokens_per_step: int = 0
    train_loss: ExponentialAverage = field(default_factory=ExponentialAverage)
    """In nats per token, smoothed over about the last 20 steps."""
    recent_step_seconds: tuple[float, ...] = ()
    memory_bytes: int | None = None
    """The memory in use on the device if it has its own, else by the process."""
    evaluation: Evaluated | None = None
    """The last one."""
    best_val_loss: float | None = None
    """The lowest val_loss over the fixed validation sample, from the run's events."""
    learning_rate_factor: float = 1.0
    """The user's factor on the schedule."""
    xz_bits_per_byte: float | None = None
    xz_after_training_bits_per_byte: float | None = None
    paused: bool = False
    time_budget_left: float | None = None
    """Seconds that the run may take from its start on, until its number of steps follows from them."""

    def after(self, event: Event) -> "RunProgress":
        """The state after one more event."""
        match event:
            case RunStarted():
                return RunProgress(
                    step=event.step,
                    num_iterations=event.num_iterations,
                    tokens_per_step=event.tokens_per_step,
                    xz_bits_per_byte=event.xz_bits_per_byte,
                    xz_after_training_bits_per_byte=event.xz_after_training_bits_per_byte,
                    best_val_loss=event.best_val_loss,
                    learning_rate_factor=event.learning_rate_factor,
                    time_budget_left=event.time_budget_left,
                )
            case Step():
                known = event.device_memory_bytes is not None
                return replace(
                    self,
                    step=event.step,
                    train_loss=self.train_loss.add(event.train_loss),
                    recent_step_seconds=(*self.recent_step_seconds, event.step_seconds)[-_RECENT_STEPS:],
                    memory_bytes=event.device_memory_bytes if known else event.host_memory_bytes,
                )
            case Evaluated():
                return replace(self, evaluation=event, best_val_loss=event.best_val_loss)
            case LearningRateChanged():
                return replace(self, learning_rate_factor=event.factor)
            case NumIterationsChanged():
                return replace(self, num_iterations=event.num_iterations, time_budget_left=None)
            case Paused() | Resumed():
                return replace(self, paused=isinstance(event, Paused))
        return self

    def xz_comparison(self, bits_per_byte: float, short: bool = False) -> str:
        """The figures of xz beside the model's `bits_per_byte`; empty where xz was not tried."""
        return xz_comparison(bits_per_byte, self.xz_bits_per_byte, self.xz_after_training_bits_per_byte, short)

    def state(self, eval_frequency: int = 0) -> RunState:
        """What the process that trains the run does after these events (see `state_at`)."""
        trained = bool(self.recent_step_seconds)  # since the start: a resumed run does not repeat its evaluation
        return state_at(self.step, self.num_iterations, self.evaluation, self.paused, eval_frequency if trained else 0)

    @property
    def seconds_per_step(self) -> float | None:
        """The median of the last 50 steps; compilation, evaluations and pauses do not count."""
        return statistics.median(self.recent_step_seconds) if self.recent_step_seconds else None

    @property
    def tokens_per_second(self) -> float | None:
        """Training tokens per second at the median speed."""
        seconds = self.seconds_per_step
        return self.tokens_per_step / seconds if seconds else None

    @property
    def seconds_left(self) -> float | None:
        """Until the last step at the median speed, without evaluations; at most the time budget."""
        seconds = self.seconds_per_step
        left = None if seconds is None else seconds * max(0, self.num_iterations - self.step)
        return left if left is None or self.time_budget_left is None else min(left, self.time_budget_left)

    @property
    def fraction(self) -> float:
        """The share of the steps done, from 0 to 1."""
        return min(1.0, self.step / self.num_iterations) if self.num_iterations else 0.0
