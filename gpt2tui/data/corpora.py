"""The sources of a corpus: the embedded one, WikiText, data sets of the Hugging Face Hub, local files."""

import heapq
from collections.abc import Iterator, Sequence

from gpt2tui.data import docstrings, hub, local_files, python_stdlib, token_files
from gpt2tui.data.corpus import Corpus, Position, Split, TextPiece, digest
from gpt2tui.data.examples import ExampleCorpus
from gpt2tui.data.local_files import ROWS
from gpt2tui.data.row_content import row_content
from gpt2tui.data.rows import STREAMING_VALIDATION_BYTES, RowCorpus
from gpt2tui.errors import DataError
from gpt2tui.preset.schema import MIX, DataTable


class MixedCorpus(Corpus):
    """The texts of several corpora, their training texts in the proportions of the weights until one after the other
    ends: for tokenizers to be trained on. It has no positions, and is read from the start.
    """

    def __init__(self, corpora: Sequence[Corpus], weights: Sequence[float]) -> None:
        self.name = MIX
        self.fingerprint = digest(
            *(f"{corpus.fingerprint} {weight}" for corpus, weight in zip(corpora, weights, strict=True))
        )
        self.notices = tuple(notice for corpus in corpora for notice in corpus.notices)
        self._corpora = corpora
        self._weights = weights

    def pieces(self, split: Split, start: Position = None) -> Iterator[TextPiece]:
        """The training documents of all corpora in turn; those of another split one corpus after the other."""
        assert start is None
        if split != "train":
            for corpus in self._corpora:
                yield from corpus.held_out_pieces(split)
            return
        readers = [corpus.pieces(split) for corpus in self._corpora]
        waiting = [(0.0, number) for number in range(len(readers))]  # characters by weight, the corpus
        while waiting:
            read, number = heapq.heappop(waiting)
            for piece in readers[number]:
                read += len(piece.text) / self._weights[number]
                yield piece
                if piece.ends_document:
                    heapq.heappush(waiting, (read, number))
                    break

    def size(self, split: Split) -> int | None:
        """About how many bytes the split has, where that is known of all corpora."""
        sizes = [corpus.size(split) for corpus in self._corpora]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None


def open_corpus(table: DataTable) -> Corpus:
    """The corpus that a `[data]` table names. A data set of the Hub is downloaded now, except with streaming.

    Raises DataError when the source is missing, empty, not text or out of reach.
    """
    if table.mix:
        corpora = [open_corpus(table.of_source(source)) for source in table.sources]
        return MixedCorpus(corpora, [each.weight for each in table.mix])
    corpus = _open(table)
    if table.has_examples:
        if not isinstance(corpus, RowCorpus):
            raise DataError(
                f"{table.source} is text, which has no columns; choose files of rows ({ROWS}), or leave out "
                f"{row_content(table).setting}"
            )
        return ExampleCorpus(corpus, table)
    if table.streaming:
        corpus.held_out_limit = STREAMING_VALIDATION_BYTES
    return corpus


def hash_content(table: DataTable) -> Iterator[tuple[int, int]]:
    """Hashes large local files, whose fingerprint `open_corpus` knows only then; yields the bytes done and their total.

    Raises DataError when a file cannot be read.
    """
    if _is_named(table.source) or token_files.find(table.source):
        return iter(())
    return local_files.hash_content(table)


def _is_named(source: str) -> bool:
    return source in (python_stdlib.NAME, docstrings.NAME) or source in hub.WIKITEXTS or source.startswith(hub.PREFIX)


def _open(table: DataTable) -> Corpus:
    if table.source == python_stdlib.NAME:
        return python_stdlib.open_stdlib(table)
    if table.source == docstrings.NAME:
        return docstrings.open_docstrings(table)
    if files := token_files.find(table.source):
        return token_files.TokenFiles(table, files)
    return hub.open_hub(table) if _is_named(table.source) else local_files.open_local(table)
