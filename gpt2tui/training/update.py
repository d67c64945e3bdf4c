"""One update of the weights: forward and backward over the micro-batches of a step, clipping, the optimizers."""

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2tui.device import Precision, autocast
from gpt2tui.errors import DivergedError
from gpt2tui.preset.schema import Preset
from gpt2tui.training.optimizers import Optimizers
from model.gpt2 import GPT2


@dataclass(frozen=True)
class StepMetrics:
    """The mean loss in nats per token, the gradient's norm before clipping, and AdamW's learning rate."""

    train_loss: float
    grad_norm: float
    learning_rate: float


class AsyncStepMetrics:
    """What an update gave, before anybody has waited for the device to know it."""

    def __init__(
        self, loss: Tensor, grad_norm: Tensor, learning_rate: float, iteration: int, scale: Tensor | None = None
    ) -> None:
        """`scale` is what the gradient scaler multiplied the loss with; all tensors are scalars."""
        self.learning_rate = learning_rate
        self.iteration = iteration
        scale = torch.ones_like(loss) if scale is None else scale
        self._numbers = torch.stack((loss.detach(), grad_norm.detach(), scale))  # (3,) on the device
        self._arrived: torch.cuda.Event | None = None
        if self._numbers.is_cuda:
            self._numbers = self._numbers.to("cpu", non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record()

    def read(self) -> StepMetrics:
        """The numbers; waits for the device. Raises DivergedError when the loss or the gradient is not finite.

        Not for the gradient of a loss scaled by more than 1: then the scale was too large, which happens now and then.
        """
        if self._arrived is not None:
            self._arrived.synchronize()
        train_loss, grad_norm, scale = self._numbers.tolist()
        if not math.isfinite(train_loss) or (scale <= 1 and not math.isfinite(grad_norm)):
            raise DivergedError(
                f"training diverged at step {self.iteration + 1}: the loss is {train_loss}, the gradient norm "
                f"{grad_norm}. The checkpoints are intact; resume from one with a lower "
                "optimizer.lr, or a longer warm-up"
            )
        return StepMetrics(train_loss, grad_norm, self.learning_rate)


class Update:
    """A network with the optimizers that move it."""

    def __init__(self, model: GPT2, optimizers: Optimizers, device: torch.device, precision: Precision) -> None:
        """`model` is on `device`, and `optimizers` hold its parameters."""
        self.model = model
        self.optimizers = optimizers
        self.device = device
        self.precision = precision
        self.forward: Callable[..., Tensor] = model
        """(inputs, targets) -> mean loss: the network itself, or its compiled or wrapped form."""
        self.no_sync: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext
        """The context for every micro-batch of a step but the last, after which ranks may add up their gradients."""
        self.scaler = torch.amp.GradScaler(device.type) if precision == "fp16" else None
        self.async_metrics = device.type == "cuda"
        """Whether results are to be read only after the next update has begun, so that the device never idles."""

    def follow(self, preset: Preset) -> None:
        """Another preset from the next update on, which differs in where the schedule ends."""
        self.optimizers.preset = preset

    def run(self, micro_batches: Sequence[tuple[Tensor, Tensor]], iteration: int) -> StepMetrics:
        """The update that follows `iteration` earlier ones, and what it gave: `begin` and `read`."""
        return self.begin(micro_batches, iteration).read()

    def begin(self, micro_batches: Sequence[tuple[Tensor, Tensor]], iteration: int) -> AsyncStepMetrics:
        """The update that follows `iteration` earlier ones, on micro-batches of (inputs, targets) on the CPU.

        Both are (B, T) int64; a negative target does not count, and the loss is the mean over all that do. After a loss
        or a gradient that is not finite nothing moves: no weight, no moment, no step counter of any optimizer. With
        a gradient scaler it then halves the scale. Else it is a DivergedError, raised here, or on CUDA when the
        result is read.
        """
        self.model.train()
        learning_rate = self.optimizers.set_learning_rate(iteration)
        loss = self._forward_backward(micro_batches)
        norm = self._gradient_norm()
        scale = None if self.scaler is None else self.scaler.scale(torch.ones_like(loss))
        pending = AsyncStepMetrics(loss, norm, learning_rate, iteration, scale)
        if self.async_metrics:
            self._clip(norm)
            self.optimizers.step(found_inf=1.0 - (loss.isfinite() & norm.isfinite()).float())
        else:
            try:
                if math.isfinite(pending.read().grad_norm):
                    self._clip(norm)
                    self.optimizers.step()
            finally:
                self.optimizers.zero_grad()
        if self.scaler is not None:
            self.scaler.update()
        return pending

    def _forward_backward(self, micro_batches: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Adds the gradient of the step's mean loss; returns that loss, a scalar."""
        counts = [int((targets >= 0).sum()) for _, targets in micro_batches]
        total = torch.zeros((), device=self.device)
        for number, ((inputs, targets), count) in enumerate(zip(micro_batches, counts, strict=True), start=1):
            share = sum(counts) / count if count else math.inf  # one of so many parts
            with contextlib.nullcontext() if number == len(counts) else self.no_sync():
                with autocast(self.device, self.precision):
                    loss = self.forward(self._moved(inputs), self._moved(targets)) / share
                scaled = loss if self.scaler is None else self.scaler.scale(loss)
                scaled.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def _moved(self, tokens: Tensor) -> Tensor:
        """The tokens on the device; on CUDA without waiting until they are there."""
        if self.device.type == "cuda":
            return tokens.pin_memory().to(self.device, non_blocking=True)
        return tokens.to(self.device)

    def _gradient_norm(self) -> Tensor:
        """The norm of the gradient, no longer scaled: a scalar."""
        if self.scaler is not None:
            for optimizer, _ in self.optimizers.all:
                self.scaler.unscale_(optimizer)
        return torch.nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])

    def _clip(self, norm: Tensor) -> None:
        """Scales a gradient of this norm down to the preset's limit, if there is one."""
        limit = self.optimizers.preset.optimizer.grad_clip
        # A GPU would have to be waited for before one knows whether there is anything to clip.
        if limit and (self.async_metrics or not norm <= limit):
            torch.nn.utils.clip_grads_with_norm_(self.model.parameters(), limit, norm)


def fresh_update(preset: Preset, device: torch.device, precision: Precision) -> Update:
    """A network from the preset's seed, which also seeds the global random generator, with the preset's optimizers."""
    torch.manual_seed(preset.training.seed)
    model = GPT2(preset.model).to(device)
    return Update(model, Optimizers(model, preset), device, precision)
