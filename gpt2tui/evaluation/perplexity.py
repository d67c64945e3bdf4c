"""The windows in which a text longer than the context is read, and the loss over them.

Each window begins without memory of the one before, so the loss depends on how the windows are cut: a larger context
and a smaller stride give a lower one. Every figure made here is reported with both.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from gpt2tui.data.batches import IGNORED, Batch


class Window(NamedTuple):
    """The tokens [begin, end) of a text, of which the last `predicted` count; the others are only context."""

    begin: int
    end: int
    predicted: int


def adjacent_windows(length: int, context: int) -> Iterator[Window]:
    """Windows in which each token of `length` but the first is predicted once, from at most `context` before it.

    They share one token, the last of one and the first of the next. A run's validation loss is measured like this.
    """
    for begin in range(0, length - 1, context):
        end = min(begin + context + 1, length)
        yield Window(begin, end, end - begin - 1)


def strided_windows(length: int, context: int, stride: int) -> Iterator[Window]:
    """Windows of `context` tokens, each `stride` after the one before, as on the perplexity page of transformers.

    A token counts in the first window that has it, and never at the beginning of a window, where nothing predicts it.
    Raises ValueError unless 1 <= stride <= context and context >= 2.
    """
    if not (1 <= stride <= context and context >= 2):
        raise ValueError(f"windows of {context} tokens cannot follow each other after {stride}")
    done = 0
    for begin in range(0, length, stride):
        end = min(begin + context, length)
        yield Window(begin, end, min(end - done, end - begin - 1))
        done = end
        if end == length:
            return


def rolling_windows(length: int, context: int) -> Iterator[Window]:
    """`adjacent_windows`, of which the last begins earlier so that it has a whole context: lm-evaluation-harness's."""
    for window in adjacent_windows(length, context):
        yield Window(max(0, window.end - context - 1), window.end, window.predicted)


def window_batches(
    tokens: npt.NDArray[np.unsignedinteger], windows: Iterable[Window], batch_size: int
) -> Iterator[Batch]:
    """Inputs and targets (B, T) of windows; shorter windows are padded, and what does not count has the target -1."""
    remaining = iter(windows)
    while chosen := list(islice(remaining, batch_size)):
        yield padded_batch([tokens[w.begin : w.end] for w in chosen], [w.predicted for w in chosen])


def padded_batch(
    sequences: Sequence[Sequence[int] | npt.NDArray[np.unsignedinteger]], predicted: Sequence[int]
) -> Batch:
    """Inputs and targets (B, T) of token sequences, of each of which the last `predicted` tokens are the targets."""
    longest = max(len(sequence) for sequence in sequences)
    rows = torch.zeros(len(sequences), longest, dtype=torch.int64)  # (B, T + 1)
    targets = torch.full((len(sequences), longest - 1), IGNORED)  # (B, T)
    for row, (sequence, count) in enumerate(zip(sequences, predicted, strict=True)):
        rows[row, : len(sequence)] = torch.from_numpy(np.asarray(sequence, dtype=np.int64))
        end = len(sequence)
        targets[row, end - 1 - count : end - 1] = rows[row, end - count : end]
    return rows[:, :-1], targets
