"""The runs folder as rows for a table, their contents, and what can be done with a run outside the screen."""

import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from textual.message import Message
from textual.screen import Screen
from textual.worker import Worker

from gpt2tui.errors import Gpt2TuiError
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.schema import Preset
from gpt2tui.run import checkpoint, query
from gpt2tui.run import folder as runs
from gpt2tui.run.checkpoint import Checkpoint
from gpt2tui.run.folder import Run
from gpt2tui.run.state import ACTIVE, RunState
from gpt2tui.run.summary import RunSummary
from gpt2tui.run.summary_cache import Signature, SummaryCache, signature
from gpt2tui.system.files import runs_folder
from gpt2tui.system.shell import shell_line
from gpt2tui.tui.history import RunHistory
from gpt2tui.tui.history_file import PREVIEW_SECONDS, history_of, is_long, preview_of


@dataclass
class RunContents:
    """A run folder as it was at `summary`; each line of `problems` names something that could not be read."""

    run: Run
    summary: RunSummary
    preset: Preset | None = None
    info: dict[str, Any] = field(default_factory=dict)
    checkpoints: list[Checkpoint] = field(default_factory=list)
    history: RunHistory = field(default_factory=RunHistory)
    repeat: str = ""
    problems: list[str] = field(default_factory=list)


def read_contents(row: "RunRow", preview: bool = False, stopped: Callable[[], bool] = lambda: False) -> RunContents:
    """Reads the run, with `preview` only some of its steps; not to its end once `stopped` says so.

    Raises nothing that a damaged or vanishing folder could cause.
    """
    run = row.run
    contents = RunContents(run, row.summary, repeat=repeat_command(run))
    try:
        contents.preset = preset_files.check(run.preset_file).preset
        contents.history.grad_clip = contents.preset.optimizer.grad_clip
    except Gpt2TuiError as error:
        contents.problems.append(str(error))
    try:
        contents.info = run.info()
        contents.checkpoints = checkpoint.saved_in(run.checkpoints)
        contents.problems += checkpoint.problems_in(run.checkpoints)
        read = preview_of if preview else partial(history_of, stopped=stopped)
        contents.history = read(run.events_file, contents.history.grad_clip)
    except Gpt2TuiError as error:
        contents.problems.append(str(error))
    except OSError as error:
        contents.problems.append(f"{error.filename}: {error.strerror}")
    return contents


@dataclass(frozen=True)
class RunRow:
    """A run as the table shows it; `here`: this process trains it."""

    run: Run
    summary: RunSummary
    here: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    """By dotted key, as they are in the run's preset.toml; empty where it cannot be read."""
    sweep: str = ""
    """The name of its sweep; empty for a run by itself."""

    def value(self, key: str) -> Any:
        """The value of a column or setting, as `query.full_key` returns its key; None where it is not known."""
        return self.settings.get(key) if "." in key else self.summary.value(key)

    @property
    def long(self) -> bool:
        """Whether reading all of its events takes more than a moment."""
        try:
            return is_long(self.run.events_file)
        except OSError:
            return False

    @property
    def learning_rate(self) -> float | None:
        """The peak learning rate of AdamW."""
        rate = self.settings.get("optimizer.lr")
        return rate if query.is_number(rate) else None

    @property
    def batch_size(self) -> int | None:
        """The sequences of one step."""
        sizes = [self.settings.get(f"training.{key}") for key in ("batch_size", "gradient_accumulation")]
        return math.prod(size for size in sizes if isinstance(size, int)) if None not in sizes else None

    @property
    def state(self) -> RunState:
        """The state of the run."""
        return self.summary.state

    @cached_property
    def name(self) -> str:
        """Its path in the runs folder, unique there; `Run.name` of a link is the name of where it leads."""
        return f"{self.sweep}/{self.run.folder.name}" if self.sweep else self.run.folder.name

    @property
    def training(self) -> bool:
        """Whether some process trains it now."""
        return self.state in ACTIVE

    @property
    def elsewhere(self) -> bool:
        """Whether another process trains it now."""
        return self.training and not self.here

    @property
    def finished_all_steps(self) -> bool:
        """Whether it finished all steps of its preset."""
        total = self.summary.num_iterations
        return self.state == "finished" and total is not None and self.summary.step >= total


