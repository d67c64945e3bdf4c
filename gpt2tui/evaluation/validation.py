"""The held-out loss: what the model has not been trained on, measured the same way each time."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gpt2tui.device import Precision, autocast
from model.gpt2 import GPT2


def perplexity(val_loss: float) -> float:
    """exp of a mean loss in nats per token; infinite where that overflows."""
    return math.exp(val_loss) if val_loss < 700 else math.inf


@dataclass(frozen=True)
class ValidationLoss:
    """Sums over the tokens that were predicted: nats, how many tokens, how many UTF-8 bytes they stand for."""

    nats: float
    tokens: int
    bytes: int

    @property
    def val_loss(self) -> float:
        """Mean nats per token; NaN of no tokens."""
        return self.nats / self.tokens if self.tokens else math.nan

    @property
    def perplexity(self) -> float:
        """exp of the mean loss."""
        return perplexity(self.val_loss)

    @property
    def bits_per_byte(self) -> float:
        """Bits the model needs for one byte of the text: comparable across tokenizers.

        End-of-text tokens cost bits and stand for no byte, so that the figure is never flattered.
        """
        return self.nats / math.log(2) / self.bytes if self.bytes else math.inf


@torch.no_grad()
def validation_loss(
    model: GPT2,
    batches: Iterable[tuple[Tensor, Tensor]],
    token_bytes: np.ndarray,
    precision: Precision = "fp32",
) -> ValidationLoss:
    """The loss over all targets of `batches` (inputs (B, T), targets (B, T) with -1 for "not counted").

    Draws nothing from any random generator and leaves the model in the mode it was in. `token_bytes` (V,) holds the
    number of UTF-8 bytes of each token.
    """
    device = next(model.parameters()).device
    lengths = torch.from_numpy(token_bytes)
    was_training = model.training
    model.eval()
    nats, tokens, text_bytes = 0.0, 0, 0
    try:
        for inputs, targets in batches:
            counted = targets[targets >= 0]
            with autocast(device, precision):
                loss = model(inputs.to(device), targets.to(device), reduction="sum")
            nats += float(loss)
            tokens += counted.numel()
            text_bytes += int(lengths[counted].sum())
    finally:
        model.train(was_training)
    return ValidationLoss(nats, tokens, text_bytes)
