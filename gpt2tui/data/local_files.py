"""Paths, folders and globs as a corpus."""

import contextlib
import difflib
import glob
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt2tui.data import content_hashes, file_reading, row_files
from gpt2tui.data.corpus import Corpus, Split, digest
from gpt2tui.data.row_content import row_content
from gpt2tui.data.row_files import RowFiles
from gpt2tui.data.rows import RowCorpus
from gpt2tui.data.text_files import TextFile, TextFiles, has_markers
from gpt2tui.errors import DataError
from gpt2tui.preset import source as sources
from gpt2tui.preset.schema import DataTable

TEXT_SUFFIXES = frozenset({".txt", ".md", ".py"})
ROWS = ".jsonl, .ndjson, .json, .csv, .tsv or .parquet"
READABLE = ".txt, .md, .py, .jsonl, .ndjson, .json, .csv, .tsv or .parquet, compressed (.gz, .bz2, .xz, .zst) or not"
DOWNLOADS = {
    "shakespeare.txt": "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
}
"""Corpora of shipped presets that are one file, and where it is."""
MOST_RECORDED_FILES = 1000
_SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
_SPLIT_NAME = re.compile(rf"({'|'.join(_SPLITS)})([-_]\d+([-_]of[-_]\d+)?)?")
_SPLIT_SUFFIXES = row_files.SUFFIXES | {".txt"}
_PERHAPS_EMPTY = 4096  # bytes: a smaller file may be only a byte order mark, or nothing, compressed


@dataclass(frozen=True)
class FoundFiles:
    """The files that a source names, and what a user may not expect of the choice."""

    root: Path
    """The folder that the files' names are relative to."""
    splits: dict[Split, list[Path]]
    """Sorted; only "train" where the source has no splits of its own."""
    notices: tuple[str, ...] = ()

    @property
    def paths(self) -> list[Path]:
        """The files of all splits, sorted."""
        return sorted(path for paths in self.splits.values() for path in paths)


def open_local(table: DataTable) -> Corpus:
    """The corpus of a path, folder or glob.

    In .txt, .md and .py files the whole file is one document, in the others each row. A folder with files named
    train, validation and test is read by these splits. The fingerprint is of the files' names and content; that of a
    large corpus only after `hash_content`. Raises DataError when nothing readable is there.
    """
    found = find_files(table.source)
    root, paths = found.root, found.paths
    try:
        sizes = {path: _size_of_text(path) for path in paths}
        hashes = content_hashes.known_hashes(paths)
        names = [os.fsencode(path.relative_to(root)).decode("utf-8", "surrogateescape") for path in paths]
        fingerprint = digest(*names, *(hashes or [content_hashes.state_of(paths)]))
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}") from error
    full = {split: [path for path in found.splits[split] if sizes[path]] for split in found.splits}
    if not full["train"]:
        what = (
            f"{paths[0]} is empty"
            if len(paths) == 1
            else f"all {len(found.splits['train'])} files of {table.source} are empty"
        )
        raise DataError(f"{what}; choose files with text in them")
    if len(found.splits) > 1:
        # The same files without splits are another corpus.
        fingerprint = digest(fingerprint, *(f"{split} {len(found.splits[split])}" for split in found.splits))
    with_markers = table.split_on_end_of_text and any(
        has_markers(path)
        for chosen in full.values()
        for path in chosen
        if file_reading.suffix(path) not in row_files.SUFFIXES
    )
    if with_markers:  # before they divided documents, the same files were another corpus
        fingerprint = digest(fingerprint, "split_on_end_of_text")
    if any(file_reading.suffix(path) in row_files.SUFFIXES for path in paths):
        source = RowFiles(table.source, full, row_content(table), fingerprint, table.split_on_end_of_text)
        corpus: Corpus = RowCorpus(source, table.validation_fraction, table.streaming)
        notices: list[str] = []
    else:
        content: dict[Path, str] = dict(zip(paths, hashes, strict=True)) if hashes else {}
        files = {
            split: [
                TextFile(path, path.relative_to(root).as_posix(), sizes[path], content.get(path)) for path in chosen
            ]
            for split, chosen in full.items()
        }
        corpus = text_files = TextFiles(
            table.source,
            files["train"],
            table.validation_fraction,
            fingerprint,
            test=files.get("test", ()),
            validation=files.get("validation", ()),
            split_on_end_of_text=table.split_on_end_of_text,
        )
        if text_files.copies:  # before they were kept together, the same files had another split
            corpus.fingerprint = digest(fingerprint, "copies in one split")
        notices = _copies_notices(table.source, text_files)
    corpus.notices = (*found.notices, *notices)
    return corpus


