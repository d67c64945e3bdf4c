"""The batch of a step is a pure function of (seed, step, rank), so a resumed run needs no saved position."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gpt2tui.data.joined_tokens import TokenSequence
from gpt2tui.data.mix import SourceOrder
from gpt2tui.data.token_store import TokenizedCorpus
from gpt2tui.data.token_stream import TokenStream
from gpt2tui.preset.schema import TrainingTable

Batch = tuple[Tensor, Tensor]
"""Inputs and targets, int64, shape (B, T) each; a target is the next token, or -1 where it does not count."""

Window = tuple[npt.NDArray[Any], npt.NDArray[Any] | None]
"""The tokens of a window, shape (T + 1,), and 1 for those that count in the loss; None: all do."""

IGNORED = -1
_GOLDEN = 0x9E3779B97F4A7C15


class Windows:
    """The windows of one text: sequence_length + 1 tokens each, in an order that each epoch shuffles anew.

    The first window of an epoch begins at a random offset, so a model does not always see a token at the same
    position. Raises ValueError when there are fewer than sequence_length + 1 tokens.

    With a `mask`, of as many tokens, only targets where it is 1 count. The tokens are then laid into windows already
    (`data/examples.py`), and each window begins where one of those does, without an offset.
    """

    def __init__(
        self, tokens: TokenSequence, *, seed: int, sequence_length: int, mask: TokenSequence | None = None
    ) -> None:
        if len(tokens) <= sequence_length:
            raise ValueError(f"{len(tokens)} tokens are fewer than one window of {sequence_length} + 1")
        self._tokens = tokens
        self._mask = mask
        self._sequence_length = sequence_length
        self._seed = seed
        # One window fewer than fits leaves room for the random offset of the first one.
        room = len(tokens) - (1 if mask is not None else sequence_length)
        self.per_epoch = max(1, room // sequence_length)
        """The windows of an epoch."""
        self._starts_of = lru_cache(maxsize=2)(self._starts)

    def window(self, number: int) -> Window:
        """The tokens of the window of this number, counted over all epochs, and which of them count."""
        epoch, index = divmod(number, self.per_epoch)
        start = int(self._starts_of(epoch)[index])
        stop = start + self._sequence_length + 1
        return self._tokens[start:stop], None if self._mask is None else self._mask[start:stop]

    def _starts(self, epoch: int) -> npt.NDArray[np.int64]:
        """The first token of each window of an epoch, in shuffled order, shape (windows,)."""
        keys = _random_numbers(self._seed, epoch, self.per_epoch + 1)
        spare = len(self._tokens) - 1 - self.per_epoch * self._sequence_length
        offset = 0 if self._mask is not None else int(keys[-1]) % (min(self._sequence_length - 1, spare) + 1)
        order = np.argsort(keys[:-1], kind="stable")
        return offset + order * self._sequence_length


class Batches:
    """The windows of a text, without replacement in each epoch (`Windows`); a step may span the end of one epoch and
    the beginning of the next.

    `gradient_accumulation` counts the micro-batches of all ranks; each rank takes a contiguous share of them, so the
    step is the same for any number of ranks. Raises ValueError when they do not divide evenly, or when there are
    fewer than sequence_length + 1 tokens.
    """

    def __init__(
        self,
        tokens: TokenSequence,
        *,
        seed: int,
        batch_size: int,
        gradient_accumulation: int,
        sequence_length: int,
        rank: int = 0,
        world_size: int = 1,
        mask: TokenSequence | None = None,
    ) -> None:
        self._shares = _shares(gradient_accumulation, rank, world_size)
        self._batch_size = batch_size
        self._sequence_length = sequence_length
        self._windows_per_step = batch_size * gradient_accumulation
        self._windows = Windows(tokens, seed=seed, sequence_length=sequence_length, mask=mask)

    @property
    def tokens_per_epoch(self) -> int:
        """The targets of one epoch."""
        return self._windows.per_epoch * self._sequence_length

    def epoch_of(self, step: int) -> float:
        """The epochs completed before this step, a fraction included."""
        return step * self._windows_per_step / self._windows.per_epoch

    def micro_batches(self, step: int) -> list[Batch]:
        """This rank's micro-batches of a step, counted from 0."""
        first = step * self._windows_per_step
        return [self._batch(first + share * self._batch_size) for share in self._shares]

    def _batch(self, first: int) -> Batch:
        windows = self._windows_at(range(first, first + self._batch_size))
        x, y = _inputs_and_targets(np.stack([tokens for tokens, _ in windows]))
        for row, (_, counts) in enumerate(windows):
            if counts is not None:
                y[row, torch.from_numpy(counts[1:] == 0)] = IGNORED
        return x, y

    def _windows_at(self, positions: range) -> list[Window]:
        """The windows at these positions of the run."""
        return [self._windows.window(position) for position in positions]


