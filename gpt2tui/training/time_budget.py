"""How many iterations fit into a time: measured on this machine, once, before the run begins.

The schedule has to know the last step in advance, so the answer becomes part of the frozen preset and the run is from
then on like any other: repeatable, resumable, a pure function of its preset.
"""

import statistics
import time

import torch

from gpt2tui.data.batches import Batches, StreamBatches
from gpt2tui.preset import Preset
from gpt2tui.training.precision import Precision
from gpt2tui.training.update import Update

WARM_UP_STEPS = 2  # the first ones allocate memory and start threads
MEASURED_STEPS = 6


def fitted(preset: Preset, batches: Batches | StreamBatches, device: torch.device, precision: Precision) -> Preset:
    """The preset with training.num_iterations lowered to what fits its time budget; the budget is then spent.

    Runs a few steps with a network that is thrown away. `batches` must not be the run's own if they are a stream.
    """
    seconds = preset.training.time_budget
    if not seconds:
        return preset
    update, durations = Update(preset, device, precision), []
    for step in range(WARM_UP_STEPS + MEASURED_STEPS):
        started = time.perf_counter()
        update.run(batches.micro_batches(step), step)
        durations.append(time.perf_counter() - started)
    fitting = int(seconds / statistics.median(durations[WARM_UP_STEPS:]))
    fewest = preset.schedule.warmup_iterations + 1
    iterations = min(preset.training.num_iterations, max(fitting, fewest))
    table = preset.training.model_copy(update={"num_iterations": iterations, "time_budget": 0.0})
    return preset.model_copy(update={"training": table})
