"""Local .jsonl, .csv and .parquet files as a table with one column of text.

They are read by the standard library and pyarrow rather than by `datasets`, whose type inference turns a text
like "2020-01-01T00:00:00" into a date and "007" into a number.
"""

import contextlib
import csv
import difflib
import json
import shutil
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from gpt2tui.data import file_reading
from gpt2tui.data.corpus import Position, Split
from gpt2tui.data.rows import RowSource
from gpt2tui.errors import DataError

SUFFIXES = frozenset({".jsonl", ".csv", ".parquet"})
_PARQUET_ROWS = 256


class RowFiles(RowSource):
    """The rows of several files in order. A text file among them is one row."""

    def __init__(self, name: str, files: Sequence[Path], text_column: str, fingerprint: str) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self._files = files
        self._text_column = text_column

    def size(self, split: Split) -> int:
        """The size of the files, which is more than their text and less where they are compressed."""
        return sum(path.stat().st_size for path in self._files)

    def rows(self, split: Split, start: Position = None) -> Iterator[tuple[str, Position]]:
        """A position is a file's number and a row's number in it."""
        try:
            yield from self._rows(start)
        except file_reading.NotTextError as error:
            texts = [path for path in self._files if file_reading.suffix(path) != ".parquet"]
            raise file_reading.not_text(texts) from error

    def _rows(self, start: Position) -> Iterator[tuple[str, Position]]:
        first_file, first_row = start or (0, 0)
        for i, path in enumerate(self._files):
            if i < first_file:
                continue
            for j, text in enumerate(_texts(path, self._text_column)):
                if i > first_file or j >= first_row:
                    yield text or "", [i, j + 1]


def missing_column(where: str, column: str, columns: Collection[str]) -> DataError:
    """The error for a table without the text column."""
    nearest = difflib.get_close_matches(column, columns, n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else "; set data.text_column to one of them"
    return DataError(f"{where} has no column {column}; it has {', '.join(columns) or 'none'}{hint}")


def _texts(path: Path, column: str) -> Iterator[str | None]:
    match file_reading.suffix(path):
        case ".jsonl":
            return _jsonl(path, column)
        case ".csv":
            return _csv(path, column)
        case ".parquet":
            return _parquet(path, column)
        case _:
            return iter(["".join(file_reading.blocks(path))])


def _jsonl(path: Path, column: str) -> Iterator[str | None]:
    first = True
    for number, line in enumerate(file_reading.lines(path), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{number} is not JSON ({error}); correct or remove the line") from error
        if not isinstance(row, dict):
            raise DataError(f'{path}:{number} is not a JSON object like {{"{column}": "..."}}')
        if first and column not in row:
            raise missing_column(str(path), column, row.keys())
        first = False
        text = row.get(column)
        if text is not None and not isinstance(text, str):
            raise DataError(
                f"{path}:{number} has {type(text).__name__} in column {column}, not text; choose another text_column"
            )
        yield text


def _csv(path: Path, column: str) -> Iterator[str | None]:
    csv.field_size_limit(2**31 - 1)
    reader = csv.DictReader(file_reading.lines(path), strict=True)
    try:
        if reader.fieldnames is None:
            return
        if column not in reader.fieldnames:
            raise missing_column(str(path), column, reader.fieldnames)
        for row in reader:
            yield row[column]
    except csv.Error as error:
        raise DataError(f"{path}:{reader.reader.line_num} is not CSV ({error}); correct the line") from error


def _parquet(path: Path, column: str) -> Iterator[str | None]:
    import pyarrow
    import pyarrow.parquet

    try:
        with _uncompressed(path) as file, pyarrow.parquet.ParquetFile(file) as table:
            schema = table.schema_arrow
            if column not in schema.names:
                raise missing_column(str(path), column, schema.names)
            kind = schema.field(column).type
            if pyarrow.types.is_dictionary(kind):
                kind = kind.value_type
            if kind not in (pyarrow.string(), pyarrow.large_string(), pyarrow.string_view()):
                raise DataError(f"{path} has {kind} in column {column}, not text; choose another text_column")
            for batch in table.iter_batches(batch_size=_PARQUET_ROWS, columns=[column]):
                yield from batch.column(0).to_pylist()
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a whole parquet file ({error})") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def _uncompressed(path: Path) -> Iterator[Path]:
    """The file itself, or a decompressed temporary copy of it: parquet is not read from front to back."""
    if path.name.lower().endswith(".gz"):
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / path.stem
            with file_reading.opened(path) as compressed, copy.open("wb") as file:
                shutil.copyfileobj(compressed, file)
            yield copy
    else:
        yield path
