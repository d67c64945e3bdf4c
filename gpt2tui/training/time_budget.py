"""A time budget: how many steps fit into it, estimated from the run's own steps and recorded whenever it changes."""

from dataclasses import asdict, dataclass
from typing import Any

from gpt2tui.preset.schema import Preset
from gpt2tui.training.schedules import decay_start, fewest_iterations

UNTYPICAL_STEPS = 2  # of each process: they allocate memory and start threads
FIRST_ESTIMATE = 12  # the step of the run after which it is made, whether or not it was resumed before
FEWEST_TYPICAL_STEPS = 5
ESTIMATES = 8  # in a whole run, where its learning rate allows
WORTH_A_CHANGE = 0.02  # of num_iterations
MEAN_STEPS = 100  # the running mean is mostly of so many steps
MOST_MEANS = 4.0  # the most that one step counts in the mean
MOST_ENDING = 0.5  # of the budget


@dataclass
class TimeBudget:
    """Chooses num_iterations, at most `most_iterations`, so that the whole run takes about `seconds`.

    All of its state is in the checkpoints. With a constant rate and "wsd", num_iterations changes only while the
    learning rate does not depend on it, so the final preset repeats the run. With "cosine" and "linear" the rate is
    that of the latest estimate; the events have the step of each.
    """

    seconds: float
    most_iterations: int
    spent: float = 0.0
    """Seconds so far: preparation, steps, evaluations, samples and checkpoints, without pauses."""
    step_seconds: float = 0.0
    """A running mean over typical steps."""
    typical_steps: int = 0
    other_seconds: float = 0.0
    """Of what came between the steps so far: evaluations, samples, checkpoints."""
    ending_seconds: float = 0.0
    """What will come after the last step: the loss over the whole validation text, a sample."""

    def __post_init__(self) -> None:
        self._untypical = UNTYPICAL_STEPS

    def add_step(self, seconds: float) -> None:
        """Counts a step."""
        self.spent += seconds
        if self._untypical:
            self._untypical -= 1
            return
        if self.typical_steps:
            seconds = min(seconds, MOST_MEANS * self.step_seconds)
        self.typical_steps += 1
        self.step_seconds += (seconds - self.step_seconds) / min(self.typical_steps, MEAN_STEPS)

    def add_preparation(self, seconds: float) -> None:
        """Counts what came before the first step of this process."""
        self.spent += seconds

    def add_between_steps(self, seconds: float) -> None:
        """Counts an evaluation, a sample or a checkpoint, which will come again."""
        self.spent += seconds
        self.other_seconds += seconds

    @property
    def is_timed(self) -> bool:
        """Whether enough steps have been timed for an estimate: in a run that is resumed, mostly before it begins."""
        return self.typical_steps >= FEWEST_TYPICAL_STEPS

    @property
    def seconds_left(self) -> float:
        """What is left for steps and for what comes between them; below 0 where the budget is spent."""
        return self.seconds - self.spent - min(self.ending_seconds, MOST_ENDING * self.seconds)

    def num_iterations(self, preset: Preset, step: int) -> int:
        """The number of iterations that fits, estimated after `step` of them; mostly the preset's unchanged."""
        now = preset.training.num_iterations
        follows = preset.schedule.name in ("cosine", "linear") or step <= decay_start(preset)
        due = step == FIRST_ESTIMATE or (step > FIRST_ESTIMATE and step % max(1, now // ESTIMATES) == 0)
        if not (follows and due and self.is_timed):
            return now
        per_step = self.step_seconds + self.other_seconds / step
        fitting = step + int(self.seconds_left / per_step)
        # As it is now the schedule allows the present number: where fewer fit, the run never becomes longer.
        fitting = min(max(fitting, min(fewest_iterations(preset, step), now)), self.most_iterations)
        return fitting if abs(fitting - now) > WORTH_A_CHANGE * now else now

    def as_numbers(self, num_iterations: int) -> dict[str, float]:
        """The form in a checkpoint; `num_iterations` is that of the preset saved with it."""
        return {**asdict(self), "num_iterations": num_iterations}

    @classmethod
    def of(cls, numbers: Any, preset: Preset) -> "TimeBudget | None":
        """From what `as_numbers` gave; None if the user has since changed num_iterations."""
        if not numbers or numbers["num_iterations"] != preset.training.num_iterations:
            return None
        return cls(**{name: numbers[name] for name in NUMBERS if name in numbers})


NUMBERS = tuple(TimeBudget.__dataclass_fields__)
"""The numbers in a checkpoint besides num_iterations; older ones have only the first three."""
