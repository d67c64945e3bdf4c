"""Time budgets: the number of iterations that fits, from probe steps before the run and from its own steps.

The schedule needs the last step in advance, so that number becomes part of the frozen preset, which repeats the run.
"""

import statistics
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import torch

from gpt2tui.data.batches import Batches, StreamBatches
from gpt2tui.device import Precision, choose_precision
from gpt2tui.preset.schema import Preset
from gpt2tui.training.schedules import decay_start, fewest_iterations
from gpt2tui.training.update import fresh_update

PROBE_WARM_UP_STEPS = 2  # the first steps allocate memory and start threads
PROBE_STEPS = 15

LOOKS = 8  # in a whole run without decay
WORTH_A_CHANGE = 0.02  # of num_iterations
RECENT_STEPS = 500
MOST_MEDIANS = 4.0  # the most that one step counts, in medians of the recent steps


def within_budget(preset: Preset, batches: Batches | StreamBatches, device: torch.device) -> Preset:
    """The preset with num_iterations lowered to what fits its time_budget, and time_budget 0.

    Takes probe steps on `batches`, which must not be the run's own if they are a stream.
    """
    seconds = preset.training.time_budget
    if not seconds:
        return preset
    fitting = int(seconds / step_seconds(preset, batches, device, choose_precision(preset, device)))
    fewest = preset.schedule.warmup_iterations + 1
    return preset.with_training(
        num_iterations=min(preset.training.num_iterations, max(fitting, fewest)), time_budget=0.0
    )


def step_seconds(preset: Preset, batches: Batches | StreamBatches, device: torch.device, precision: Precision) -> float:
    """The median time of a step, not compiled, with a network that is discarded."""
    update, durations = fresh_update(preset, device, precision), []
    for step in range(PROBE_WARM_UP_STEPS + PROBE_STEPS):
        started = time.perf_counter()
        update.run(batches.micro_batches(step), step)
        durations.append(time.perf_counter() - started)
    return statistics.median(durations[PROBE_WARM_UP_STEPS:])


@dataclass
class TimeBudget:
    """Chooses num_iterations, at most `most_iterations`, so that all steps together take about `seconds`.

    It changes only while the learning rate does not depend on it, so that the final preset repeats the run exactly.
    """

    seconds: float
    most_iterations: int
    spent: float = 0.0
    """Seconds of all steps so far."""
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_STEPS))

    def add(self, step_seconds: float) -> None:
        """Counts a step."""
        if self._recent:
            step_seconds = min(step_seconds, MOST_MEDIANS * statistics.median(self._recent))
        self._recent.append(step_seconds)
        self.spent += step_seconds

    def num_iterations(self, preset: Preset, step: int) -> int:
        """The number of iterations that fits, estimated after `step` of them; mostly the preset's unchanged."""
        now = preset.training.num_iterations
        undecided = preset.schedule.warmup_iterations < step <= decay_start(preset)
        if not undecided or not self._recent or step % max(1, now // LOOKS):
            return now
        fitting = step + int((self.seconds - self.spent) / statistics.fmean(self._recent))
        fitting = min(max(fitting, fewest_iterations(preset, step)), self.most_iterations)
        return fitting if abs(fitting - now) > WORTH_A_CHANGE * now else now

    def as_numbers(self, num_iterations: int) -> dict[str, float]:
        """The form in a checkpoint; `num_iterations` is that of the preset saved with it."""
        return {
            "seconds": self.seconds,
            "most_iterations": self.most_iterations,
            "spent": self.spent,
            "num_iterations": num_iterations,
        }

    @classmethod
    def of(cls, numbers: Any, preset: Preset) -> "TimeBudget | None":
        """From what `as_numbers` gave; None if the user has since changed num_iterations."""
        if not numbers or numbers["num_iterations"] != preset.training.num_iterations:
            return None
        return cls(numbers["seconds"], numbers["most_iterations"], numbers["spent"])
