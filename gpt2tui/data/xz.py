"""Bits per byte of a general compressor, `xz -9`, for comparison with those of a language model on the same text."""

import lzma
from collections import deque
from collections.abc import Iterable, Iterator

from gpt2tui.data.corpus import TextPiece

_SMALLEST_DICTIONARY = 4096
LIMIT_BYTES = 4 << 20
"""More text than this takes too long to compress."""

TRAINING_BYTES = 16 << 20
"""Of a longer training text only the end is read before the validation text."""


class TextSample:
    """The text of pieces, kept while they are read by something else, up to LIMIT_BYTES."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._bytes = 0

    def collect(self, pieces: Iterable[TextPiece]) -> Iterator[TextPiece]:
        """Yields the same pieces, keeping their text."""
        for piece in pieces:
            if self._bytes <= LIMIT_BYTES:
                self._parts.append(piece.text.encode())
                self._bytes += len(self._parts[-1])
            yield piece

    def text(self) -> bytes | None:
        """The joined text; None for too much or none."""
        return b"".join(self._parts) if 0 < self._bytes <= LIMIT_BYTES else None

    def bits_per_byte(self) -> float | None:
        """The size of the compressed text in bits per byte of text; None for no text, or more than LIMIT_BYTES."""
        text = self.text()
        return None if text is None else bits_per_byte(text)


class TextTail:
    """The last bytes of the text of pieces as they go by, at most `TRAINING_BYTES`."""

    def __init__(self) -> None:
        self._parts: deque[bytes] = deque()
        self._bytes = 0

    def collect(self, pieces: Iterable[TextPiece]) -> Iterator[TextPiece]:
        """The same pieces."""
        for piece in pieces:
            self._parts.append(piece.text.encode())
            self._bytes += len(self._parts[-1])
            while self._bytes - len(self._parts[0]) >= TRAINING_BYTES:
                self._bytes -= len(self._parts.popleft())
            yield piece

    def text(self) -> bytes:
        """The bytes."""
        return b"".join(self._parts)[-TRAINING_BYTES:]


def bits_per_byte_after(training: bytes, text: bytes) -> float:
    """What `text` adds to the size of `xz -9` of `training`, in bits per byte of `text`; 16 MB take half a minute.

    A model has read the training text too, so this is the fairer comparison.
    """
    return bits_per_byte(training + text) * (len(training) + len(text)) / len(text) - (
        bits_per_byte(training) * len(training) / len(text) if training else 0.0
    )


def bits_per_byte(text: bytes) -> float:
    """The size of `xz -9` of some bytes, in bits per byte."""
    # Preset 9 sets up for 64 MB; a dictionary as long as the text gives the same size without the memory.
    dictionary = max(_SMALLEST_DICTIONARY, 1 << (len(text) - 1).bit_length())
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": dictionary}]
    return 8 * len(lzma.compress(text, filters=filters)) / len(text)
