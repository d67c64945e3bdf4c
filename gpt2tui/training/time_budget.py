"""Steps that were really taken correct what a trial before the run has promised."""

import statistics
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from gpt2tui.preset.schema import Preset
from gpt2tui.training.schedules import decay_start, fewest_iterations

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
