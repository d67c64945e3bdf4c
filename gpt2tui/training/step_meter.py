"""Speed and memory of each step, beside the metrics of its update: the `step` event."""

import psutil
import torch

from gpt2tui.device import Mark, Precision, device_name, seconds_between, time_mark
from gpt2tui.estimate import flops_per_token
from gpt2tui.preset.schema import Preset
from gpt2tui.run.events import Step
from gpt2tui.system.device_speed import peak_flops
from gpt2tui.training.update import StepMetrics


class StepMeter:
    """Times steps from the end of one to the end of the next; on CUDA by its clock, as metrics arrive late."""

    def __init__(self, preset: Preset, device: torch.device, precision: Precision) -> None:
        self._device = device
        self._tokens_per_step = preset.tokens_per_step
        self._flops_per_token = flops_per_token(preset)
        self._peak_flops = peak_flops(device_name(device), precision)
        self._process = psutil.Process()
        self._started: Mark = 0.0

    def start(self) -> None:
        """Starts the clock for a step whose predecessor has already been measured."""
        self._started = time_mark(self._device)

    def measure(self, step: int, metrics: StepMetrics, ended: Mark) -> Step:
        """The event of a step that ended at this mark; there the clock starts for the next one."""
        seconds = seconds_between(self._started, ended)
        self._started = ended
        tokens_per_second = self._tokens_per_step / seconds
        on_cuda = self._device.type == "cuda"
        return Step(
            step=step,
            train_loss=metrics.train_loss,
            learning_rate=metrics.learning_rate,
            grad_norm=metrics.grad_norm,
            tokens_seen=step * self._tokens_per_step,
            tokens_per_second=tokens_per_second,
            step_seconds=seconds,
            device_memory_bytes=torch.cuda.memory_allocated(self._device) if on_cuda else None,
            device_memory_reserved_bytes=torch.cuda.memory_reserved(self._device) if on_cuda else None,
            host_memory_bytes=self._process.memory_info().rss,
            mfu=tokens_per_second * self._flops_per_token / self._peak_flops if self._peak_flops else None,
        )
