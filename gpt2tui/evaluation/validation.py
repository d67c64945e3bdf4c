"""The loss on the validation text, which the model is not trained on."""

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gpt2tui.data.batches import evaluation_batches
from gpt2tui.data.token_store import TokenizedCorpus
from gpt2tui.device import Precision, autocast
from gpt2tui.model.gpt2 import GPT2
from gpt2tui.preset.schema import TrainingTable


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


@torch.no_grad()
def validation_loss(
    model: GPT2,
    batches: Iterable[tuple[Tensor, Tensor]],
    token_bytes: np.ndarray,
    precision: Precision = "fp32",
) -> ValidationLoss:
    """The loss over all targets of `batches`: inputs (B, T) and targets (B, T), where -1 is ignored.

    Uses no random generator and leaves the model in the mode it was in. `token_bytes` (V,) is the number of UTF-8
    bytes of each token.
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


def corpus_validation_loss(
    model: GPT2,
    corpus: TokenizedCorpus,
    table: TrainingTable,
    precision: Precision,
    stopping: Callable[[], bool],
    whole: bool = False,
) -> ValidationLoss | None:
    """The loss over the fixed sample of `eval_tokens` validation tokens, or all of them; None once `stopping()`."""
    tokens = None if whole else table.eval_tokens
    mask = corpus.validation_mask
    batches = evaluation_batches(corpus.validation, table.batch_size, table.sequence_length, tokens, mask)
    batches = itertools.takewhile(lambda _: not stopping(), batches)
    loss = validation_loss(model, batches, corpus.tokenizer.token_bytes(), precision)
    return None if stopping() else loss
