"""Bits per byte of a general compressor, `xz -9`, for comparison with those of a language model on the same text.

Two figures, both with a dictionary as long as the text, so that all of it is in reach of a match:

- `bits_per_byte`: xz compresses the validation text alone.
- `XzAfterTraining`: what the validation text adds to the size of the compressed training text,
  (xz(training + validation) - xz(training)) / validation. The model has read the training text too, so this is the
  fair comparison. It takes a second for each megabyte of training text, and is made up to TRAINING_LIMIT_BYTES.
"""

import lzma
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait

from gpt2tui.data.corpus import TextPiece

_SMALLEST_DICTIONARY = 4096
_FED_BYTES = 1 << 16  # at once: a tenth of a second
LIMIT_BYTES = 4 << 20
"""More text than this takes too long to compress."""

TRAINING_LIMIT_BYTES = 16 << 20
"""Of a longer training text than this `XzAfterTraining` is not used."""


class TextSample:
    """The text of pieces, kept while they are read by something else, up to `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._bytes = 0

    def collect(self, pieces: Iterable[TextPiece]) -> Iterator[TextPiece]:
        """Yields the same pieces, keeping their text."""
        for piece in pieces:
            if not self.is_too_long:
                self._parts.append(piece.text.encode())
                self._bytes += len(self._parts[-1])
            yield piece

    @property
    def is_too_long(self) -> bool:
        """Whether the text so far exceeds the limit."""
        return self._bytes > self._limit

    def text(self) -> bytes | None:
        """The joined text; None for too much or none."""
        return b"".join(self._parts) if 0 < self._bytes <= self._limit else None

    def bits_per_byte(self) -> float | None:
        """The size of the compressed text in bits per byte of text; None for no text, or more than the limit."""
        text = self.text()
        return None if text is None else bits_per_byte(text)


def text_of(pieces: Iterable[TextPiece], limit: int) -> bytes | None:
    """The text of pieces; None for none or more than `limit` bytes, of which the rest is not read."""
    sample = TextSample(limit)
    for _ in sample.collect(pieces):
        if sample.is_too_long:
            break
    return sample.text()


class XzAfterTraining:
    """What each of several texts adds to the size of `xz -9` of the training text; computed in threads."""

    def __init__(self, training: bytes, texts: Iterable[bytes]) -> None:
        """Starts them: the training text is compressed alone, and once more before each text; none may be empty.

        Raises RuntimeError when the system has no more threads.
        """
        self._texts = list(texts)
        self._fed = [0] * (1 + len(self._texts))
        self._closed = threading.Event()
        self._pool = ThreadPoolExecutor(len(self._fed), thread_name_prefix="xz")
        inputs = [(training,), *((training, text) for text in self._texts)]
        self.total_bytes = sum(len(part) for parts in inputs for part in parts)
        self._sizes: list[Future[int]] = [
            self._pool.submit(self._compressed_size, number, parts) for number, parts in enumerate(inputs)
        ]

    def done(self, timeout: float) -> bool:
        """Whether it has ended, after waiting for at most `timeout` seconds."""
        return not wait(self._sizes, timeout).not_done

    @property
    def done_bytes(self) -> int:
        """The bytes compressed so far, of `total_bytes`."""
        return sum(self._fed)

    def result(self) -> list[float]:
        """Waits; the bits per byte of each text. Raises MemoryError."""
        alone, *together = (size.result() for size in self._sizes)
        return [8 * (size - alone) / len(text) for size, text in zip(together, self._texts, strict=True)]

    def close(self) -> None:
        """Ends the threads within a moment."""
        self._closed.set()
        self._pool.shutdown()

    def _compressed_size(self, number: int, parts: tuple[bytes, ...]) -> int:
        compressor = lzma.LZMACompressor(filters=_filters(sum(map(len, parts))))
        size = 0
        for part in parts:
            for start in range(0, len(part), _FED_BYTES):
                if self._closed.is_set():
                    return 0
                fed = part[start : start + _FED_BYTES]
                size += len(compressor.compress(fed))
                self._fed[number] += len(fed)
        return size + len(compressor.flush())


def bits_per_byte(text: bytes) -> float:
    """The size of `xz -9` of some bytes, in bits per byte."""
    return 8 * len(lzma.compress(text, filters=_filters(len(text)))) / len(text)


def _filters(length: int) -> list[dict[str, int]]:
    """Those of preset 9, which sets up for 64 MB; a dictionary as long as the text gives the same size with less."""
    dictionary = max(_SMALLEST_DICTIONARY, 1 << (length - 1).bit_length())
    return [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": dictionary}]
