"""What a general compressor makes of the held-out text: a bar that a language model should clear."""

import lzma
from collections.abc import Iterable, Iterator

from gpt2tui.data.corpus import Piece

_SMALLEST_DICTIONARY = 4096
LIMIT_BYTES = 4 << 20
"""More than this takes too long to compress by the way."""


class Sample:
    """Collects the text of pieces as they go by, unless they become too much."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._bytes = 0

    def watch(self, pieces: Iterable[Piece]) -> Iterator[Piece]:
        """The same pieces."""
        for piece in pieces:
            if self._bytes <= LIMIT_BYTES:
                self._parts.append(piece.text.encode())
                self._bytes += len(self._parts[-1])
            yield piece

    def bits_per_byte(self) -> float | None:
        """The size of `xz -9` of the joined text, in bits per byte of text; None for too much text or none."""
        if not 0 < self._bytes <= LIMIT_BYTES:
            return None
        return bits_per_byte(b"".join(self._parts))


def bits_per_byte(text: bytes) -> float:
    """The size of `xz -9` of some bytes, in bits per byte."""
    # Preset 9 sets up for 64 MB; a dictionary as long as the text gives the same size without the memory.
    dictionary = max(_SMALLEST_DICTIONARY, 1 << (len(text) - 1).bit_length())
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": dictionary}]
    return 8 * len(lzma.compress(text, filters=filters)) / len(text)