class RunListing:
    """All runs in the runs folder; remembers what it has read, so that only runs that change are read again.

    Not for two threads at once.
    """

    def __init__(self) -> None:
        self._known: dict[Path, tuple[Signature, RunRow]] = {}
        self._cache: SummaryCache | None = None

    def read(self, here: Path | None = None) -> list[RunRow]:
        """A row for each run; `here` is the folder of the run that this program trains. Raises nothing."""
        *_, (rows, _) = self.read_in_parts(here)
        return rows

    def read_in_parts(self, here: Path | None = None, seconds: float = math.inf) -> Iterator[tuple[list[RunRow], bool]]:
        """The rows and True; before, after `seconds`, twice that..., those so far and False, the others `loading`."""
        known, self._known = self._known, {}
        self._cache = self._cache or SummaryCache()
        found = runs.all_runs()
        rows = [known[run.folder][1] if run.folder in known else _unread(run) for run in found]
        shown = time.monotonic()
        # The newest first, as they are listed.
        for index, run in reversed(list(enumerate(found))):
            if time.monotonic() - shown > seconds:
                yield list(rows), False
                shown, seconds = time.monotonic(), 2 * seconds
            now = signature(run)
            before = known.get(run.folder)
            if before and before[0] == now:
                row = before[1]
            else:
                read = self._cache.summarized(run, now)
                row = RunRow(run, read.summary, settings=read.settings, sweep=_sweep(run))
            is_here = here is not None and run.folder.resolve() == here.resolve()
            rows[index] = row = row if row.here == is_here else replace(row, here=is_here)
            self._known[run.folder] = now, row
        self._cache.save()
        yield rows, True


def _unread(run: Run) -> RunRow:
    """The row of a run before it is read; it is listed where the time of its preset puts it."""
    try:
        started = run.preset_file.stat().st_mtime
    except OSError:
        started = None
    return RunRow(run, RunSummary(run.folder.name, str(run.folder), "loading", started=started), sweep=_sweep(run))


def _sweep(run: Run) -> str:
    """The sweep that the run is listed in."""
    parent = run.folder.parent
    return "" if parent == runs_folder() else parent.name


# ---- what has been read, and what to read next

REST = 10  # reading that took t seconds is not repeated for REST * t: at most about a tenth of a core
MOST_CONTENTS = 24
PART_SECONDS = 0.1
"""How long a list is read before its part is shown."""


class RunLibrary:
    """The rows of all runs, and the contents of those that were shown last."""

    def __init__(self) -> None:
        self.rows: list[RunRow] = []
        self._contents: dict[Path, RunContents] = {}
        self._previews: set[Path] = set()
        """The runs of which only a preview has been read."""
        self._list_rests_until = 0.0
        self._run_rests_until: dict[Path, float] = {}

    @property
    def list_is_due(self) -> bool:
        """Whether the folder may be read again."""
        return time.monotonic() >= self._list_rests_until

    def take_rows(self, rows: list[RunRow], seconds: float) -> None:
        """Stores all rows; reading them took `seconds`."""
        self.rows = rows
        self._list_rests_until = time.monotonic() + REST * seconds

    def take_contents(self, folder: Path, contents: RunContents, seconds: float, complete: bool = True) -> None:
        """Stores the contents of a run; reading them took `seconds`."""
        self._contents.pop(folder, None)
        (self._previews.discard if complete else self._previews.add)(folder)
        self._contents[folder] = contents
        self._run_rests_until[folder] = time.monotonic() + REST * seconds
        while len(self._contents) > MOST_CONTENTS:
            oldest = next(iter(self._contents))
            del self._contents[oldest]

    def contents(self, row: RunRow) -> RunContents | None:
        """The contents of a run, None until they are read."""
        return self._contents.get(row.run.folder)

    def next_to_read(self, wanted: Sequence[RunRow]) -> RunRow | None:
        """The first of the runs that has not been read, or has changed since and may be read again."""
        now = time.monotonic()
        for row in wanted:
            known = self.contents(row)
            if known is None or row.run.folder in self._previews:
                return row
            if known.summary != row.summary and now >= self._run_rests_until.get(row.run.folder, 0.0):
                return row
        return None


# ---- reading in threads of the screen: at most one list and one run at a time


