"""Local .jsonl, .json, .csv, .tsv and .parquet files as a table.

They are read by the standard library and pyarrow rather than by `datasets`, whose type inference turns a text
like "2020-01-01T00:00:00" into a date and "007" into a number.
"""

import contextlib
import csv
import itertools
import json
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gpt2tui.data import file_reading
from gpt2tui.data.corpus import Position, Split, in_parts
from gpt2tui.data.row_content import RowContent, TextColumn, left_out_notice, missing_column
from gpt2tui.data.rows import RowSource
from gpt2tui.data.text_files import divided, marker_notices
from gpt2tui.errors import DataError

SUFFIXES = frozenset({".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet"})
_DELIMITERS = ",;\t|"
_PARQUET_ROWS = 256
_ABSENT = object()

Row = tuple[str, Sequence[Any]]
"""The place of a row, such as notes.csv:7, and the values of the columns that are read; None where there is none."""


class RowFiles(RowSource):
    """The rows of several files in order, for each split there is.

    A text file among them is one row, or with `split_on_end_of_text` a row for each document that `<|endoftext|>` ends.
    """

    def __init__(
        self,
        name: str,
        files: Mapping[Split, Sequence[Path]],
        content: RowContent,
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
        self.content = content
        self._counts: dict[Path, tuple[int, int, str]] = {}  # rows, left out, the place of the first of those

    def size(self, split: Split) -> int:
        """The size of the files, which is more than their text and less where they are compressed."""
        return sum(path.stat().st_size for path in self._files[split])

    def reading_notices(self) -> list[str]:
        """How many rows are left out and how many markers divide texts, in the files read to their ends."""
        return [*self._left_out(), *marker_notices(self.name, sum(self._markers.values()))]

    def parts(self) -> "list[RowSource]":
        """Whole files together."""
        files = self._files["train"]
        return [
            RowFiles(
                self.name,
                {**self._files, "train": files[each.start : each.stop]},
                self.content,
                self.fingerprint,
                self._split_on_end_of_text,
            )
            for each in in_parts([path.stat().st_size for path in files])
        ]

    def reading(self) -> dict[str, Any]:
        """The counts of each file."""
        return {
            "rows": [(str(path), *counts) for path, counts in self._counts.items()],
            "markers": [(str(path), count) for path, count in self._markers.items()],
        }

    def add_reading(self, reading: dict[str, Any]) -> None:
        """Takes over the counts of files."""
        self._counts |= {Path(path): (rows, left_out, first) for path, rows, left_out, first in reading["rows"]}
        self._markers |= {Path(path): count for path, count in reading["markers"]}

    def _left_out(self) -> list[str]:
        rows = sum(rows for rows, _, _ in self._counts.values())
        left_out = {path: (count, first) for path, (_, count, first) in self._counts.items() if count}
        if not left_out:
            return []
        first = next(iter(left_out.values()))[1]
        where = f"first {first}" if len(left_out) == 1 else f"in {len(left_out)} files, first {first}"
        count = sum(count for count, _ in left_out.values())
        return [left_out_notice(self.name, self.content, rows, count, where)]

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
            rows = left_out = length = 0
            first_left_out = ""
            is_text = file_reading.suffix(path) not in SUFFIXES
            texts = self._text_file(path) if is_text else _contents(path, self.content)
            for rows, (place, text) in enumerate(texts, 1):
                length += len(text or "")
                file_reading.refuse_repetition(path, length)
                if text is None:
                    left_out += 1
                    first_left_out = first_left_out or place
                if i > first_file or rows > first_row:
                    yield text or "", [i, rows]
            if is_text:
                self._markers[path] = max(0, rows - 1)
            else:
                self._counts[path] = rows, left_out, Path(first_left_out).name

    def _text_file(self, path: Path) -> Iterator[tuple[str, str]]:
        """The documents of a text file, as `_contents` gives rows; an empty one between two markers is left out."""
        if self.content.is_example:
            raise DataError(
                f"{path} is a text file, which has no columns; choose files of rows, or leave out "
                f"{self.content.setting}"
            )
        blocks = file_reading.blocks(path)
        if not self._split_on_end_of_text:
            yield path.name, "".join(blocks)
            return
        parts: list[str] = []
        for part, ends_document in divided(blocks):
            parts.append(part)
            if ends_document and any(parts):
                yield path.name, "".join(parts)
                parts = []


def _is_parquet(path: Path) -> bool:
    return file_reading.suffix(path) == ".parquet"


def _contents(path: Path, content: RowContent) -> Iterator[tuple[str, str | None]]:
    """The place of each row and what is read of it; None: it is left out."""
    for place, values in _rows(path, content):
        try:
            yield place, content.encode(values)
        except ValueError as error:
            raise DataError(f"{place} has in column {content.columns[0]} {error}") from None


def _rows(path: Path, content: RowContent) -> Iterator[Row]:
    match file_reading.suffix(path):
        case ".jsonl" | ".ndjson":
            return _json_rows(path, content, _json_lines(path))
        case ".json":
            return _json_rows(path, content, _json_document(path, content))
        case ".csv" | ".tsv":
            return _csv(path, content)
        case ".parquet":
            return _parquet(path, content)
        case kind:
            raise AssertionError(kind)


def columns_of(path: Path) -> list[str]:
    """The columns of a file of rows: those of its first row, its header or its schema. Raises DataError."""
    content = TextColumn("text")
    match file_reading.suffix(path):
        case ".csv" | ".tsv":
            header = next(file_reading.lines(path), "")
            return next(csv.reader([header.rstrip("\r\n")], delimiter=_delimiter(path, content, header)), [])
        case ".parquet":
            import pyarrow
            import pyarrow.parquet

            try:
                with _uncompressed(path) as file:
                    return list(_kinds(pyarrow.parquet.read_schema(file)))
            except (pyarrow.ArrowException, OSError) as error:
                raise DataError(f"{path} is not a whole parquet file ({error})") from error
        case suffix:
            rows = _json_document(path, content) if suffix == ".json" else _json_lines(path)
            _, first = next(rows, ("", {}))
            return _columns(first, object) if isinstance(first, dict) else []


# ---- JSON


def _json_rows(path: Path, content: RowContent, rows: Iterator[tuple[str, Any]]) -> Iterator[Row]:
    """The values of rows that come with their places. Some row must have each column."""
    missing, first = set(content.columns), None
    for place, row in rows:
        if not isinstance(row, dict):
            form = ", ".join(f'"{column}": ...' for column in content.columns)
            raise DataError(f"{place} is not a JSON object like {{{form}}}")
        first = row if first is None else first
        values = []
        for column in content.columns:
            value = _field(row, column)
            if value is not _ABSENT:
                missing.discard(column)
            if content.are_texts and not isinstance(value, str | None) and value is not _ABSENT:
                raise _not_text(place, type(value).__name__, column, content, _columns(row, str))
            values.append(None if value is _ABSENT else value)
        yield place, values
    if first is not None and missing:
        column = next(column for column in content.columns if column in missing)
        raise missing_column(str(path), column, content, _columns(first, object))


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(file_reading.lines(path), 1):
        if line.strip():
            try:
                yield f"{path}:{number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}:{number} is not JSON ({error}); correct or remove the line") from error