class MixedBatches(Batches):
    """Batches of several texts with weights: `SourceOrder` decides which text each window of the run is of.

    The windows of each text come in the order of its own epochs; the first text's is that of a run over it alone.
    `weights` are whole numbers. Raises ValueError as `Batches` does, for each text.
    """

    def __init__(
        self,
        texts: Sequence[tuple[TokenSequence, TokenSequence | None]],
        weights: Sequence[int],
        *,
        seed: int,
        sequence_length: int,
        **sizes: int,
    ) -> None:
        (tokens, mask), *others = texts
        super().__init__(tokens, seed=seed, sequence_length=sequence_length, mask=mask, **sizes)
        self._texts = [self._windows] + [
            Windows(tokens, seed=(seed + i * _GOLDEN) % 2**64, sequence_length=sequence_length, mask=mask)
            for i, (tokens, mask) in enumerate(others, 1)
        ]
        self._order = SourceOrder(weights)
        self._shares_of_texts = [weight / sum(weights) for weight in weights]

    @property
    def tokens_per_epoch(self) -> int:
        """The targets of the run in which the first of the texts comes to its end."""
        return int(self._sequence_length / max(self._epochs_per_window()))

    def epoch_of(self, step: int) -> float:
        """The epochs completed before this step, of the text that is read most often."""
        return step * self._windows_per_step * max(self._epochs_per_window())

    def _epochs_per_window(self) -> list[float]:
        pairs = zip(self._shares_of_texts, self._texts, strict=True)
        return [share / text.per_epoch for share, text in pairs]

    def _windows_at(self, positions: range) -> list[Window]:
        sources, numbers = self._order.of(np.array(positions, dtype=np.int64))
        return [self._texts[source].window(int(number)) for source, number in zip(sources, numbers, strict=True)]


