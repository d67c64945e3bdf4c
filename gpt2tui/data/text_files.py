"""Plain text files as a corpus: one file is one document, or several that `<|endoftext|>` divides."""

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TypeVar

from gpt2tui.data import file_reading
from gpt2tui.data.corpus import Corpus, Position, Split, TextPiece, in_parts, stable_hash
from gpt2tui.data.text_cuts import CUT_LENGTH, last_cut
from gpt2tui.data.tokenizer_kinds import EOT_TEXT
from gpt2tui.errors import DataError

T = TypeVar("T")

# The end of a line after the marker goes with it. Within a sentence there are spaces beside it, in a program quotes.
_MARKER = re.compile(
    r"(?:(?<=\n)|\A)<\|endoftext\|>(?:[ \t]{0,8}(?:\n|\Z)|(?=[\w\"'“‘<#*(]))"
    r"|(?:(?<=[\w.!?…:;)*>”’])|(?<=[.!?…,][\"']))<\|endoftext\|>(?:[ \t]{0,8}(?:\n|\Z)|(?=[\w“‘<#*(]))"
)
_LOOK_AHEAD = 64
_LOOK_BACK = 8


@dataclass(frozen=True)
class TextFile:
    """A file, the name whose hash decides its split, its size on disk in bytes, and its content's hash if known."""

    path: Path
    key: str
    bytes: int
    content: str | None = None


@dataclass(frozen=True)
class _Span:
    """The bytes [start, stop) of a file, decompressed; None is its end."""

    path: Path
    bytes: int
    start: int = 0
    stop: int | None = None


