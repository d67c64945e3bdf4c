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

    def run(self, micro_batches: Sequence[tuple[Tensor, Tensor]], iteration: int) -> UpdateResult:
        """The update that follows `iteration` earlier ones, on micro-batches of (inputs, targets), (B, T) each.

        Raises DivergedError, before any weight has moved, when the loss or the gradient is not finite.
        """
        self.model.train()
        learning_rate = self.optimizers.set_learning_rate(iteration)
        total = torch.zeros((), device=self.device)
        for inputs, targets in micro_batches:
            with autocast(self.device, self.precision):
                loss = self.forward(inputs.to(self.device), targets.to(self.device)) / len(micro_batches)
            scaled = loss if self.scaler is None else self.scaler.scale(loss)
            scaled.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        train_loss = float(total)
        grad_norm = self._clip()
        # A loss scale that was too large makes infinite gradients now and then; the scaler skips those updates.
        if not math.isfinite(train_loss) or (self.scaler is None and not math.isfinite(grad_norm)):
            self.optimizers.zero_grad()
            raise DivergedError(
                f"training diverged at step {iteration + 1}: the loss is {train_loss}, the gradient norm {grad_norm}. "
                "The checkpoints are intact; resume from one with a lower optimizer.lr, or a longer warm-up"
            )
        self.optimizers.step(self.scaler)
        if self.scaler is not None:
            self.scaler.update()
        return UpdateResult(train_loss, grad_norm, learning_rate)

    def _clip(self) -> float:
        """The gradient's norm before clipping; clips it when the preset says so."""
        if self.scaler is not None:
            for optimizer, _ in self.optimizers.all:
                self.scaler.unscale_(optimizer)
        limit = self.preset.optimizer.grad_clip or math.inf
        return float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit))