class StreamBatches:
    """Batches of a corpus that is read while training: consecutive windows in the order of the text, not shuffled.

    Every rank reads the whole stream and keeps its share. Steps must be taken in order; `state_dict` after a step
    is the position of the next one.
    """

    def __init__(
        self,
        stream: TokenStream,
        *,
        batch_size: int,
        gradient_accumulation: int,
        sequence_length: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._shares = _shares(gradient_accumulation, rank, world_size)
        self._stream = stream
        self._shape = (gradient_accumulation, batch_size, sequence_length)
        self._carried = np.empty(0, dtype=np.uint32)
        self._step = 0

    def epoch_of(self, step: int) -> float:
        """The epochs completed, as a whole number."""
        return float(self._stream.epoch)

    def micro_batches(self, step: int) -> list[Batch]:
        """This rank's micro-batches of the next step. Raises ValueError for any other step."""
        if step != self._step:
            raise ValueError(f"steps of a stream must be taken in order: {self._step} is next, not {step}")
        accumulation, B, T = self._shape
        count = accumulation * B * T
        tokens = np.concatenate([self._carried, self._stream.take(count + 1 - len(self._carried))])
        self._carried = tokens[-1:]
        self._step += 1
        inputs = tokens[:-1].reshape(accumulation, B, T)
        targets = tokens[1:].reshape(accumulation, B, T)
        return [(_tensor(inputs[share]), _tensor(targets[share])) for share in self._shares]

    def state_dict(self) -> dict[str, object]:
        """The position, small and JSON-able."""
        return {"step": self._step, "carried": self._carried.tolist(), "stream": self._stream.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Continues from a position in the same corpus and tokenizer."""
        self._step = int(state["step"])  # type: ignore[call-overload]
        self._carried = np.array(state["carried"], dtype=np.uint32)
        self._stream.load_state_dict(state["stream"])  # type: ignore[arg-type]


def evaluation_batches(
    tokens: TokenSequence,
    batch_size: int,
    sequence_length: int,
    eval_tokens: int | None,
    mask: TokenSequence | None = None,
) -> Iterator[Batch]:
    """A fixed set of windows that do not overlap, spread evenly over the tokens: the same at each call.

    `eval_tokens` // sequence_length windows, at least one, whatever the batch size; the last batch may be smaller.
    None, or more than there are, means the whole text: then every token but the first is predicted exactly once, and
    the last window is padded with targets of -1. Targets where the `mask` is 0 are -1 too.
    """
    predicted = len(tokens) - 1
    whole_windows = predicted // sequence_length
    if eval_tokens is None or eval_tokens >= predicted:
        chosen = np.arange(-(-predicted // sequence_length))
    else:
        wanted = max(1, eval_tokens // sequence_length)
        chosen = np.arange(wanted) * whole_windows // wanted
    for first in range(0, len(chosen), batch_size):
        starts = chosen[first : first + batch_size] * sequence_length
        windows = [_window(tokens, int(start), sequence_length, mask) for start in starts]
        yield torch.stack([x for x, _ in windows]), torch.stack([y for _, y in windows])


def _window(tokens: TokenSequence, start: int, length: int, mask: TokenSequence | None) -> Batch:
    """Input and target of one window, shape (T,) each."""
    window = tokens[start : start + length + 1].astype(np.int64)
    missing = length + 1 - len(window)
    x = np.pad(window[:-1], (0, missing))
    targets = window[1:]
    if mask is not None:
        targets = np.where(mask[start + 1 : start + length + 1] == 1, targets, IGNORED)
    y = np.pad(targets, (0, missing), constant_values=IGNORED)
    return torch.from_numpy(x), torch.from_numpy(y)


def _inputs_and_targets(windows: npt.NDArray[np.unsignedinteger]) -> Batch:
    """(B, T + 1) -> (B, T), (B, T)"""
    return _tensor(windows[:, :-1]), _tensor(windows[:, 1:])


def _tensor(tokens: npt.NDArray[np.unsignedinteger]) -> Tensor:
    return torch.from_numpy(tokens.astype(np.int64, order="C"))


def _shares(gradient_accumulation: int, rank: int, world_size: int) -> range:
    """The indices of a step's micro-batches that belong to a rank."""
    if gradient_accumulation % world_size:
        raise ValueError(
            f"gradient_accumulation = {gradient_accumulation} cannot be shared evenly by {world_size} ranks"
        )
    count = gradient_accumulation // world_size
    return range(rank * count, (rank + 1) * count)


def _random_numbers(seed: int, epoch: int, count: int) -> npt.NDArray[np.uint64]:
    """Numbers that depend on nothing but the arguments, not even on numpy's version.

    SplitMix64 (Steele et al. 2014), whose n-th number can be computed directly.
    """
    with np.errstate(over="ignore"):
        start = _mix(_mix(np.array([seed], dtype=np.uint64)) + np.uint64(epoch))
        return _mix(start + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN))


def _mix(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def open_batches(
    corpus: TokenizedCorpus, table: TrainingTable, rank: int = 0, world_size: int = 1
) -> Batches | StreamBatches:
    """A rank's batches of a run over a corpus; with streaming, from the start of the corpus."""
    sizes = {
        "batch_size": table.batch_size,
        "gradient_accumulation": table.gradient_accumulation,
        "sequence_length": table.sequence_length,
        "rank": rank,
        "world_size": world_size,
    }
    if corpus.streaming:
        return StreamBatches(corpus.stream(), **sizes)
    if corpus.mix:
        texts = [(part.train, part.train_mask) for part in corpus.mix]
        return MixedBatches(texts, corpus.weights, seed=table.seed, **sizes)
    return Batches(corpus.train, seed=table.seed, mask=corpus.train_mask, **sizes)
