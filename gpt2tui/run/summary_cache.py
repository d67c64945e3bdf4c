"""Summaries of ended runs kept in the cache folder, so that a thousand runs are listed without reading them all.

A summary counts as long as the files that it was read from have the same sizes, times and inodes. A file that cannot be
read, is damaged or of another version is ignored and written anew.
"""

import contextlib
import hashlib
import json
import os
import tomllib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from gpt2tui import version
from gpt2tui.errors import Gpt2TuiError
from gpt2tui.run import folder as runs
from gpt2tui.run.folder import Run
from gpt2tui.run.summary import RunSummary, summarize
from gpt2tui.system.files import cache_folder, open_regular, replace_text, runs_folder

FORMAT = 2
LARGEST_BYTES = 32 << 20  # ten times a file of 1,000 runs
MOST_RUNS = 5000
MOST_FOLDERS = 20
ENDED = ("finished", "stopped", "failed")

Signature = list[Any]
"""Equal as long as a run's summary and settings would come out the same."""


@dataclass(frozen=True)
class SummarizedRun:
    """The summary of a run, and its settings by dotted key as they are in its preset.toml, not validated."""

    summary: RunSummary
    settings: dict[str, Any] = field(default_factory=dict)


def signature(run: Run) -> Signature:
    """That of the run as its folder is now."""
    folder = os.fspath(run.folder)  # names as text: pathlib takes as long as the system
    files = [path.name for path in (run.events_file, run.info_file, run.preset_file)]
    return [
        runs.is_locked(run),
        *map(_stamp, (folder, *(f"{folder}/{name}" for name in files))),
        _checkpoint_stamps(f"{folder}/{runs.CHECKPOINTS}"),
    ]


def _stamp(path: str) -> list[int]:
    try:
        return _of_status(os.stat(path))  # noqa: PTH116 see above
    except OSError:
        return []


def _checkpoint_stamps(checkpoints: str) -> list[Any]:
    try:
        with os.scandir(checkpoints) as found:
            return sorted([entry.name, *_of_status(entry.stat(follow_symlinks=False))] for entry in found)
    except OSError:
        return []


def _of_status(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


class SummaryCache:
    """The summaries of the ended runs in the runs folder. Not for two threads at once."""

    def __init__(self) -> None:
        self._folder = runs_folder().absolute()
        self._known = self._read()
        self._changed = False

    def summarized(self, run: Run, now: Signature | None = None) -> SummarizedRun:
        """The run as its folder is now; `now` is its signature, where that is known already. Raises nothing."""
        now = signature(run) if now is None else now
        key = os.path.relpath(run.folder.absolute(), self._folder)
        if found := _from_json(run, now, self._known.get(key)):
            return found
        found = SummarizedRun(summarize(run), _settings(run))
        # Whether a run without an end has crashed depends on the machine; one that cannot be read may be mended.
        if found.summary.state in ENDED and found.summary.started is not None:
            self._changed = True
            self._known[key] = _as_json(found, now)
        return found

    def save(self) -> None:
        """Writes the file if a run has ended since; without runs that are gone. Raises nothing."""
        if not self._changed:
            return
        self._changed = False
        there = [key for key in self._known if (self._folder / key / "run.json").exists()]
        with contextlib.suppress(OSError, ValueError, Gpt2TuiError):
            text = json.dumps({key: self._known[key] for key in there[-MOST_RUNS:]}, default=str)
            path = self._path()
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_text(path, f"{_head(text)}\n{text}")
            for old in sorted(path.parent.glob("*.json"), key=os.path.getmtime)[:-MOST_FOLDERS]:
                old.unlink(missing_ok=True)

    def _path(self) -> Path:
        name = hashlib.sha256(os.fsencode(self._folder)).hexdigest()[:16]
        return cache_folder() / "summaries" / f"{name}.json"

    def _read(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError, RecursionError, Gpt2TuiError):
            with open(open_regular(self._path()), encoding="utf-8") as file:  # noqa: PTH123 a descriptor
                head, _, text = file.read(LARGEST_BYTES).partition("\n")
            if head == _head(text) and isinstance(known := json.loads(text), dict):
                return known
        return {}


def _head(text: str) -> str:
    """The first line of the file: which version wrote it, and the digest of the rest."""
    names = ",".join(each.name for each in fields(RunSummary))
    return f"{FORMAT} {version.__version__} {hashlib.sha256(f'{names}{text}'.encode()).hexdigest()}"


def _as_json(run: SummarizedRun, now: Signature) -> list[Any]:
    return [now, asdict(run.summary), run.settings]


def _from_json(run: Run, now: Signature, entry: Any) -> SummarizedRun | None:
    """What is kept of the run; None if it has changed since."""
    if not isinstance(entry, list) or entry[0] != now:
        return None
    _, summary, settings = entry
    return SummarizedRun(RunSummary(**{**summary, "folder": str(run.folder)}), settings)


def _settings(run: Run) -> dict[str, Any]:
    """The settings of a run; without validation, which would take ten times as long."""
    try:
        with open(open_regular(run.preset_file), "rb") as file:  # noqa: PTH123 a descriptor
            tables = tomllib.load(file)
    except (OSError, ValueError, RecursionError):
        return {}
    return {f"{name}.{key}": v for name, table in tables.items() if isinstance(table, dict) for key, v in table.items()}
