"""What a corpus is: documents in splits, readable from any position."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Split = Literal["train", "validation", "test"]

PART_BYTES = 64 << 20
"""The files of a part of a corpus, together."""

Position = Any
"""Where reading continues, as a JSON value that only its corpus understands; None is the start."""


@dataclass(frozen=True)
class TextPiece:
    """A part of a document, at most about a million characters long, so that a document need not fit in memory."""

    text: str
    ends_document: bool
    next: Position
    """The position after this piece."""


class Corpus(ABC):
    """Text to train on and to measure with.

    Text is the file's own except for three things: CRLF line ends become LF, a leading byte order mark is
    dropped, and documents without any text are left out.
    """

    name: str
    """The `source` of the preset."""

    has_test: bool = False
    """Whether there is a test split, which neither training nor the choice of settings ever reads."""

    fingerprint: str
    """A hash that differs whenever the text may differ."""

    notices: tuple[str, ...] = ()
    """Sentences to show the user about fallbacks while opening, such as the use of a cached copy."""

    held_out_limit: int | None = None
    """With streaming, the most bytes of the validation or test split that are used; None means all."""

    @abstractmethod
    def pieces(self, split: Split, start: Position = None) -> Iterator[TextPiece]:
        """The documents of a split in their fixed order, in pieces, from a position on.

        Raises DataError when the text cannot be read.
        """

    def held_out_pieces(self, split: Split = "validation") -> Iterator[TextPiece]:
        """The validation or test split in pieces, ended after `held_out_limit` bytes."""
        total = 0
        for piece in self.pieces(split):
            yield piece
            total += len(piece.text.encode())
            if self.held_out_limit is not None and total >= self.held_out_limit:
                return

    def size(self, split: Split) -> int | None:
        """About how many bytes of text the split has, where that is known without reading it."""
        return None

    def reading_notices(self) -> list[str]:
        """Sentences to show the user that are known once the splits have been read; kept in the token store."""
        return []

    def parts(self) -> "Sequence[Corpus]":
        """The training split in corpora that can be read at the same time; one after the other they are all of it.

        They read the same split only after `pieces` of the whole corpus's validation split has been called.
        """
        return [self]

    def reading(self) -> Any:
        """What `reading_notices` depends on, as a JSON value, for `add_reading` of the whole corpus."""
        return None

    def add_reading(self, reading: Any) -> None:
        """Takes over what was seen in one of its parts, perhaps by another process."""
        return  # there is nothing

    def documents(self, split: Split) -> Iterator[str]:
        """The whole documents of a split, in their fixed order."""
        parts: list[str] = []
        for piece in self.pieces(split):
            parts.append(piece.text)
            if piece.ends_document:
                yield "".join(parts)
                parts = []


def in_parts(sizes: Sequence[int]) -> list[range]:
    """Files of these sizes in bytes in ranges of neighbours, each of PART_BYTES or one more file's size."""
    found, first, total = [], 0, 0
    for i, size in enumerate(sizes):
        total += size
        if total >= PART_BYTES or i == len(sizes) - 1:
            found.append(range(first, i + 1))
            first, total = i + 1, 0
    return found


def stable_hash(key: str) -> int:
    """A number in [0, 2**64) that depends only on the key, not on the process or the machine."""
    # File names are bytes, which need not be UTF-8: Python gives them as surrogates.
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big")


def hash_limit(fraction: float) -> int:
    """Keys whose stable hash is below this are the given fraction of all keys."""
    return int(fraction * 2**64)


def digest(*parts: str) -> str:
    """A short fingerprint of several strings."""
    joined = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(joined.encode("utf-8", "surrogateescape")).hexdigest()[:32]
