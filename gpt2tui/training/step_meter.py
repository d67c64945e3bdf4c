"""Speed and memory of each step, beside the metrics of its update: the `step` event."""

import time

import psutil
import torch

from gpt2tui.device import Precision, device_name
from gpt2tui.estimate import flops_per_token
from gpt2tui.preset.schema import Preset
from gpt2tui.run.events import Step
from gpt2tui.system.device_speed import peak_flops
from gpt2tui.training.update import StepMetrics


class StepMeter:
    """Times steps from the metrics of one to the metrics of the next, so that asynchronous steps count in full."""

    def __init__(self, preset: Preset, device: torch.device, precision: Precision) -> None:
        self._device = device
        self._tokens_per_step = preset.tokens_per_step
        self._flops_per_token = flops_per_token(preset)
        self._peak_flops = peak_flops(device_name(device), precision)
        self._process = psutil.Process()
        self._started = 0.0

    def start(self) -> None:
        """Starts the clock for a step whose predecessor has already been measured."""
        self._started = time.perf_counter()

    def measure(self, step: int, metrics: StepMetrics) -> Step:
        """The event of a step whose metrics have just arrived; the clock starts for the next one."""
        before, self._started = self._started, time.perf_counter()
        seconds = self._started - before
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
