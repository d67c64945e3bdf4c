"""A corpus as an endless stream of tokens, for training on text that is not prepared on disk."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpt2tui.data.corpus import Corpus, Position, TextPiece
from gpt2tui.data.tokenizer_kinds import Tokenizer, Tokens
from gpt2tui.errors import DataError


class TokenStream:
    """The training documents in order, each followed by `<|endoftext|>`, repeated without end.

    The position is the start of the current piece of text and the number of its tokens already taken: the state is
    small, and a stream that continues from it gives exactly the same tokens.
    """

    def __init__(self, corpus: Corpus, tokenizer: Tokenizer) -> None:
        self.epoch = 0
        """The epochs completed."""
        self._corpus = corpus
        self._tokenizer = tokenizer
        self._move_to(None)

    def take(self, count: int) -> Tokens:
        """The next tokens, shape (count,). Raises DataError when the corpus cannot be read or has no text."""
        taken = [np.empty(0, dtype=np.uint32)]
        while count:
            if self._used == len(self._tokens):
                self._read_piece()
            part = self._tokens[self._used : self._used + count]
            self._used += len(part)
            count -= len(part)
            taken.append(part)
        return np.concatenate(taken)

    def state_dict(self) -> dict[str, Any]:
        """The position, small and JSON-able."""
        return {"epoch": self.epoch, "piece": self._piece_start, "used": self._used}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a position in the same corpus and tokenizer."""
        self.epoch = state["epoch"]
        self._move_to(state["piece"])
        if state["used"]:
            self._read_piece()
        self._used = state["used"]

    def _move_to(self, position: Position) -> None:
        self._pieces: Iterator[TextPiece] = self._corpus.pieces("train", position)
        self._piece_start = self._next_piece = position
        self._tokens: Tokens = np.empty(0, dtype=np.uint32)
        self._used = 0

    def _read_piece(self) -> None:
        """Tokenizes the next piece; after the last one, the first of the next epoch."""
        piece = next(self._pieces, None)
        if piece is None:
            if self._piece_start is None and self._next_piece is None:
                raise DataError(f"{self._corpus.name} has no text to train on")
            self.epoch += 1
            self._move_to(None)
            return self._read_piece()
        self._piece_start, self._next_piece = self._next_piece, piece.next
        end = [self._tokenizer.eot] if piece.ends_document else []
        self._tokens = np.append(self._tokenizer.encode_array(piece.text), np.array(end, dtype=np.uint32))
        self._used = 0
        return None