class TextFiles(Corpus):
    """The validation split is whole files: those whose names have the lowest hashes, up to the fraction of bytes.

    So nearly every file stays in its split when others are added or removed. Files of the same content are in the same
    split, by the name that sorts first. Where whole files cannot come near the fraction, because there are few or one
    is very large, the end of the largest file is the validation split, cut at a line end; its copies lose that end.
    The files of `test` and `validation`, which are not among the others, are these splits where there are any.
    """

    def __init__(
        self,
        name: str,
        files: Sequence[TextFile],
        fraction: float,
        fingerprint: str,
        test: Sequence[TextFile] = (),
        validation: Sequence[TextFile] = (),
        split_on_end_of_text: bool = False,
    ) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.has_test = bool(test)
        self._files = [file for file in files if file.bytes]
        self._by_content: dict[str, list[TextFile]] = {}
        for file in self._files:
            self._by_content.setdefault(file.content or file.key, []).append(file)
        self.copies = len(self._files) - len(self._by_content)
        """How many files have the content of an earlier one of those that are not in `test` or `validation`."""
        held_out: dict[Split, Sequence[TextFile]] = {"validation": validation, "test": test}
        counts = {split: sum(file.content in self._by_content for file in held_out[split]) for split in held_out}
        self.trained_on = {split: count for split, count in counts.items() if count}
        """How many files of `validation` and `test` have the content of a training file, where there are any."""
        self._test = [_Span(file.path, file.bytes) for file in test]
        self._validation = [_Span(file.path, file.bytes) for file in validation]
        self._split_on_end_of_text = split_on_end_of_text
        self._markers: dict[tuple[Path, int], int] = {}
        self._fraction = fraction
        if not self._files:
            raise DataError(f"{name}: every file is empty; choose files with text in them")

    def reading_notices(self) -> list[str]:
        """How many markers have divided the files that have been read to their ends."""
        return marker_notices(self.name, sum(self._markers.values()))

    def size(self, split: Split) -> int:
        """About how many bytes of text the split has; too few where files are compressed."""
        return sum(span.bytes for span in self._spans_of(split))

    def pieces(self, split: Split, start: Position = None) -> Iterator[TextPiece]:
        """The files in order, in pieces. A position is a file's number and a piece's number."""
        try:
            yield from self._pieces(split, start)
        except file_reading.NotTextError as error:
            raise file_reading.not_text([file.path for file in self._files]) from error

    def _pieces(self, split: Split, start: Position) -> Iterator[TextPiece]:
        first_file, first_piece = start or (0, 0)
        for i, span in enumerate(self._spans_of(split)):
            if i < first_file:
                continue
            blocks = file_reading.blocks(span.path, span.start, span.stop)
            parts = divided(blocks) if self._split_on_end_of_text else _with_last(blocks)
            pieces = _cut(parts)
            markers = 0
            for j, ((text, ends_document), is_last) in enumerate(_with_last(pieces)):
                markers += ends_document and not is_last
                if i > first_file or j >= first_piece:
                    # The end of the file ends its last document.
                    yield TextPiece(text, ends_document or is_last, [i + 1, 0] if is_last else [i, j + 1])
            self._markers[span.path, span.start] = markers

    def parts(self) -> list[Corpus]:
        """Whole files together."""
        spans = self._spans["train"]
        return [self._with_spans(spans[each.start : each.stop]) for each in in_parts([span.bytes for span in spans])]

    def _with_spans(self, train: list[_Span]) -> "TextFiles":
        part = copy.copy(self)
        vars(part).update(_markers={}, _spans={**self._spans, "train": train})
        return part

    def reading(self) -> list[tuple[str, int, int]]:
        """The number of markers in each span."""
        return [(str(path), start, count) for (path, start), count in self._markers.items()]

    def add_reading(self, reading: list[tuple[str, int, int]]) -> None:
        """Takes over the number of markers."""
        self._markers |= {(Path(path), start): count for path, start, count in reading}

    def _spans_of(self, split: Split) -> list[_Span]:
        return self._test if split == "test" else self._spans[split]

    @cached_property
    def _spans(self) -> dict[Split, list[_Span]]:
        if self._validation:
            return {
                "train": [_Span(file.path, file.bytes) for file in self._files],
                "validation": self._validation,
            }
        total = sum(file.bytes for file in self._files)
        by_hash = sorted(self._by_content.values(), key=lambda copies: stable_hash(copies[0].key))
        shares = [size / total for size in accumulate(sum(file.bytes for file in copies) for copies in by_hash)]
        last = min(range(len(shares)), key=lambda i: abs(shares[i] - self._fraction))
        if len(by_hash) == 1 or not self._fraction / 2 <= shares[last] <= min(2 * self._fraction, 0.75):
            return self._end_of_largest()
        validation = {file for copies in by_hash[: last + 1] for file in copies}
        return {
            "train": [_Span(file.path, file.bytes) for file in self._files if file not in validation],
            "validation": [_Span(file.path, file.bytes) for file in self._files if file in validation],
        }

    def _end_of_largest(self) -> dict[Split, list[_Span]]:
        copies = max(self._by_content.values(), key=lambda copies: copies[0].bytes)
        path, size = copies[0].path, file_reading.size(copies[0].path)
        total = size + sum(others[0].bytes for others in self._by_content.values() if others is not copies)
        cut = size - min(int(total * self._fraction), size // 2)
        cut = file_reading.line_end_near(path, min(cut, size - 1), size)
        return {
            "train": [
                _Span(file.path, cut, 0, cut) if file in copies else _Span(file.path, file.bytes)
                for file in self._files
            ],
            "validation": [_Span(path, size - cut, cut, size)],
        }


def divided(blocks: Iterator[str]) -> Iterator[tuple[str, bool]]:
    """The text without the markers that divide it, in parts, each with whether it ends a document."""
    # `pending` begins with text that has been given out already, up to `start`, for the expression to look back at.
    pending, start = "", 0
    for block, is_last in _with_last(blocks):
        pending += block
        end = len(pending) if is_last else len(pending) - _LOOK_AHEAD
        for match in _MARKER.finditer(pending, start):
            if match.start() >= end:
                break
            yield pending[start : match.start()], True
            start = match.end()
        if is_last or start < end:
            yield pending[start:end], is_last
            start = end
        kept = max(0, start - _LOOK_BACK)
        pending, start = pending[kept:], start - kept


def marker_notices(name: str, count: int) -> list[str]:
    """The notice that `count` markers in the text files of a source divide documents; none without a marker."""
    return [f"{count:,} {EOT_TEXT} in {name} divide documents"] if count else []


def has_markers(path: Path) -> bool:
    """Whether a marker divides the first block of a text file."""
    with file_reading.opened(path) as file:
        beginning = file.read(file_reading.BLOCK_BYTES)
    text = beginning.decode(errors="replace").removeprefix("\ufeff").replace("\r\n", "\n")
    return EOT_TEXT in text and _MARKER.search(text) is not None


def _cut(texts: Iterator[tuple[str, bool]]) -> Iterator[tuple[str, bool]]:
    """The same documents cut where it does not change the tokens, instead of wherever a block happened to end."""
    pending = ""
    for text, ends_document in texts:
        pending += text
        while len(pending) > CUT_LENGTH:
            stop = last_cut(pending, 0, CUT_LENGTH)
            yield pending[:stop], False
            pending = pending[stop:]
        if ends_document and pending:
            yield pending, True
            pending = ""


def _with_last(texts: Iterator[T]) -> Iterator[tuple[T, bool]]:
    """Each text with whether it is the last one."""
    previous = next(texts, None)
    while previous is not None:
        following = next(texts, None)
        yield previous, following is None
        previous = following
