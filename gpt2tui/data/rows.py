"""A table as a corpus: one row is one document."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from gpt2tui.data.corpus import Corpus, Position, Split, TextPiece, hash_limit, stable_hash
from gpt2tui.data.row_content import RowContent, TextColumn
from gpt2tui.data.text_cuts import parts
from gpt2tui.data.tokenizer_kinds import without_surrogates
from gpt2tui.errors import DataError

STREAMING_VALIDATION_BYTES = 3 << 20
"""With streaming, the validation split at most: about a million tokens."""


class RowSource(ABC):
    """A table, readable from any row on."""

    name: str
    fingerprint: str
    content: RowContent = TextColumn("text")
    """What is read of a row."""
    has_validation: bool = False
    has_test: bool = False

    def reading_notices(self) -> list[str]:
        """Sentences about the rows that have been read, such as the number of rows without text."""
        return []

    def parts(self) -> "Sequence[RowSource]":
        """The training split in tables that can be read at the same time."""
        return [self]

    def reading(self) -> Any:
        """As `Corpus.reading`."""
        return None

    def add_reading(self, reading: Any) -> None:
        """As `Corpus.add_reading`."""
        return  # there is nothing

    @abstractmethod
    def rows(self, split: Split, start: Position = None) -> Iterator[tuple[str, Position]]:
        """Each row's text, empty where it is left out, and the position after it.

        "train" has the validation rows where there is no such split.
        """

    def size(self, split: Split) -> int | None:
        """About how many bytes of text the split has, where that is known without reading it."""
        return None


class RowCorpus(Corpus):
    """Uses the source's own validation split; without one, sets rows of its training split aside.

    They are chosen by a stable hash of their text, so equal rows are in the same split and their order does not
    matter. With streaming, which must not read everything first, they are the first rows. A table with a single text
    is cut in two; that with a single example of prompts and answers is refused. Rows are cleaned as `Corpus` says.
    """

    def __init__(self, source: RowSource, fraction: float, streaming: bool) -> None:
        self.name = source.name
        self.fingerprint = source.fingerprint
        self.has_test = source.has_test
        self._source = source
        self._fraction = fraction
        self._streaming = streaming

    def reading_notices(self) -> list[str]:
        """Sentences about the rows that have been read."""
        return self._source.reading_notices()

    def parts(self) -> list[Corpus]:
        """The parts of the source, which set aside the same rows for validation as the whole."""
        tables = self._source.parts()
        if len(tables) == 1:
            return [self]
        known: dict[str, Any] = {}
        if not self._source.has_validation:
            known["_is_single_text"] = self._is_single_text
            if not self._is_single_text:
                known["_hash_limit"] = self._hash_limit
        parts: list[Corpus] = []
        for table in tables:
            part = RowCorpus(table, self._fraction, self._streaming)
            vars(part).update(known)
            parts.append(part)
        return parts

    def reading(self) -> Any:
        """That of the source."""
        return self._source.reading()

    def add_reading(self, reading: Any) -> None:
        """That of the source."""
        self._source.add_reading(reading)

    def size(self, split: Split) -> int | None:
        """About how many bytes of text the split has, where that is known without reading it."""
        if self._source.has_validation or split != "validation":
            return self._source.size(split)
        total = self._source.size("train")
        return None if total is None else int(total * self._fraction)

    def pieces(self, split: Split, start: Position = None) -> Iterator[TextPiece]:
        """The split's rows in pieces. A position is the source's before a row and a piece's number in it."""
        row_start, first_piece = start or (None, 0)
        for text, before, after in self._documents(split, row_start):
            cut = list(parts(text))
            for j, part in enumerate(cut[first_piece:], first_piece):
                last = j == len(cut) - 1
                yield TextPiece(part, last, [after, 0] if last else [before, j + 1])
            first_piece = 0

    def _documents(self, split: Split, start: Position) -> Iterator[tuple[str, Position, Position]]:
        """The split's texts, each with the source's positions before and after it."""
        if self._source.has_validation or split == "test":
            yield from self._rows(split, start)
        elif self._is_single_text and self._source.content.is_example:
            raise DataError(
                f"all rows of {self.name} that can be used are the same; there must be another one for validation"
            )
        elif self._is_single_text:
            for text, before, after in self._rows("train", start):
                head, tail = _cut_in_two(text, self._fraction)
                yield (head if split == "train" else tail), before, after
        elif self._streaming:
            first = self._first_rows
            for i, row in enumerate(self._rows("train", start)):
                if split == "validation" and i == first:
                    return
                if split == "validation" or start is not None or i >= first:
                    yield row
        else:
            limit = self._hash_limit
            for text, before, after in self._rows("train", start):
                if (stable_hash(text) <= limit) == (split == "validation"):
                    yield text, before, after

    def _rows(self, split: Split, start: Position) -> Iterator[tuple[str, Position, Position]]:
        before = start
        for row, after in self._source.rows(split, start):
            text = without_surrogates(row.removeprefix("\ufeff").replace("\r\n", "\n"))
            if text:
                yield text, before, after
            before = after

    @cached_property
    def _is_single_text(self) -> bool:
        texts = (text for text, _, _ in self._rows("train", None))
        first = next(texts, None)
        if first is None:
            content = self._source.content
            raise DataError(
                f"all rows of {self.name} are left out: {content.lacking}; choose another {content.setting} or source"
            )
        return all(text == first for text in texts)

    @cached_property
    def _hash_limit(self) -> int:
        """The largest hash of a validation row: by the fraction, moved where that would leave one split empty."""
        limit, lowest, highest = hash_limit(self._fraction), 2**64, -1
        for text, _, _ in self._rows("train", None):
            key = stable_hash(text)
            lowest, highest = min(lowest, key), max(highest, key)
            if lowest <= limit < highest:
                return limit
        return lowest if limit < lowest else highest - 1

    @cached_property
    def _first_rows(self) -> int:
        """With streaming: the number of first rows that are the validation split."""
        sizes: list[int] = []
        total = 0
        for text, _, _ in self._rows("train", None):
            if total >= STREAMING_VALIDATION_BYTES:
                return len(sizes)
            sizes.append(len(text.encode()))
            total += sizes[-1]
        wanted, validation = total * self._fraction, 0
        for i, size in enumerate(sizes[:-1]):
            validation += size
            if validation >= wanted:
                return i + 1
        return len(sizes) - 1


def _cut_in_two(text: str, fraction: float) -> tuple[str, str]:
    cut = len(text) - max(1, int(len(text) * fraction))
    newline = text.find("\n", cut) + 1
    if 0 < newline < len(text):
        cut = newline
    return text[:cut], text[cut:]
