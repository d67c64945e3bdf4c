"""Local .jsonl, .json, .csv, .tsv and .parquet files as a table with one column of text.

They are read by the standard library and pyarrow rather than by `datasets`, whose type inference turns a text
like "2020-01-01T00:00:00" into a date and "007" into a number.
"""

import contextlib
import csv
import difflib
import itertools
import json
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt2tui.data import file_reading
from gpt2tui.data.corpus import Position, Split
from gpt2tui.data.rows import RowSource
from gpt2tui.data.text_files import divided, marker_notices
from gpt2tui.errors import DataError

SUFFIXES = frozenset({".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"})
_DELIMITERS = ",;\t|"
_PARQUET_ROWS = 256
_ABSENT = object()


class RowFiles(RowSource):
    """The rows of several files in order, for each split there is.

    A text file among them is one row, or with `split_on_end_of_text` a row for each document that `<|endoftext|>` ends.
    """

    def __init__(
        self,
        name: str,
        files: Mapping[Split, Sequence[Path]],
        text_column: str,
        fingerprint: str,
        split_on_end_of_text: bool = False,
    ) -> None:
        self.name = name
        self._split_on_end_of_text = split_on_end_of_text
        self._markers: dict[Path, int] = {}
        self.fingerprint = fingerprint
        self.has_validation = "validation" in files
        self.has_test = "test" in files
        self._files = files
        self._text_column = text_column
        self._counts: dict[Path, tuple[int, int]] = {}

    def size(self, split: Split) -> int:
        """The size of the files, which is more than their text and less where they are compressed."""
        return sum(path.stat().st_size for path in self._files[split])

    def reading_notices(self) -> list[str]:
        """How many rows have no text and how many markers divide texts, in the files read to their ends."""
        return [*self._empty_rows(), *marker_notices(self.name, sum(self._markers.values()))]

    def _empty_rows(self) -> list[str]:
        rows = sum(rows for rows, _ in self._counts.values())
        empty = {path: empty for path, (_, empty) in self._counts.items() if empty}
        if not empty:
            return []
        where = next(iter(empty)).name if len(empty) == 1 else f"{len(empty)} files"
        return [
            f"{sum(empty.values()):,} of {rows:,} rows of {self.name} are left out: they have no text in column "
            f"{self._text_column} ({where})"
        ]

    def rows(self, split: Split, start: Position = None) -> Iterator[tuple[str, Position]]:
        """A position is a file's number and a row's number in it."""
        try:
            yield from self._rows(split, start)
        except file_reading.NotTextError as error:
            paths = [path for files in self._files.values() for path in files]
            raise file_reading.not_text([path for path in paths if not _is_parquet(path)]) from error

    def _rows(self, split: Split, start: Position) -> Iterator[tuple[str, Position]]:
        first_file, first_row = start or (0, 0)
        for i, path in enumerate(self._files[split]):
            if i < first_file:
                continue
            rows = empty = length = 0
            is_text = file_reading.suffix(path) not in SUFFIXES
            texts = self._text_file(path) if is_text else _texts(path, self._text_column)
            for rows, text in enumerate(texts, 1):
                length += len(text or "")
                file_reading.refuse_repetition(path, length)
                empty += not text
                if i > first_file or rows > first_row:
                    yield text or "", [i, rows]
            if is_text:
                self._markers[path] = max(0, rows - 1)
            else:
                self._counts[path] = rows, empty

    def _text_file(self, path: Path) -> Iterator[str]:
        """The documents of a text file; an empty one between two markers is left out."""
        blocks = file_reading.blocks(path)
        if not self._split_on_end_of_text:
            yield "".join(blocks)
            return
        parts: list[str] = []
        for part, ends_document in divided(blocks):
            parts.append(part)
            if ends_document and any(parts):
                yield "".join(parts)
                parts = []


