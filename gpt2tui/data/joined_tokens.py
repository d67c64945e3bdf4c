"""Tokens that lie in several arrays, such as the files of a large store, as one sequence; and their place on disk."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

TokenArray = npt.NDArray[np.unsignedinteger]


class TokenSequence(Protocol):
    """Tokens of which a part is read at a time: an array, or several joined."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> npt.NDArray[Any]:
        """The tokens from `part.start` to `part.stop`, shape (tokens,)."""


class JoinedTokens:
    """Arrays one after the other, read only where a part is asked for. Their number of tokens may exceed 2**32."""

    def __init__(self, arrays: Sequence[npt.NDArray[Any]]) -> None:
        self.arrays = tuple(array for array in arrays if len(array))
        self._ends = list(accumulate(map(len, self.arrays)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, part: slice, /) -> npt.NDArray[Any]:
        """The tokens from `part.start` to `part.stop`, shape (tokens,); a copy where they lie in several arrays.

        Raises ValueError for a step other than 1.
        """
        found = self.between(*self._bounds(part)).arrays
        if len(found) == 1:
            return found[0]
        return np.concatenate(found) if found else np.empty(0, dtype=np.uint16)

    def between(self, start: int, stop: int) -> "JoinedTokens":
        """The tokens from `start` to `stop` as parts of the same arrays; nothing is read."""
        parts = []
        i = bisect_right(self._ends, start)
        while start < stop and i < len(self.arrays):
            before = self._ends[i] - len(self.arrays[i])
            parts.append(self.arrays[i][start - before : stop - before])
            start = self._ends[i]
            i += 1
        return JoinedTokens(parts)

    def tolist(self) -> list[int]:
        """All of them as a list."""
        found: list[int] = self[:].tolist()
        return found

    def _bounds(self, part: slice) -> tuple[int, int]:
        start, stop, step = part.indices(len(self))
        if step != 1:
            raise ValueError("joined tokens are read in their order, one after the other")
        return start, max(start, stop)


def joined(arrays: Sequence[npt.NDArray[Any]]) -> TokenSequence:
    """The arrays as one sequence: a single one as it is."""
    tokens = JoinedTokens(arrays)
    return tokens.arrays[0] if len(tokens.arrays) == 1 else tokens


class FilePart(NamedTuple):
    """Tokens of a file: a number of `tokens` of a numpy `dtype`, from the byte `offset` on."""

    path: str
    dtype: str
    offset: int
    tokens: int


def parts_on_disk(tokens: TokenSequence) -> tuple[FilePart, ...]:
    """Where memory-mapped tokens lie, for another process to open; nothing where some of them are not mapped."""
    arrays = tokens.arrays if isinstance(tokens, JoinedTokens) else (tokens,)
    parts = []
    for array in arrays:
        if not isinstance(array, np.memmap):
            return ()
        whole = array  # numpy does not count the offset of a slice
        while isinstance(whole.base, np.memmap):
            whole = whole.base
        offset = int(whole.offset) + array.ctypes.data - whole.ctypes.data
        parts.append(FilePart(str(whole.filename), array.dtype.str, offset, len(array)))
    return tuple(parts)


def open_parts(parts: Sequence[FilePart]) -> TokenSequence:
    """The tokens of `parts_on_disk`, memory-mapped."""
    return joined([np.memmap(p.path, dtype=p.dtype, mode="r", offset=p.offset, shape=(p.tokens,)) for p in parts])
