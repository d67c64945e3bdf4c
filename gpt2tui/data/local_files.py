"""Paths, folders and globs as a corpus."""

import difflib
import glob
import os
from collections.abc import Sequence
from pathlib import Path

from gpt2tui.data import file_reading, row_files
from gpt2tui.data.corpus import Corpus, digest
from gpt2tui.data.row_files import RowFiles
from gpt2tui.data.rows import RowCorpus
from gpt2tui.data.text_files import TextFile, TextFiles
from gpt2tui.errors import DataError
from gpt2tui.preset.schema import DataTable
from gpt2tui.system.files import sha256

TEXT_SUFFIXES = frozenset({".txt", ".md", ".py"})
READABLE = ".txt, .md, .py, .jsonl, .ndjson, .json, .csv, .tsv or .parquet, gzipped or not"
HASHED_BYTES = 64 << 20
"""The fingerprint of a corpus up to this size hashes its content; of a larger one, sizes and modification times."""
_PERHAPS_EMPTY = 4096  # bytes: a smaller file may be only a byte order mark, or gzipped nothing


def open_local(table: DataTable) -> Corpus:
    """The corpus of a path, folder or glob.

    In .txt, .md and .py files the whole file is one document, in .jsonl, .csv and .parquet each row. Raises
    DataError when nothing readable is there.
    """
    root, paths = find_files(table.source)
    try:
        sizes = [_size_of_text(path) for path in paths]
        fingerprint = _fingerprint(root, paths, sizes)
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}") from error
    if not any(sizes):
        what = f"{paths[0]} is empty" if len(paths) == 1 else f"all {len(paths)} files of {table.source} are empty"
        raise DataError(f"{what}; choose files with text in them")
    if any(file_reading.suffix(path) in row_files.SUFFIXES for path in paths):
        full = [path for path, size in zip(paths, sizes, strict=True) if size]
        source = RowFiles(table.source, {"train": full}, table.text_column, fingerprint)
        return RowCorpus(source, table.validation_fraction, table.streaming)
    files = [TextFile(path, path.relative_to(root).as_posix(), size) for path, size in zip(paths, sizes, strict=True)]
    return TextFiles(table.source, files, table.validation_fraction, fingerprint)


def find_files(source: str) -> tuple[Path, list[Path]]:
    """The readable files that a path, folder or glob names, sorted, and the folder that their names are
    relative to.

    A folder is searched with all its subfolders, hidden ones left out. Raises DataError when there are none.
    """
    try:
        path = Path(source).expanduser()
        if path.is_file():
            if not _is_readable(path):
                raise DataError(f"{path} is not a kind of file that can be read: it must be {READABLE}")
            return path.parent, [path]
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if not _hidden(file.relative_to(path)) and _is_file(file))
            if not found:
                raise DataError(f"the folder {path} holds no text: no file in it is {READABLE}")
            return path, found
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"data.source {source[:200]!r} is not a path ({error})") from error
    if glob.has_magic(source):
        return _find_glob(source, path)
    if path.exists():
        raise DataError(f"{path} is a pipe or a device; write the text into a file, because it is read more than once")
    if path.is_symlink():
        raise DataError(f"{path} is a link to something that does not exist; check data.source")
    relative = "" if path.is_absolute() else f" in the preset's folder or in {Path.cwd()}"
    raise DataError(f"{path} does not exist{relative}{_nearest(path)}")


def _size_of_text(path: Path) -> int:
    """The file's size on disk in bytes; 0 where there is no text in it."""
    size = path.stat().st_size
    return 0 if size < _PERHAPS_EMPTY and file_reading.is_empty(path) else size


def _find_glob(source: str, path: Path) -> tuple[Path, list[Path]]:
    matches = [Path(match) for match in glob.iglob(str(path), recursive=True)]  # noqa: PTH207 - absolute globs
    found = sorted(match for match in matches if _is_file(match))
    if not found:
        why = f"only matches files that are not {READABLE}" if matches else "matches no file"
        raise DataError(f"the glob {source} {why}; quote it in a shell, and use ** for subfolders")
    parts = path.parts
    magic = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:magic]), found


def _is_file(path: Path) -> bool:
    return _is_readable(path) and path.is_file()


def _is_readable(path: Path) -> bool:
    return file_reading.suffix(path) in TEXT_SUFFIXES | row_files.SUFFIXES


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _nearest(path: Path) -> str:
    """A hint at what may have been meant by a path that does not exist."""
    folder = path.parent
    if not folder.is_dir():
        return f", and neither does its folder {folder}; check data.source"
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError:
        names = []
    similar = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {folder / similar[0]}?" if similar else "; check data.source"


def _fingerprint(root: Path, paths: Sequence[Path], sizes: Sequence[int]) -> str:
    names = [os.fsencode(path.relative_to(root)).decode("utf-8", "surrogateescape") for path in paths]
    if sum(sizes) <= HASHED_BYTES:
        states = [sha256(path) for path in paths]
    else:
        states = [f"{size} {path.stat().st_mtime_ns}" for path, size in zip(paths, sizes, strict=True)]
    return digest(*names, *states)
