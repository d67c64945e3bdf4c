"""One update of the weights: forward and backward over the micro-batches of a step, clipping, the optimizers."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gpt2tui.errors import DivergedError
from gpt2tui.preset import Preset
from gpt2tui.training.optimizers import Optimizers
from gpt2tui.training.precision import Precision, autocast
from model.gpt2 import GPT2


@dataclass(frozen=True)
class UpdateResult:
    """The mean loss in nats a token, the gradient's norm before clipping, and AdamW's learning rate."""

    train_loss: float
    grad_norm: float
    learning_rate: float


class PendingResult:
    """What an update gave, before anybody has waited for the device to know it."""

    def __init__(self, loss: Tensor, grad_norm: Tensor, learning_rate: float, iteration: int, *, scaled: bool) -> None:
        self.learning_rate = learning_rate
        self.iteration = iteration
        self.scaled = scaled
        self._numbers = torch.stack((loss.detach(), grad_norm.detach()))  # (2,) on the device
        self._arrived: torch.cuda.Event | None = None
        if self._numbers.is_cuda:
            self._numbers = self._numbers.to("cpu", non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record()

    def read(self) -> UpdateResult:
        """The numbers; waits for the device. Raises DivergedError when the loss or the gradient is not finite."""
        if self._arrived is not None:
            self._arrived.synchronize()
        train_loss, grad_norm = self._numbers.tolist()
        # A loss scale that was too large makes infinite gradients now and then; the scaler skips those updates.
        if not math.isfinite(train_loss) or (not self.scaled and not math.isfinite(grad_norm)):
            raise DivergedError(
                f"training diverged at step {self.iteration + 1}: the loss is {train_loss}, the gradient norm "
                f"{grad_norm}. The checkpoints are intact; resume from one with a lower "
                "optimizer.lr, or a longer warm-up"
            )
        return UpdateResult(train_loss, grad_norm, self.learning_rate)


class Update:
    """The network with what moves it; `forward` is the network itself or its compiled form."""

    def __init__(self, preset: Preset, device: torch.device, precision: Precision) -> None:
        """A fresh network from the preset's seed, which also seeds the global random generator."""
        self.preset = preset
        self.device = device
        self.precision = precision
        torch.manual_seed(preset.training.seed)
        self.model = GPT2(preset.model).to(device)
        self.forward: Callable[..., Tensor] = self.model
        self.optimizers = Optimizers(self.model, preset)
        self.scaler = torch.amp.GradScaler(device.type) if precision == "fp16" else None
        self.reads_late = device.type == "cuda"
        """Whether results are to be read only after the next update has begun, so that the device never idles."""

    def follow(self, preset: Preset) -> None:
        """Another preset from the next update on, which differs in where the schedule ends."""
        self.preset = self.optimizers.preset = preset

    def run(self, micro_batches: Sequence[tuple[Tensor, Tensor]], iteration: int) -> UpdateResult:
        """The update that follows `iteration` earlier ones, and what it gave: `begin` and `read`."""
        return self.begin(micro_batches, iteration).read()

    def begin(self, micro_batches: Sequence[tuple[Tensor, Tensor]], iteration: int) -> PendingResult:
        """The update that follows `iteration` earlier ones, on micro-batches of (inputs, targets), (B, T) each.

        On CUDA it may still be under way when this returns, and a loss that is not finite shows when the result is
        read. Elsewhere reading costs nothing: DivergedError is raised here, before any weight has moved.
        """
        self.model.train()
        learning_rate = self.optimizers.set_learning_rate(iteration)
        total = torch.zeros((), device=self.device)
        for inputs, targets in micro_batches:
            total += self._forward_backward(self._moved(inputs), self._moved(targets), len(micro_batches))
        pending = PendingResult(total, self._clip(), learning_rate, iteration, scaled=self.scaler is not None)
        if not self.reads_late:
            try:
                pending.read()
            except DivergedError:
                self.optimizers.zero_grad()
                raise
        self.optimizers.step(self.scaler)
        if self.scaler is not None:
            self.scaler.update()
        return pending

    def _forward_backward(self, inputs: Tensor, targets: Tensor, micro_batches: int) -> Tensor:
        """Forward and backward of one of the micro-batches, (B, T) each; its share of the mean loss, a scalar."""
        with autocast(self.device, self.precision):
            loss = self.forward(inputs, targets) / micro_batches
        scaled = loss if self.scaler is None else self.scaler.scale(loss)
        scaled.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _moved(self, tokens: Tensor) -> Tensor:
        """The tokens on the device; on CUDA without waiting until they are there."""
        if self.device.type == "cuda":
            return tokens.pin_memory().to(self.device, non_blocking=True)
        return tokens.to(self.device)

    def _clip(self) -> Tensor:
        """The gradient's norm before clipping, a scalar; clips it when the preset says so."""
        if self.scaler is not None:
            for optimizer, _ in self.optimizers.all:
                self.scaler.unscale_(optimizer)
        parameters = list(self.model.parameters())
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        limit = self.preset.optimizer.grad_clip
        # A GPU would have to be waited for before one knows whether there is anything to clip.
        if limit and (self.reads_late or not norm <= limit):
            torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
        return norm
