"""Bits per byte of a general compressor, `xz -9`, for comparison with those of a language model on the same text."""

import lzma
from collections.abc import Iterable, Iterator

from gpt2tui.data.corpus import TextPiece

_SMALLEST_DICTIONARY = 4096
LIMIT_BYTES = 4 << 20
"""More text than this takes too long to compress."""


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

    def bits_per_byte(self) -> float | None:
        """The size of the compressed text in bits per byte of text; None for no text, or more than LIMIT_BYTES."""
        if not 0 < self._bytes <= LIMIT_BYTES:
            return None
        return bits_per_byte(b"".join(self._parts))


def bits_per_byte(text: bytes) -> float:
    """The size of `xz -9` of some bytes, in bits per byte."""
    # Preset 9 sets up for 64 MB; a dictionary as long as the text gives the same size without the memory.
    dictionary = max(_SMALLEST_DICTIONARY, 1 << (len(text) - 1).bit_length())
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": dictionary}]
    return 8 * len(lzma.compress(text, filters=filters)) / len(text)
