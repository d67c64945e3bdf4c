"""Speed and memory of each step, beside the metrics of its update: the `step` event."""

import psutil
import torch

from gpt2tui.device import Mark, Precision, device_name, seconds_between, time_mark
from gpt2tui.estimate import flops_per_token
from gpt2tui.preset.schema import Preset
from gpt2tui.run.events import Step
from gpt2tui.system.device_speed import peak_flops
from gpt2tui.training.distributed import Ranks
from gpt2tui.training.update import StepMetrics


class StepMeter:
    """Times steps from the end of one to the end of the next; on CUDA by its clock, as metrics arrive late."""

    def __init__(self, preset: Preset, device: torch.device, precision: Precision, ranks: Ranks | None = None) -> None:
        self._ranks = ranks or Ranks()
        self._largest_memory: list[float] | None = None
        self._device = device
        self._tokens_per_step = preset.tokens_per_step
        self._flops_per_token = flops_per_token(preset)
        peak = peak_flops(device_name(device), precision)
        self._peak_flops = None if peak is None else peak * self._ranks.world_size
        self._process = psutil.Process()
        self._started: Mark = 0.0

    def start(self) -> None:
        """Starts the clock for a step whose predecessor has already been measured."""
        self._started = time_mark(self._device)

    def exchange(self, signal_number: int = 0) -> None:
        """After a step: all ranks learn the most memory that one of them has, and who has got a signal to stop."""
        if self._ranks.world_size > 1:
            self._largest_memory = self._ranks.exchange(self._memory(), signal_number)

    def _memory(self) -> list[float]:
        """Bytes: on the device, reserved there by torch, and of this process."""
        on_device = [0.0, 0.0]
        if self._device.type == "cuda":
            on_device = [torch.cuda.memory_allocated(self._device), torch.cuda.memory_reserved(self._device)]
        return [*on_device, self._process.memory_info().rss]

    def measure(self, step: int, metrics: StepMetrics, ended: Mark) -> Step:
        """The event of a step that ended at this mark; there the clock starts for the next one."""
        seconds = seconds_between(self._started, ended)
        self._started = ended
        tokens_per_second = self._tokens_per_step / seconds
        on_cuda = self._device.type == "cuda"
        allocated, reserved, host = self._largest_memory or self._memory()
        return Step(
            step=step,
            train_loss=metrics.train_loss,
            learning_rate=metrics.learning_rate,
            grad_norm=metrics.grad_norm,
            tokens_seen=step * self._tokens_per_step,
            tokens_per_second=tokens_per_second,
            step_seconds=seconds,
            device_memory_bytes=int(allocated) if on_cuda else None,
            device_memory_reserved_bytes=int(reserved) if on_cuda else None,
            host_memory_bytes=int(host),
            mfu=tokens_per_second * self._flops_per_token / self._peak_flops if self._peak_flops else None,
        )
