"""Bits per byte of a general compressor, `xz -9`, for comparison with those of a language model on the same text.

Two figures, both with a dictionary as long as the text, so that all of it is in reach of a match:

- `bits_per_byte`: xz compresses the validation text alone.
- `XzAfterTraining`: what the validation text adds to the size of the compressed training text,
  (xz(training + validation) - xz(training)) / validation. The model has read the training text too, so this is the
  fair comparison. It takes a second for each megabyte of training text, and is made up to TRAINING_LIMIT_BYTES.
"""

import contextlib
import lzma
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import wait

from gpt2tui.data import xz_process
from gpt2tui.data.corpus import TextPiece
from gpt2tui.system.threads import in_background

LIMIT_BYTES = 4 << 20
"""More text than this takes too long to compress."""

TRAINING_LIMIT_BYTES = 16 << 20
"""`XzAfterTraining` is not used for a longer training text."""


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


class CompressionError(Exception):
    """The size is not known: the system has no memory or no room for another process, or the work was closed."""


class XzAfterTraining:
    """What each of several texts adds to the size of `xz -9` of the training text; computed in another process."""

    def __init__(self, training: bytes, texts: Iterable[bytes]) -> None:
        """Starts it; no text may be empty. Raises CompressionError when the system has no room for a process."""
        self._texts = list(texts)
        self.total_bytes = len(training)
        self.done_bytes = 0
        """The bytes of training text compressed so far, of `total_bytes`."""
        if not hasattr(os, "fork") or not sys.executable:
            raise CompressionError("xz needs a process that can be forked")
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", xz_process.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in the terminal is for this process
            )
        except OSError as error:
            raise CompressionError(f"xz cannot be started: {error}") from error
        self._sizes = in_background(lambda: self._talk([training, *self._texts]), "xz")

    def _talk(self, texts: list[bytes]) -> dict[int, int]:
        """Sends the texts and reads the sizes, by number."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        sizes = {}
        with contextlib.suppress(OSError), self._process.stdin as stdin:  # one that has ended reads nothing
            stdin.write(" ".join(str(len(text)) for text in texts).encode() + b"\n")
            stdin.writelines(texts)
        with self._process.stdout as lines:
            for line in lines:
                what, *numbers = line.split()
                if what == b"done":
                    self.done_bytes = int(numbers[0])
                else:
                    sizes[int(numbers[0])] = int(numbers[1])
        if self._process.wait() or len(sizes) < len(texts):
            raise CompressionError("xz has ended before its end")
        return sizes

    def done(self, timeout: float) -> bool:
        """Whether it has ended, after waiting for at most `timeout` seconds."""
        return not wait([self._sizes], timeout).not_done

    def result(self) -> list[float]:
        """Waits; the bits per byte of each text. Raises CompressionError."""
        sizes = self._sizes.result()
        return [8 * (sizes[number] - sizes[0]) / len(text) for number, text in enumerate(self._texts, start=1)]

    def close(self) -> None:
        """Ends the process."""
        if not self._sizes.done():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                os.killpg(self._process.pid, signal.SIGKILL)
            wait([self._sizes])


def bits_per_byte(text: bytes) -> float:
    """The size of `xz -9` of some bytes, in bits per byte."""
    return 8 * len(lzma.compress(text, filters=xz_process.filters(len(text)))) / len(text)
