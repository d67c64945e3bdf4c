"""The sources of a corpus: the embedded one, WikiText, data sets of the Hugging Face Hub, local files."""

from collections.abc import Iterator

from gpt2tui.data import docstrings, hub, local_files, python_stdlib
from gpt2tui.data.corpus import Corpus
from gpt2tui.data.examples import ExampleCorpus
from gpt2tui.data.local_files import ROWS
from gpt2tui.data.row_content import row_content
from gpt2tui.data.rows import STREAMING_VALIDATION_BYTES, RowCorpus
from gpt2tui.errors import DataError
from gpt2tui.preset.schema import DataTable


def open_corpus(table: DataTable) -> Corpus:
    """The corpus that a `[data]` table names. A data set of the Hub is downloaded now, except with streaming.

    Raises DataError when the source is missing, empty, not text or out of reach.
    """
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
    return iter(()) if _is_named(table.source) else local_files.hash_content(table)


def _is_named(source: str) -> bool:
    return source in (python_stdlib.NAME, docstrings.NAME) or source in hub.WIKITEXTS or source.startswith(hub.PREFIX)


def _open(table: DataTable) -> Corpus:
    if table.source == python_stdlib.NAME:
        return python_stdlib.open_stdlib(table)
    if table.source == docstrings.NAME:
        return docstrings.open_docstrings(table)
    return hub.open_hub(table) if _is_named(table.source) else local_files.open_local(table)