def missing_column(where: str, column: str, columns: Collection[str]) -> DataError:
    """The error for a table without the text column."""
    nearest = difflib.get_close_matches(column, columns, n=1)
    hint = f"; did you mean {nearest[0]}?" if nearest else "; set data.text_column to one of them"
    return DataError(f"{where} has no column {column}; it has {', '.join(columns) or 'none'}{hint}")


def _is_parquet(path: Path) -> bool:
    return file_reading.suffix(path) == ".parquet"


def _texts(path: Path, column: str) -> Iterator[str | None]:
    match file_reading.suffix(path):
        case ".jsonl" | ".ndjson":
            return _json_texts(path, column, _json_lines(path))
        case ".json":
            return _json_texts(path, column, _json_document(path, column))
        case ".csv" | ".tsv":
            return _csv(path, column)
        case ".parquet":
            return _parquet(path, column)
        case kind:
            raise AssertionError(kind)


# ---- JSON


def _json_texts(path: Path, column: str, rows: Iterator[tuple[str, Any]]) -> Iterator[str | None]:
    """The texts of rows that come with their places; None where a row has no text. Some row must have the column."""
    is_there, first = False, None
    for place, row in rows:
        if not isinstance(row, dict):
            raise DataError(f'{place} is not a JSON object like {{"{column}": "..."}}')
        first = row if first is None else first
        text = _field(row, column)
        is_there = is_there or text is not _ABSENT
        if text is _ABSENT or text is None:
            yield None
        elif isinstance(text, str):
            yield text
        else:
            raise _not_text(place, type(text).__name__, column, _columns(row, str))
    if first is not None and not is_there:
        raise missing_column(str(path), column, _columns(first, object))


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(file_reading.lines(path), 1):
        if line.strip():
            try:
                yield f"{path}:{number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}:{number} is not JSON ({error}); correct or remove the line") from error


def _json_document(path: Path, column: str) -> Iterator[tuple[str, Any]]:
    """The rows of a .json file: a list of objects, an object that holds one such list or a list for each column, one
    object, or JSON lines."""
    text = "".join(file_reading.blocks(path))
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
            yield from _json_lines(path)
            return
        raise DataError(f"{path} is not JSON ({error}); correct the file or leave it out") from error
    rows = document if isinstance(document, list) else [document]
    if isinstance(document, dict) and _field(document, column) is _ABSENT:
        tables = [value for value in document.values() if value and isinstance(value, list)]
        if len(tables) == 1 and all(isinstance(row, dict) for row in tables[0]):
            rows = tables[0]
    elif isinstance(document, dict) and isinstance(values := _field(document, column), list):
        rows = [{column: value} for value in values]
    for number, row in enumerate(rows, 1):
        yield f"{path}, row {number}", row


def _field(row: dict[str, Any], column: str) -> Any:
    """The value of a column, whose name may be a path of keys such as `data.text`; _ABSENT where there is none."""
    if column in row:
        return row[column]
    key, dot, rest = column.partition(".")
    inner = row.get(key) if dot else None
    return _field(inner, rest) if isinstance(inner, dict) else _ABSENT


def _columns(row: dict[str, Any], kind: type) -> list[str]:
    """The columns of a row that have values of a kind; those of inner objects with their paths."""
    names: list[str] = []
    for key, value in row.items():
        if isinstance(value, dict) and value:
            names += [f"{key}.{name}" for name in _columns(value, kind)]
        elif isinstance(value, kind):
            names.append(key)
    return names


def _not_text(where: str, kind: str, column: str, text_columns: Collection[str]) -> DataError:
    there = f"columns of text are {', '.join(text_columns)}" if text_columns else "it has no column of text"
    return DataError(
        f"{where} has a value of the type {kind} in column {column}, not text; {there}; choose another data.text_column"
    )


# ---- CSV