def _json_document(path: Path, content: RowContent) -> Iterator[tuple[str, Any]]:
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
    if isinstance(document, dict):
        fields = [_field(document, column) for column in content.columns]
        tables = [value for value in document.values() if value and isinstance(value, list)]
        if all(field is _ABSENT for field in fields):
            if len(tables) == 1 and all(isinstance(row, dict) for row in tables[0]):
                rows = tables[0]
        elif content.are_texts and all(isinstance(field, list) for field in fields):
            rows = [dict(zip(content.columns, values, strict=False)) for values in zip(*fields, strict=False)]
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


def _not_text(where: str, kind: str, column: str, content: RowContent, text_columns: Collection[str]) -> DataError:
    there = f"columns of text are {', '.join(text_columns)}" if text_columns else "it has no column of text"
    return DataError(
        f"{where} has a value of the type {kind} in column {column}, not text; {there}; choose another "
        f"{content.setting}"
    )


# ---- CSV


def _csv(path: Path, content: RowContent) -> Iterator[Row]:
    """The rows of a file of fields separated by commas, semicolons, tabs or bars, which its header tells."""
    csv.field_size_limit(file_reading.LONGEST_LINE)
    lines = file_reading.lines(path)
    header = next(lines, None)
    if header is None:
        return
    delimiter = _delimiter(path, content, header)
    reader = csv.reader(itertools.chain([header], lines), delimiter=delimiter, strict=True)
    names: list[str] = []
    start = 1
    try:
        for row in reader:
            if not names:
                names = row
                indices = [_index(path, column, content, names) for column in content.columns]
            elif any(row[len(names) :]):
                raise DataError(
                    f"{path}:{start} has {len(row)} fields and the header {len(names)}; put fields that contain "
                    f"{_delimiter_name(delimiter)} into double quotes"
                )
            elif row:
                yield f"{path}:{start}", [row[index] if index < len(row) else None for index in indices]
            start = reader.line_num + 1
    except csv.Error as error:
        if "new-line character" in str(error):
            raise DataError(
                f"{path}:{start} has a carriage return without a line feed; end lines with line feeds"
            ) from error
        raise DataError(f"{path}:{start} is not CSV ({error}); correct the line") from error


