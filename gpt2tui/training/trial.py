"""Throw-away steps before a run: how many steps fit into a time.

The schedule has to know the last step in advance, so the answer becomes part of the frozen preset. The run is from
then on like any other: repeatable, resumable, a pure function of it.
"""

import statistics
import time

import torch

from gpt2tui.data.batches import Batches, StreamBatches
from gpt2tui.device import Precision, choose_precision
from gpt2tui.preset.schema import Preset
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
