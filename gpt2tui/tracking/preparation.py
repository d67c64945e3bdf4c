"""The preparation of data as it goes on: a bar a stage on a terminal, one line a stage anywhere else."""

import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, TextIO, TypeVar

from rich.console import Console as RichConsole
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

from gpt2tui.system.numbers import byte_size, compact
from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tracking.console import is_live_terminal, tolerate_encoding

if TYPE_CHECKING:
    from gpt2tui.data.store_building import Progress

_BAR_WIDTH = 24
_STAGE_WIDTH = 20


Prepared = TypeVar("Prepared")


def show_preparation(preparation: "Generator[Progress, None, Prepared]", file: TextIO | None = None) -> Prepared:
    """Run `preparation` to its end, drawing what it yields on `file` (stderr), and return what it returns.

    What it raises passes through, with the terminal as it was.
    """
    file = file or sys.stderr
    tolerate_encoding(file)
    return _draw(preparation, file) if is_live_terminal(file) else _tell(preparation, file)


def _tell(preparation: "Generator[Progress, None, Prepared]", file: TextIO) -> Prepared:
    told: set[str] = set()
    while True:
        try:
            progress = next(preparation)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        if progress.stage not in told:
            told.add(progress.stage)
            total = "" if progress.total is None else f": {_amount(progress.total, progress.unit)}"
            print(f"{sanitize(progress.stage, keep_newlines=False)}{total}", file=file, flush=True)


def _draw(preparation: "Generator[Progress, None, Prepared]", file: TextIO) -> Prepared:
    console = RichConsole(file=file, force_terminal=True, markup=False, emoji=False, highlight=False)
    stage, how_far = (TextColumn(f"{{task.{part}}}", markup=False) for part in ("description", "fields[how_far]"))
    with Bars(stage, BarColumn(_BAR_WIDTH), how_far, console=console, redirect_stdout=False) as bars:
        tasks: dict[str, TaskID] = {}
        while True:
            try:
                progress = next(preparation)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            if progress.stage not in tasks:
                for earlier in bars.tasks:
                    if earlier.total is None:  # it was not known, and is over: a full bar, not one that still moves
                        bars.update(earlier.id, total=earlier.completed)
                name = sanitize(progress.stage, keep_newlines=False)
                tasks[progress.stage] = bars.add_task(f"{name:<{_STAGE_WIDTH}}", total=None, how_far="")
            bars.update(
                tasks[progress.stage], completed=progress.done, total=progress.total, how_far=_how_far(progress)
            )


def _how_far(progress: "Progress") -> str:
    if progress.total is None:
        return _amount(progress.done, progress.unit) if progress.done else ""
    fraction = min(1.0, progress.done / progress.total) if progress.total else 1.0
    return f"{fraction:4.0%} of {_amount(progress.total, progress.unit)}"


def _amount(count: int, unit: str) -> str:
    if unit in ("B", "byte", "bytes"):
        return byte_size(count)
    return f"{compact(count)} {sanitize(unit, keep_newlines=False)}"