def _index(path: Path, column: str, content: RowContent, names: Sequence[str]) -> int:
    """The place of a column in the header."""
    if column not in names:
        raise missing_column(str(path), column, content, names)
    if names.count(column) > 1:
        raise DataError(f"{path} has {names.count(column)} columns {column}; rename all but one")
    return names.index(column)


def _delimiter(path: Path, content: RowContent, header: str) -> str:
    """The delimiter with which the header has the columns, else the one that gives the most columns."""
    candidates = "\t,;|" if file_reading.suffix(path) == ".tsv" else _DELIMITERS
    line = header.rstrip("\n").partition("\r")[0]
    fields = {delimiter: next(csv.reader([line], delimiter=delimiter), []) for delimiter in candidates}

    def likelihood(delimiter: str) -> tuple[int, int]:
        names = fields[delimiter]
        return sum(column in names for column in content.columns), len(names)

    return max(candidates, key=likelihood)


def _delimiter_name(delimiter: str) -> str:
    return {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}[delimiter]


# ---- Parquet


def _parquet(path: Path, content: RowContent) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with _uncompressed(path) as file, pyarrow.parquet.ParquetFile(file) as table:
            schema = table.schema_arrow
            kinds = _kinds(schema)
            for column in content.columns:
                if column not in kinds:
                    raise missing_column(str(path), column, content, list(kinds))
                if content.are_texts and not _is_text(kinds[column]):
                    texts = [name for name, kind in kinds.items() if _is_text(kind)]
                    raise _not_text(str(path), str(kinds[column]), column, content, texts)
            for batch in table.iter_batches(batch_size=_PARQUET_ROWS, columns=list(content.columns)):
                columns = [_values(batch, schema.names, column) for column in content.columns]
                for values in zip(*columns, strict=True):
                    number += 1
                    yield f"{path}, row {number}", values
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


def _values(batch: Any, names: Collection[str], column: str) -> list[Any]:
    """The values of a column of a batch; a name with dots may be a column's own, or a path into one."""
    import pyarrow.compute

    outer, *inner = [column] if column in names else column.split(".")
    values = batch.column(outer)
    for key in inner:
        values = pyarrow.compute.struct_field(values, key)
    found: list[Any] = values.to_pylist()
    return found


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
