"""The loss on the validation text, which the model is not trained on."""

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from gpt2tui.data.batches import evaluation_batches
from gpt2tui.data.token_store import TokenizedCorpus
from gpt2tui.device import Precision, autocast
from gpt2tui.model.gpt2 import GPT2
from gpt2tui.model.loss import linear_cross_entropy
from gpt2tui.preset.schema import TrainingTable

ROWS = 256
"""How many positions have their logits in memory together while the most probable tokens are found."""


def perplexity(val_loss: float) -> float:
    """exp of a mean loss in nats per token; infinite where that overflows."""
    return math.exp(val_loss) if val_loss < 700 else math.inf


@dataclass(frozen=True)
class ValidationLoss:
    """Sums over the tokens that count: nats, number of tokens, number of UTF-8 bytes of their text.

    Of prompts and answers, those of the answers count, and their bytes alone.
    """

    nats: float
    tokens: int
    bytes: int
    correct: int | None = None
    """How many of the tokens were the single most probable one; None where that was not counted."""

    @property
    def accuracy(self) -> float | None:
        """The share of the tokens that were the single most probable one; None where it was not counted."""
        return None if self.correct is None or not self.tokens else self.correct / self.tokens

    @property
    def val_loss(self) -> float:
        """Mean nats per token; NaN without tokens."""
        return self.nats / self.tokens if self.tokens else math.nan

    @property
    def perplexity(self) -> float:
        """exp of the mean loss."""
        return perplexity(self.val_loss)

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of the text, comparable across tokenizers; infinite without bytes.

        End-of-text tokens add bits but no bytes.
        """
        return self.nats / math.log(2) / self.bytes if self.bytes else math.inf


class WindowObserver(Protocol):
    """Receives the losses of each batch of windows."""

    def add(self, inputs: Tensor, targets: Tensor, losses: Tensor) -> None:
        """`inputs`, `targets` and `losses` (B, T) of a batch; a target of -1 has the loss 0."""


@torch.no_grad()
def validation_loss(
    model: GPT2,
    batches: Iterable[tuple[Tensor, Tensor]],
    token_bytes: np.ndarray,
    precision: Precision = "fp32",
    *,
    with_accuracy: bool = False,
    observer: WindowObserver | None = None,
) -> ValidationLoss:
    """The loss over all targets of `batches`: inputs (B, T) and targets (B, T), where -1 is ignored.

    Uses no random generator and leaves the model in the mode it was in. `token_bytes` (V,) is the number of UTF-8
    bytes of each token. `with_accuracy` computes all logits once more.
    """
    device = next(model.parameters()).device
    lengths = torch.from_numpy(token_bytes)
    was_training = model.training
    model.eval()
    nats, tokens, text_bytes = 0.0, 0, 0
    correct = 0 if with_accuracy else None
    try:
        for inputs, targets in batches:
            counted = targets[targets >= 0]
            on_device = targets.to(device)
            with autocast(device, precision):
                hidden = model.hidden(inputs.to(device))  # (B, T, C)
                losses = linear_cross_entropy(hidden, model.wte.weight, on_device, "none")  # (B, T)
                if correct is not None:
                    correct += _most_probable(model, hidden, on_device)
            if observer is not None:
                observer.add(inputs, targets, losses)
            nats += float(losses.flatten().sum())
            tokens += counted.numel()
            text_bytes += int(lengths[counted].sum())
    finally:
        model.train(was_training)
    return ValidationLoss(nats, tokens, text_bytes, correct)


def _most_probable(model: GPT2, hidden: Tensor, targets: Tensor) -> int:
    """How many targets (B, T) are the single most probable token after `hidden` (B, T, C)."""
    counts = targets >= 0
    found = 0
    parts = zip(torch.split(hidden[counts], ROWS), torch.split(targets[counts], ROWS), strict=True)
    for rows, wanted in parts:  # (n, C), (n,)
        logits = model.logits(rows)  # (n, V)
        own = logits.gather(-1, wanted[:, None])
        found += int(((logits >= own).sum(-1) == 1).sum())
    return found


def corpus_validation_loss(
    model: GPT2,
    corpus: TokenizedCorpus,
    table: TrainingTable,
    precision: Precision,
    stopping: Callable[[], bool],
    whole: bool = False,
    *,
    with_accuracy: bool = False,
    observer: WindowObserver | None = None,
) -> ValidationLoss | None:
    """The loss over the fixed sample of `eval_tokens` validation tokens, or all of them; None once `stopping()`."""
    tokens = None if whole else table.eval_tokens
    mask = corpus.validation_mask
    batches = evaluation_batches(corpus.validation, table.batch_size, table.sequence_length, tokens, mask)
    batches = itertools.takewhile(lambda _: not stopping(), batches)
    token_bytes = corpus.tokenizer.token_bytes()
    loss = validation_loss(model, batches, token_bytes, precision, with_accuracy=with_accuracy, observer=observer)
    return None if stopping() else loss