@dataclass
class Listed(Message):
    """The runs folder has been read."""

    rows: list[RunRow]
    seconds: float
    complete: bool = True
    """Whether all of the rows have been read."""


@dataclass
class ContentsRead(Message):
    """A run has been read."""

    folder: Path
    contents: RunContents
    seconds: float
    complete: bool = True
    """Whether all of the run has been read, not only a preview of a long one."""


class RunReader:
    """Posts `Listed` and `ContentsRead` to its screen, which calls `store` with them, or `worker_failed`."""

    def __init__(self, screen: Screen[Any]) -> None:
        self.library = RunLibrary()
        self.listing = RunListing()
        self._screen = screen
        self._busy: set[str] = set()
        self._left = threading.Event()
        """Set while the screen is not in front: no long run is read to its end then."""
        self._part_waits = False
        """Whether a part of the list has been posted that the screen has not shown yet."""

    @property
    def busy(self) -> bool:
        """Whether something is being read."""
        return bool(self._busy)

    def list_runs(self, here: Path | None) -> None:
        """Reads the folder; `here` is the run that this process trains."""
        self._left.clear()
        self._start("listing", partial(self._list, here))

    def read_first_of(self, wanted: Sequence[RunRow]) -> None:
        """Reads the first of the runs that has to be read."""
        row = self.library.next_to_read(wanted)
        if row is not None:
            self._start("reading", partial(self._read, row))

    def stop(self) -> None:
        """Leaves a long run half read, until the folder is read again: the next screen may read the same one."""
        self._left.set()

    def store(self, message: Listed | ContentsRead) -> None:
        """Stores what was read."""
        if isinstance(message, Listed):
            self._part_waits = False
            if message.complete:
                self._busy.discard("listing")
            self.library.take_rows(message.rows, message.seconds)
        else:
            if message.complete:
                self._busy.discard("reading")
            self.library.take_contents(message.folder, message.contents, message.seconds, message.complete)

    def worker_failed(self, worker: Worker[Any]) -> None:
        """Allows the next worker of a group whose worker has failed."""
        self._busy.discard(worker.group)

    def _start(self, group: str, work: Callable[[], None]) -> None:
        if group not in self._busy and self._screen.is_attached:
            self._busy.add(group)
            self._screen.run_worker(work, thread=True, group=group, exit_on_error=False)

    def _list(self, here: Path | None) -> None:
        started = time.monotonic()
        for rows, complete in self.listing.read_in_parts(here, PART_SECONDS):
            if complete or not self._part_waits:  # or parts would come faster than they are shown
                self._part_waits = not complete
                self._screen.post_message(Listed(rows, time.monotonic() - started, complete))

    def _read(self, row: RunRow) -> None:
        started = time.monotonic()
        if self.library.contents(row) is None and row.long:
            self._screen.post_message(ContentsRead(row.run.folder, read_contents(row, preview=True), 0.0, False))
            self._left.wait(PREVIEW_SECONDS)
        contents = read_contents(row, stopped=self._left.is_set)
        if row.long and self._left.is_set():
            self._busy.discard("reading")
            return
        self._screen.post_message(ContentsRead(row.run.folder, contents, time.monotonic() - started))


# ---- shell commands that repeat or resume a run


def repeat_command(run: Run) -> str:
    """The command that trains the same again, into a new folder.

    The run's frozen preset is named, not the presets of the first command line: those may have changed since, and a
    run that was started from a form was never on a command line. A time budget is already turned into iterations in it.
    """
    return shell_line(
        ["gpt2tui", "--headless", "--preset", str(run.preset_file), "--run-dir", str(_free_folder(run.folder))]
    )


def resume_command(run: Run) -> str:
    """The command that resumes the run from its newest valid checkpoint."""
    return shell_line(["gpt2tui", "--headless", "--resume", str(run.folder)])


def longer_command(row: RunRow) -> str:
    """The command that resumes a finished run for as many steps again."""
    return f"{resume_command(row.run)} --set training.num_iterations={2 * row.summary.step}"


def _free_folder(folder: Path) -> Path:
    """A name beside `folder` at which there is nothing yet."""
    for number in itertools.count(2):
        candidate = folder.with_name(f"{folder.name}-repeat{number if number > 2 else ''}")
        if not candidate.exists():
            return candidate
    raise AssertionError("there are infinitely many numbers")
