"""The learning rate as a pure function of the preset and the step."""

import math
from dataclasses import dataclass
from typing import Literal

from gpt2tui.preset.schema import Preset


@dataclass(frozen=True)
class Phase:
    """A part of the schedule: the iterations from `first` to `last`, counted from 0."""

    name: Literal["warm-up", "constant", "decay"]
    first: int
    last: int

    def progress(self, iteration: int) -> float:
        """The share of the way from the first to the last, from 0 to 1."""
        return min((iteration - self.first) / max(self.last - self.first, 1), 1.0)


def phase(preset: Preset, iteration: int) -> Phase:
    """The phase of the update after `iteration` earlier ones (0 for the first)."""
    warmup, last = preset.schedule.warmup_iterations, preset.training.num_iterations - 1
    if iteration < warmup:
        return Phase("warm-up", 0, warmup - 1)
    start = decay_start(preset)
    if preset.schedule.name == "constant" or iteration <= start:
        return Phase("constant", warmup, start)
    return Phase("decay", start, last)


def learning_rate(preset: Preset, iteration: int) -> float:
    """AdamW's learning rate for the update after `iteration` earlier ones (0 for the first).

    Warm-up is linear and reaches the peak with its last update; decay ends at min_lr with the run's last update.
    Cosine: Loshchilov & Hutter 2017 (SGDR), section 3, one cycle. wsd: Hu et al. 2024 (MiniCPM), section 4.
    """
    schedule, peak, now = preset.schedule, preset.optimizer.lr, phase(preset, iteration)
    if now.name == "warm-up":
        return peak * (iteration + 1) / schedule.warmup_iterations
    if now.name == "constant":
        return peak
    progress = now.progress(iteration)  # at most 1: beyond its last iteration a run stays at min_lr
    remaining = (1 + math.cos(math.pi * progress)) / 2 if schedule.name == "cosine" else 1 - progress
    return schedule.min_lr + (peak - schedule.min_lr) * remaining


def decay_start(preset: Preset) -> int:
    """The last iteration before decay; up to it the learning rate does not depend on num_iterations."""
    schedule, last = preset.schedule, preset.training.num_iterations - 1
    if schedule.name == "constant":
        return last
    start = min(schedule.warmup_iterations, last)
    return max(start, round((last + 1) * (1 - schedule.decay_fraction)) - 1) if schedule.name == "wsd" else start


def fewest_iterations(preset: Preset, step: int) -> int:
    """The fewest iterations to which a run can be shortened after `step`: one more, and the whole warm-up.

    With "wsd" the decay must not have begun, so that the past learning rates stay what they were.
    """
    stable = 1 - preset.schedule.decay_fraction if preset.schedule.name == "wsd" else 1.0
    return max(step + 1, math.ceil(step / stable), preset.schedule.warmup_iterations + 1)


def learning_rate_factor(preset: Preset, iteration: int) -> float:
    """`learning_rate` as a share of the peak, the same for AdamW and Muon."""
    return learning_rate(preset, iteration) / preset.optimizer.lr
