"""Throw-away steps before a run: how many steps fit into a time.

The schedule has to know the last step in advance, so the answer becomes part of the frozen preset. The run is from
then on like any other: repeatable, resumable, a pure function of it.
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

WARM_UP_STEPS = 2  # the first ones allocate memory and start threads
MEASURED_STEPS = 15


def within_budget(preset: Preset, batches: Batches | StreamBatches, device: torch.device) -> Preset:
    """The preset with training.num_iterations lowered to what fits its time budget; the budget is then spent.

    `batches` must not be the run's own if they are a stream.
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
    """What a step takes, not compiled, with a network that is thrown away.

    The median of a few. Their faster half would promise more than a machine keeps whose speed goes up and down.
    """
    update, durations = fresh_update(preset, device, precision), []
    for step in range(WARM_UP_STEPS + MEASURED_STEPS):
        started = time.perf_counter()
        update.run(batches.micro_batches(step), step)
        durations.append(time.perf_counter() - started)
    return statistics.median(durations[WARM_UP_STEPS:])


# ---- steps that were really taken correct what a probe before the run has promised

LOOKS = 8  # in a whole run, if it were never to decay
WORTH_A_CHANGE = 0.02  # of num_iterations
RECENT_STEPS = 500
MOST_MEDIANS = 4.0  # that a step counts for, however long something else held it up


@dataclass
class TimeBudget:
    """Lets a run of about `seconds` of training steps come out of at most `most_iterations`.

    Only while the learning rate does not yet know where the run ends: the final number of iterations, frozen in the
    preset, repeats the run exactly.
    """

    seconds: float
    most_iterations: int
    spent: float = 0.0
    """Seconds of the steps so far."""
    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_STEPS))

    def add(self, step_seconds: float) -> None:
        """Takes note of a step."""
        if self._recent:
            step_seconds = min(step_seconds, MOST_MEDIANS * statistics.median(self._recent))
        self._recent.append(step_seconds)
        self.spent += step_seconds

    def num_iterations(self, preset: Preset, step: int) -> int:
        """How many iterations fit, as far as one knows after `step` of them; now and then other than the preset's."""
        now = preset.training.num_iterations
        undecided = preset.schedule.warmup_iterations < step <= decay_start(preset)
        if not undecided or not self._recent or step % max(1, now // LOOKS):
            return now
        fitting = step + int((self.seconds - self.spent) / statistics.fmean(self._recent))
        fitting = min(max(fitting, fewest_iterations(preset, step)), self.most_iterations)
        return fitting if abs(fitting - now) > WORTH_A_CHANGE * now else now

    def as_numbers(self, num_iterations: int) -> dict[str, float]:
        """What a checkpoint keeps; `num_iterations` are the preset's as it is saved."""
        return {
            "seconds": self.seconds,
            "most_iterations": self.most_iterations,
            "spent": self.spent,
            "num_iterations": num_iterations,
        }

    @classmethod
    def of(cls, numbers: Any, preset: Preset) -> "TimeBudget | None":
        """What `as_numbers` gave, unless a person has meanwhile said how many iterations there are to be."""
        if not numbers or numbers["num_iterations"] != preset.training.num_iterations:
            return None
        return cls(numbers["seconds"], numbers["most_iterations"], numbers["spent"])
