"""The runs of a sweep as one row of the table, which opens to show them, and their colours and order."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from gpt2tui.run.folder import Run
from gpt2tui.run.state import ACTIVE, RunState
from gpt2tui.run.summary import RunSummary
from gpt2tui.run.sweep_folder import planned_runs
from gpt2tui.tui.runs.library import RunRow

MOST_DRAWN = 16
"""The curves of a sweep that are drawn over each other: those of its best runs."""
_STATES: tuple[RunState, ...] = (
    "training", "evaluating", "saving", "paused", "preparing", "loading", "failed", "crashed", "unknown", "empty",
    "stopped", "finished",
)  # fmt: skip
"""The state of a sweep is the first of these that one of its runs has."""


@dataclass(frozen=True)
class SweepRow(RunRow):
    """All runs of a sweep that are listed; its settings are those that the runs have in common."""

    runs: tuple[RunRow, ...] = ()
    planned: int = 0
    """How many runs the sweep is of, those included that have not begun."""
    open: bool = False
    """Whether its runs are listed below it."""

    @cached_property
    def name(self) -> str:
        """The sweep's name."""
        return self.run.folder.name

    @property
    def best_first(self) -> list[RunRow]:
        """Its runs, those without an evaluation last."""
        return sorted(self.runs, key=lambda row: (row.summary.best_val_loss is None, row.summary.best_val_loss or 0))


def in_sweeps(rows: Iterable[RunRow], opened: Collection[str]) -> list[RunRow]:
    """The runs by themselves, and one row for the runs of each sweep; `opened` are the names of the open sweeps."""
    alone, sweeps = [], dict[str, list[RunRow]]()
    for row in rows:
        if row.sweep:
            sweeps.setdefault(row.sweep, []).append(row)
        else:
            alone.append(row)
    return alone + [_sweep_row(runs, name in opened) for name, runs in sweeps.items()]


def unfolded(rows: Sequence[RunRow]) -> list[RunRow]:
    """The rows with the runs of open sweeps below these."""
    return [
        row for each in rows for row in ((each, *each.runs) if isinstance(each, SweepRow) and each.open else (each,))
    ]


def runs_of(rows: Iterable[RunRow]) -> list[RunRow]:
    """The rows with a sweep's runs in its place, each once."""
    found = [row for each in rows for row in (each.runs if isinstance(each, SweepRow) else (each,))]
    return list({row.name: row for row in found}.values())


def _sweep_row(runs: Sequence[RunRow], is_open: bool) -> SweepRow:
    summaries = [row.summary for row in runs]
    best = min(summaries, key=lambda s: (s.best_val_loss is None, s.best_val_loss or 0))
    states = {summary.state for summary in summaries}
    folder = runs[0].run.folder.parent
    planned = planned_runs(folder)
    summary = RunSummary(
        name=folder.name,
        folder=str(folder),
        state="stopped" if states == {"finished"} and planned > len(runs) else next(s for s in _STATES if s in states),
        preset=_common([s.preset for s in summaries]),
        started=min((s.started for s in summaries if s.started is not None), default=None),
        seconds=_sum([s.seconds for s in summaries]),
        step=sum(s.step for s in summaries),
        num_iterations=_sum([s.num_iterations for s in summaries]),
        parameters=_common([s.parameters for s in summaries]),
        tokens_seen=_sum([s.tokens_seen for s in summaries]),
        best_val_loss=best.best_val_loss,
        bits_per_byte=best.bits_per_byte,
        xz_bits_per_byte=best.xz_bits_per_byte,
        checkpoints=sum(s.checkpoints for s in summaries),
        bytes=sum(s.bytes for s in summaries),
    )
    first, *others = [row.settings for row in runs]
    settings = {key: value for key, value in first.items() if all(key in s and s[key] == value for s in others)}
    # A sweep is elsewhere when all of its runs that are being trained are.
    here = any(row.here for row in runs if row.state in ACTIVE)
    return SweepRow(Run(folder), summary, here, settings, runs=tuple(runs), planned=planned, open=is_open)


def _common(values: Sequence[Any]) -> Any:
    return values[0] if all(value == values[0] for value in values) else None


def _sum(values: Sequence[Any]) -> Any:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
