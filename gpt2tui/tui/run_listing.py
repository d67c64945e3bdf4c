"""The runs folder as rows for a table: read again only where something on disk has changed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gpt2tui.run import folder as runs
from gpt2tui.run.folder import Run
from gpt2tui.run.summary import RunSummary, summarize

RowState = Literal["running here", "running elsewhere", "finished", "stopped", "failed", "crashed", "empty"]
Signature = tuple[object, ...]


@dataclass(frozen=True)
class RunRow:
    """A run as the list shows it; `state` says which program, if any, trains it now."""

    run: Run
    summary: RunSummary
    state: RowState

    @property
    def name(self) -> str:
        """The folder's name in the runs folder, unique there; `Run.name` of a link is the name of where it leads."""
        return self.run.folder.name

    @property
    def running(self) -> bool:
        """Whether some process trains it now."""
        return self.state in ("running here", "running elsewhere")

    @property
    def has_done_all_steps(self) -> bool:
        """Whether it is over because there is nothing left of its preset."""
        total = self.summary.num_iterations
        return self.state == "finished" and total is not None and self.summary.step >= total


class RunListing:
    """All runs in the runs folder; remembers what it has read, so that only runs that change are read again.

    Not for two threads at once.
    """

    def __init__(self) -> None:
        self._known: dict[Path, tuple[Signature, RunSummary]] = {}

    def read(self, here: Path | None = None) -> list[RunRow]:
        """A row for each run; `here` is the folder of the run that this program trains. Raises nothing."""
        known, rows = self._known, []
        self._known = {}
        for run in runs.all_runs():
            signature = _signature(run)
            before = known.get(run.folder)
            summary = before[1] if before and before[0] == signature else summarize(run)
            self._known[run.folder] = signature, summary
            rows.append(RunRow(run, summary, _state(summary, run, here)))
        return rows


def _signature(run: Run) -> Signature:
    """Equal as long as the summary would come out the same."""
    return (
        runs.is_locked(run),
        *_stamp(run.events_file),
        *_stamp(run.info_file),
        *_stamp(run.checkpoints),
    )


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return (status.st_size, status.st_mtime_ns)


def _state(summary: RunSummary, run: Run, here: Path | None) -> RowState:
    if summary.state != "running":
        return summary.state
    return "running here" if here is not None and run.folder.resolve() == here.resolve() else "running elsewhere"
