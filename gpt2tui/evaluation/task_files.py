"""The rows of a task: from a file or folder in its published layout, or from a data set of the Hugging Face Hub."""

import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gpt2tui.data import hub
from gpt2tui.data.file_reading import LONGEST_LINE, lines, suffix
from gpt2tui.data.row_files import parquet_rows
from gpt2tui.errors import DataError
from gpt2tui.evaluation.tasks import Row, Task

TABLES = (".jsonl", ".ndjson", ".json", ".parquet")
TEXTS = (".txt", ".raw", ".tokens")
DELIMITERS = {".csv": ",", ".tsv": "\t"}
_HUB_ID = re.compile(r"hf:.+|[\w.-]+/[\w.-]+(:[\w.-]+)?")


def task_rows(task: Task, data: str | None) -> tuple[str, Iterator[Row]]:
    """Where a task's rows are, and the rows: of `data`, a file, folder or data set of the Hub, else of the task's own.

    Raises DataError when there is nothing, or more than one file that it could be.
    """
    if data is not None and Path(data).exists():
        files = [Path(data)] if Path(data).is_file() else find_files(task, Path(data))
        return ", ".join(map(str, files)), (row for file in files for row in file_rows(file))
    if data is not None and not _HUB_ID.fullmatch(data):
        raise DataError(f"{data} does not exist; --data names a file, a folder, or a data set of the Hub (owner/name)")
    name = data or task.hub
    if not name:
        raise DataError(f"the task {task.name} has no data set of its own; name a file with --data")
    try:
        return name, hub.table_rows(name, task.splits)
    except DataError as error:
        raise DataError(
            f"the data of the task {task.name} is missing: {error}; or name a file or folder with --data"
        ) from error


def find_files(task: Task, folder: Path) -> list[Path]:
    """The files of a task in a folder: those that are named after it and its split, else the only ones it could be.

    Parts of one file (`test-00000-of-00002.parquet`) belong together. Raises DataError for none, and for several.
    """
    kinds = (*TABLES, *TEXTS) if task.name.startswith("wikitext") else (*TABLES, *DELIMITERS)
    found = sorted(path for path in folder.rglob("*") if path.is_file() and suffix(path) in kinds)
    found = [path for path in found if not _is_of(("train",), path)]
    if not found:
        raise DataError(f"{folder} has no file of the task {task.name}; it reads {', '.join(kinds)}")
    files = _named_after(task.files, found, folder) or found
    files = [path for path in files if _is_of(task.splits, path)] or files
    if len({re.sub(r"-\d+-of-\d+", "", str(path)) for path in files}) > 1:
        listed = ", ".join(str(path.relative_to(folder)) for path in files[:8])
        raise DataError(f"{folder} has several files that could be those of the task {task.name}: {listed}; name one")
    return files


def _named_after(beginnings: Sequence[str], paths: Sequence[Path], folder: Path) -> list[Path]:
    """The paths of which a part below the folder begins like that, or whose folder does."""
    return [
        path
        for path in paths
        if any(part.lower().startswith(tuple(beginnings)) for part in (folder.name, *path.relative_to(folder).parts))
    ]


def _is_of(splits: Sequence[str], path: Path) -> bool:
    return not {*re.split(r"[-_.]", path.name.lower()), path.parent.name.lower()}.isdisjoint(splits)


def file_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSON lines, JSON, CSV or parquet file; of a text file its lines, in the column `text`."""
    match suffix(path):
        case ".parquet":
            yield from parquet_rows(path)
        case ".json" if (document := _document(path)) is not None:
            yield from document
        case kind if kind in DELIMITERS:
            yield from _delimited(path, DELIMITERS[kind])
        case kind if kind in TEXTS:
            yield from ({"text": line} for line in lines(path))
        case _:
            for number, line in enumerate(lines(path), 1):
                if line.strip():
                    yield _object(line, f"{path}:{number}")


def _delimited(path: Path, delimiter: str) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(LONGEST_LINE)
    reader = csv.DictReader(lines(path), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if None in row:
                raise DataError(f"{path}:{reader.line_num} has more fields than the header")
            yield row
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num} is not CSV ({error}); correct the line") from error


def _document(path: Path) -> list[dict[str, Any]] | None:
    """The objects of a file that is one JSON list; None for JSON lines."""
    try:
        document = json.loads("".join(lines(path)))
    except (ValueError, RecursionError):
        return None
    rows = document if isinstance(document, list) else [document]
    if not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path} is not a list of JSON objects")
    return rows


def _object(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is not JSON ({error})") from error
    if not isinstance(row, dict):
        raise DataError(f"{place} is not a JSON object")
    return row