def local_file_hashes(table: DataTable) -> dict[str, str] | None:
    """The SHA-256 of each file of a corpus, by its path below the corpus; by it a changed file is found later.

    None for a corpus that is not of local files, of more than MOST_RECORDED_FILES, or that can no longer be read.
    """
    if not sources.is_path(table.source):
        return None
    with contextlib.suppress(DataError, OSError):
        found = find_files(table.source)
        if len(found.paths) <= MOST_RECORDED_FILES and (hashes := content_hashes.known_hashes(found.paths)):
            names = [path.relative_to(found.root).as_posix() for path in found.paths]
            return dict(zip(names, hashes, strict=True))
    return None


def hash_content(table: DataTable) -> Iterator[tuple[int, int]]:
    """Hashes a large corpus once, so that `open_local` knows its fingerprint; yields the bytes done and their total.

    Raises DataError when a file cannot be read.
    """
    return content_hashes.hash_files(find_files(table.source).paths)


def _copies_notices(source: str, corpus: TextFiles) -> list[str]:
    notices = []
    if corpus.copies:
        verb = "is a copy of another" if corpus.copies == 1 else "are copies of others"
        notices.append(f"{corpus.copies:,} of the files of {source} {verb}; copies are in the same split")
    for split, count in corpus.trained_on.items():
        verb = "is a copy of a training file" if count == 1 else "are copies of training files"
        notices.append(
            f"{count:,} of the {split} files of {source} {verb}: the {split} loss is lower than that of new text"
        )
    return notices


def columns_in(source: str) -> list[str]:
    """The columns of the first file of rows of a local source; empty without one. Raises DataError."""
    if not sources.is_path(source):
        return []
    files = (path for path in find_files(source).paths if file_reading.suffix(path) in row_files.SUFFIXES)
    first = next(files, None)
    return [] if first is None else row_files.columns_of(first)


def find_files(source: str) -> FoundFiles:
    """The readable files that a path, folder or glob names.

    A folder is searched with all its subfolders, linked ones too; hidden ones and the program's own run folders are
    left out, and .json files where there are others. Raises DataError when there are none.
    """
    try:
        path = Path(source).expanduser()
        if path.is_file():
            if not _is_readable(path):
                raise DataError(f"{path} is not a kind of file that can be read: it must be {READABLE}")
            return FoundFiles(path.parent, {"train": [path]})
        if path.is_dir():
            files, runs = _walk(path)
            found = _chosen(source, path, files, runs)
            if not found.paths:
                raise DataError(f"the folder {path} holds no text: no file in it is {READABLE}")
            return found
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"data.source {source[:200]!r} is not a path ({error})") from error
    if glob.has_magic(source):
        return _find_glob(source, path)
    if path.exists():
        raise DataError(f"{path} is a pipe or a device; write the text into a file, because it is read more than once")
    if path.is_symlink():
        raise DataError(f"{path} is a link to something that does not exist; check data.source")
    if path.name in DOWNLOADS:
        raise DataError(
            f"{path} does not exist; download it: curl -fLo {shlex.quote(str(path))} {DOWNLOADS[path.name]}"
        )
    relative = "" if path.is_absolute() else f" in the preset's folder or in {Path.cwd()}"
    raise DataError(f"{path} does not exist{relative}{_nearest(path)}")


def _walk(root: Path) -> tuple[list[Path], int]:
    """The files below a folder, hidden ones left out, and the number of run folders that were passed over.

    A folder that is reached twice, through a link, is read once: at its own place if that is below `root` too.
    """
    files: list[Path] = []
    runs = 0
    seen: set[str] = set()
    waiting = [root]
    while waiting:
        start = waiting.pop(0)
        for folder, subfolders, names in os.walk(start):
            where = Path(folder)
            real = os.path.realpath(folder)
            if real in seen or (where != root and _is_run(where)):
                runs += real not in seen
                seen.add(real)
                subfolders.clear()
                continue
            seen.add(real)
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            waiting += [where / name for name in subfolders if (where / name).is_symlink()]
            files += [where / name for name in names if not name.startswith(".") and (where / name).is_file()]
    return sorted(files), runs


