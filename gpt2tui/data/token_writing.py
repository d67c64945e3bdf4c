"""Text becomes tokens in a file: what the writers of a token store share."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpt2tui.data.corpus import TextPiece
from gpt2tui.data.tokenizer_kinds import Tokenizer, Tokens
from gpt2tui.system.files import sync_file

BATCH_CHARACTERS = 8 << 20
"""The text in memory at once, whatever the size of the corpus."""


class HashedFile:
    """A file that is written in parts, and its description for meta.json."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb")
        self._hashed = hashlib.sha256()
        self.bytes = 0

    def write(self, array: np.ndarray) -> None:
        """Appends the numbers of an array as they lie in memory."""
        self._file.write(array.data)
        self._hashed.update(array.data)
        self.bytes += array.nbytes

    def finish(self) -> dict[str, Any]:
        """Closes the file and waits until it is on the disk."""
        self._file.close()
        sync_file(self.path)
        return {"bytes": self.bytes, "sha256": self._hashed.hexdigest()}

    def close(self) -> None:
        """Closes the file, as after an error."""
        self._file.close()


def dtype_of(tokenizer: Tokenizer) -> np.dtype[Any]:
    """The type of the tokens on the disk: uint16 if they fit, else uint32, little-endian."""
    return np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32).newbyteorder("<")


def tokens_with_eot(pieces: Sequence[TextPiece], tokenizer: Tokenizer, threads: int) -> list[Tokens]:
    """The tokens of the pieces, encoded by `threads` threads, and `<|endoftext|>` after each document."""
    arrays = []
    eot = np.array([tokenizer.eot], dtype=np.uint32)
    encoded = tokenizer.encode_documents([piece.text for piece in pieces], threads=threads)
    for piece, ids in zip(pieces, encoded, strict=True):
        arrays.append(ids)
        if piece.ends_document:
            arrays.append(eot)
    return arrays


def piece_batches(pieces: Iterable[TextPiece]) -> Iterator[list[TextPiece]]:
    """The pieces in groups of about BATCH_CHARACTERS, which are in memory at once."""
    batch: list[TextPiece] = []
    characters = 0
    for piece in pieces:
        batch.append(piece)
        characters += len(piece.text)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def text_bytes_of(piece: TextPiece) -> int:
    """The size of a piece in UTF-8."""
    return len(piece.text) if piece.text.isascii() else len(piece.text.encode())
