"""The windows with the highest loss among those of an evaluation, and what the model expected in them."""

import heapq
import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gpt2tui.data.tokenizer_kinds import IncrementalDecoder, Tokenizer
from gpt2tui.device import Precision, autocast
from gpt2tui.evaluation.perplexity import padded_batch
from gpt2tui.evaluation.validation import ROWS
from gpt2tui.model.gpt2 import GPT2
from gpt2tui.run.worst_passages import MOST, Passage

DIGITS = 4
Window = tuple[float, int, list[int], list[bool]]


class WorstWindows:
    """An observer of `validation_loss` that keeps the windows with the highest mean loss."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._seen = 0
        self._rows = 1  # of the largest batch, which memory sufficed for
        # The heap's root is the lowest; of equal losses the later window, which goes first.
        self._heap: list[Window] = []

    def add(self, inputs: Tensor, targets: Tensor, losses: Tensor) -> None:
        """`inputs`, `targets` and `losses` (B, T) of a batch; a target of -1 does not count."""
        self._rows = max(self._rows, len(inputs))
        counts = (targets >= 0).sum(1)  # (B,)
        means = losses.sum(1).cpu() / counts.clamp(min=1)
        for row, (mean, count) in enumerate(zip(means.tolist(), counts.tolist(), strict=True)):
            self._seen += 1
            if not count or not math.isfinite(mean) or (len(self._heap) == self._most and not mean > self._heap[0][0]):
                continue
            counted = (targets[row] >= 0).tolist()
            end = max(index for index, counts_here in enumerate(counted) if counts_here) + 1
            tokens = [*inputs[row, :end].tolist(), int(targets[row, end - 1])]
            heapq.heappush(self._heap, (mean, -self._seen, tokens, [False, *counted[:end]]))
            if len(self._heap) > self._most:
                heapq.heappop(self._heap)

    @property
    def kept(self) -> list[Window]:
        """Each window's mean loss, its place, negative, its tokens, and which of them count."""
        return list(self._heap)

    def add_those_of_others(self, found: Sequence[Sequence[Window]]) -> None:
        """Adds the windows that other ranks have kept."""
        self._heap = heapq.nlargest(self._most, [*self._heap, *itertools.chain.from_iterable(found)])
        heapq.heapify(self._heap)

    def passages(self, model: GPT2, tokenizer: Tokenizer, precision: Precision) -> list[Passage]:
        """The windows, the highest loss first, with the loss of each token and what the model expected.

        They are read in batches as large as those of the evaluation.
        """
        windows = [(tokens, counted) for _, _, tokens, counted in sorted(self._heap, reverse=True)]
        parts = (windows[start : start + self._rows] for start in range(0, len(windows), self._rows))
        return [passage for part in parts for passage in described(model, tokenizer, part, precision)]


@torch.no_grad()
def described(
    model: GPT2,
    tokenizer: Tokenizer,
    windows: Sequence[tuple[Sequence[int], Sequence[bool]]],
    precision: Precision = "fp32",
) -> list[Passage]:
    """Windows, read as one batch, with the losses of their tokens and the most probable tokens in their places.

    Each is its tokens and, for each of them, whether its loss counts.
    """
    was_training, device = model.training, model.wte.weight.device
    inputs, targets = padded_batch([tokens for tokens, _ in windows], [len(tokens) - 1 for tokens, _ in windows])
    losses: list[float] = []
    best: list[int] = []
    model.eval()
    try:
        with autocast(device, precision):
            hidden = model.hidden(inputs.to(device))  # (B, T, C)
        known = targets.to(device) >= 0
        rows, wanted = hidden[known], targets.to(device)[known]  # (n, C), (n,): one window after the other
        for some, own in zip(torch.split(rows, ROWS), torch.split(wanted, ROWS), strict=True):
            with autocast(device, precision):
                logits = model.logits(some).float()  # (n, V)
            losses += torch.nn.functional.cross_entropy(logits, own, reduction="none").tolist()
            best += logits.argmax(-1).tolist()
    finally:
        model.train(was_training)
    found, start = [], 0
    for tokens, counted in windows:
        end = start + len(tokens) - 1
        found.append(_passage(tokenizer, tokens, counted, losses[start:end], best[start:end]))
        start = end
    return found


def _passage(
    tokenizer: Tokenizer, tokens: Sequence[int], counted: Sequence[bool], losses: Sequence[float], best: Sequence[int]
) -> Passage:
    decoder = IncrementalDecoder(tokenizer)
    known = [loss for loss, counts in zip(losses, counted[1:], strict=True) if counts]
    each = list(zip(losses, best, counted[1:], strict=True))
    return Passage(
        loss=sum(known) / len(known),
        tokens=list(tokens),
        texts=[decoder.feed([token]) for token in tokens],
        losses=[None, *(round(loss, DIGITS) if counts else None for loss, _, counts in each)],
        expected=[None, *(tokenizer.decode([token]) if counts else None for _, token, counts in each)],
    )
