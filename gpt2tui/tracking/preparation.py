"""The preparation of data as it goes on: a bar a stage on a terminal, one line a stage anywhere else."""

import sys
from collections.abc import Generator
from typing import TYPE_CHECKING, TextIO, TypeVar

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from gpt2tui.terminal_text import sanitize
from gpt2tui.tracking.console import is_live_terminal, tolerate_encoding
from gpt2tui.tracking.number_format import byte_size, compact
from gpt2tui.tracking.status_line import bar

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
    unicode = tolerate_encoding(file)
    return _draw(preparation, file, unicode) if is_live_terminal(file) else _tell(preparation, file)


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


def _draw(preparation: "Generator[Progress, None, Prepared]", file: TextIO, unicode: bool) -> Prepared:
    stages: dict[str, Progress] = {}
    console = RichConsole(file=file, force_terminal=True, markup=False, emoji=False, highlight=False)
    with Live(_Stages(stages, unicode), console=console, refresh_per_second=10, redirect_stdout=False):
        while True:
            try:
                progress = next(preparation)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            stages[progress.stage] = progress


class _Stages:
    """A line for each stage so far."""

    def __init__(self, stages: "dict[str, Progress]", unicode: bool) -> None:
        self._stages = stages
        self._unicode = unicode

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        for progress in tuple(self._stages.values()):
            yield stage_line(progress, options.max_width, self._unicode)


def stage_line(progress: "Progress", width: int, unicode: bool = True) -> Text:
    """`stage ━━━━╸──── 41% of 10.5 MB`, cut to `width` cells; without a total, how much so far."""
    name = sanitize(progress.stage, keep_newlines=False)
    line = Text(f"{name:<{_STAGE_WIDTH}} ", no_wrap=True, overflow="crop")
    if progress.total is None:
        line.append(_amount(progress.done, progress.unit) if progress.done else "")
    else:
        fraction = min(1.0, progress.done / progress.total) if progress.total else 1.0
        line.append_text(bar(fraction, min(_BAR_WIDTH, max(0, width - 40)), unicode))
        line.append(f" {fraction:4.0%} of {_amount(progress.total, progress.unit)}")
    line.truncate(width)
    return line


def _amount(count: int, unit: str) -> str:
    if unit in ("B", "byte", "bytes"):
        return byte_size(count)
    return f"{compact(count)} {sanitize(unit, keep_newlines=False)}"