def _is_run(folder: Path) -> bool:
    """Whether a folder is a run of this program, whose events and texts are not a corpus."""
    return (folder / "run.json").is_file() and (folder / "checkpoints").is_dir()


def _chosen(source: str, root: Path, files: Sequence[Path], runs: int) -> FoundFiles:
    """Of the files of a folder or glob those that are read, by split, with notices about the others."""
    readable = [path for path in files if _is_readable(path)]
    # Beside other files, .json files are settings more often than text.
    readable = [path for path in readable if file_reading.suffix(path) != ".json"] or readable
    splits = _own_splits(root, [path for path in files if _is_readable(path)])
    notices = []
    if splits:
        named = ", ".join(f"{split} ({len(splits[split])})" for split in splits)
        notices.append(f"{source} has its own splits, which are used; files: {named}")
    else:
        splits = {"train": readable}
    used = {path for paths in splits.values() for path in paths}
    unread = Counter(
        path.name if len(files) - len(used) <= 3 else file_reading.suffix(path) or "without a suffix"
        for path in files
        if path not in used
    )
    if unread and used:
        kinds = ", ".join(f"{count} {kind}" if count > 1 else kind for kind, count in unread.most_common(8))
        notices.append(f"{len(files) - len(used):,} of {len(files):,} files of {source} are not read: {kinds}")
    if runs:
        notices.append(f"{source} contains {runs:,} run folder{'s' * (runs > 1)} of gpt2tui, which are not read")
    return FoundFiles(root, splits, tuple(notices))


def _own_splits(root: Path, files: Sequence[Path]) -> dict[Split, list[Path]] | None:
    """The files named by a split, or in a folder so named, such as data/train-00000-of-00002.parquet.

    None where there are none for training, or text files for training alone.
    """
    splits: dict[Split, list[Path]] = {}
    for path in files:
        if file_reading.suffix(path) not in _SPLIT_SUFFIXES:
            continue
        *folders, name = path.relative_to(root).parts
        matches = (_SPLIT_NAME.fullmatch(part) for part in [name.partition(".")[0].lower(), *reversed(folders)])
        if match := next(filter(None, matches), None):
            splits.setdefault(_SPLITS[match[1]], []).append(path)
    has_rows = any(file_reading.suffix(path) in row_files.SUFFIXES for path in splits.get("train", ()))
    if "train" not in splits or (len(splits) == 1 and not has_rows):
        return None
    return {split: splits[split] for split in ("train", "validation", "test") if split in splits}


def _size_of_text(path: Path) -> int:
    """The file's size on disk in bytes; 0 where there is no text in it."""
    size = path.stat().st_size
    return 0 if size < _PERHAPS_EMPTY and file_reading.is_empty(path) else size


def _find_glob(source: str, path: Path) -> FoundFiles:
    base, *rest = path.parts
    root = Path(base) if path.is_absolute() else Path()
    rest = rest if path.is_absolute() else [base, *rest]
    # A folder whose own name has brackets is a folder.
    while len(rest) > 1 and (not glob.has_magic(rest[0]) or (root / rest[0]).is_dir()):
        root /= rest.pop(0)
    matches: dict[tuple[str, str], Path] = {}
    runs: set[Path] = set()
    for name in sorted(glob.iglob(str(Path(*rest)), root_dir=root, recursive=True), key=lambda name: (len(name), name)):  # noqa: PTH207 - follows links
        match = root / name
        inside = [root.joinpath(*Path(name).parts[:i]) for i in range(1, len(Path(name).parts))]
        if run := next(filter(_is_run, inside), None):
            runs.add(run)
        elif match.is_file():
            matches.setdefault((os.path.realpath(match.parent), match.name), match)
    found = _chosen(source, root, sorted(matches.values()), len(runs))
    if not found.paths:
        why = f"only matches files that are not {READABLE}" if matches else "matches no file"
        raise DataError(f"the glob {source} {why}; quote it in a shell, and use ** for subfolders")
    return found


def _is_readable(path: Path) -> bool:
    return file_reading.suffix(path) in TEXT_SUFFIXES | row_files.SUFFIXES


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
    if similar:
        return f"; did you mean {folder / similar[0]}?"
    named = difflib.get_close_matches(path.name, sources.NAMED, n=1, cutoff=0.75)
    return f"; did you mean {named[0]}?" if named else "; check data.source"