def _csv(path: Path, column: str) -> Iterator[str | None]:
    """The texts of a file of fields separated by commas, semicolons, tabs or bars, which its header tells."""
    csv.field_size_limit(file_reading.LONGEST_LINE)
    lines = file_reading.lines(path)
    header = next(lines, None)
    if header is None:
        return
    delimiter = _delimiter(path, column, header)
    reader = csv.reader(itertools.chain([header], lines), delimiter=delimiter, strict=True)
    names: list[str] = []
    start = 1
    try:
        for row in reader:
            if not names:
                names = row
                if column not in names:
                    raise missing_column(str(path), column, names)
                if names.count(column) > 1:
                    raise DataError(f"{path} has {names.count(column)} columns {column}; rename all but one")
                index = names.index(column)
            elif any(row[len(names) :]):
                raise DataError(
                    f"{path}:{start} has {len(row)} fields and the header {len(names)}; put fields that contain "
                    f"{_delimiter_name(delimiter)} into double quotes"
                )
            elif row:
                yield row[index] if index < len(row) else None
            start = reader.line_num + 1
    except csv.Error as error:
        if "new-line character" in str(error):
            raise DataError(
                f"{path}:{start} has a carriage return without a line feed; end lines with line feeds"
            ) from error
        raise DataError(f"{path}:{start} is not CSV ({error}); correct the line") from error


def _delimiter(path: Path, column: str, header: str) -> str:
    """The delimiter with which the header has the column, else the one that gives the most columns."""
    candidates = "\t,;|" if file_reading.suffix(path) == ".tsv" else _DELIMITERS
    line = header.rstrip("\n").partition("\r")[0]
    fields = {delimiter: next(csv.reader([line], delimiter=delimiter), []) for delimiter in candidates}
    return max(candidates, key=lambda delimiter: (column in fields[delimiter], len(fields[delimiter])))


def _delimiter_name(delimiter: str) -> str:
    return {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}[delimiter]


# ---- Parquet


def _parquet(path: Path, column: str) -> Iterator[str | None]:
    import pyarrow
    import pyarrow.compute
    import pyarrow.parquet

    try:
        with _uncompressed(path) as file, pyarrow.parquet.ParquetFile(file) as table:
            schema = table.schema_arrow
            kinds = _kinds(schema)
            if column not in kinds:
                raise missing_column(str(path), column, list(kinds))
            if not _is_text(kinds[column]):
                texts = [name for name, kind in kinds.items() if _is_text(kind)]
                raise _not_text(str(path), str(kinds[column]), column, texts)
            # A name with dots may be a column's own.
            inner = [] if column in schema.names else column.split(".")[1:]
            for batch in table.iter_batches(batch_size=_PARQUET_ROWS, columns=[column]):
                values = batch.column(0)
                for key in inner:
                    values = pyarrow.compute.struct_field(values, key)
                yield from values.to_pylist()
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a whole parquet file ({error})") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a parquet file, with all their columns. Raises DataError."""
    import pyarrow
    import pyarrow.parquet

    try:
        with _uncompressed(path) as file, pyarrow.parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=_PARQUET_ROWS):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a whole parquet file ({error})") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _kinds(fields: Iterable[Any], prefix: str = "") -> dict[str, Any]:
    """The arrow types of all columns by name; those inside of structs by their paths, such as `data.text`."""
    import pyarrow

    kinds: dict[str, Any] = {}
    for field in fields:
        kinds[prefix + field.name] = field.type
        if pyarrow.types.is_struct(field.type):
            del kinds[prefix + field.name]
            kinds |= _kinds(field.type, f"{prefix}{field.name}.")
    return kinds


def _is_text(kind: Any) -> bool:
    import pyarrow

    if pyarrow.types.is_dictionary(kind):
        kind = kind.value_type
    return kind in (pyarrow.string(), pyarrow.large_string(), pyarrow.string_view())


@contextlib.contextmanager
def _uncompressed(path: Path) -> Iterator[Path]:
    """The file itself, or a decompressed temporary copy of it: parquet is not read from front to back."""
    if file_reading.compression(path):
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / path.stem
            with file_reading.opened(path) as compressed, copy.open("wb") as file:
                while data := compressed.read(file_reading.BLOCK_BYTES):
                    file_reading.refuse_repetition(path, file.tell())
                    file.write(data)
            yield copy
    else:
        yield path
