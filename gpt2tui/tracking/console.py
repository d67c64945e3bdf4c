"""A run as text: log lines with a live status at the bottom of a terminal, or plain lines elsewhere."""

import io
import sys
import time
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeVar

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from gpt2tui.run.events import (
    CheckpointSaved,
    Evaluated,
    Event,
    LearningRateChanged,
    NumIterationsChanged,
    Paused,
    Resumed,
    RunFailed,
    RunFinished,
    RunStarted,
    Sampled,
    Step,
    Warned,
)
from gpt2tui.system.numbers import byte_size, compact, duration, percent
from gpt2tui.system.styled_output import StyledConsole
from gpt2tui.system.terminal_text import Report, guard_streams, report_on_stderr, sanitize, unguarded
from gpt2tui.tracking import narration
from gpt2tui.tracking.run_progress import RunProgress
from gpt2tui.tracking.subscriber import LineOutput

if TYPE_CHECKING:
    from gpt2tui.data.store_building import StageProgress

_REFRESHES_PER_SECOND = 4


def is_live_terminal(file: TextIO) -> bool:
    """Whether lines on `file` can be redrawn: a terminal, and not one that calls itself dumb."""
    return file.isatty() and not StyledConsole(file).is_dumb_terminal


def tolerate_encoding(file: TextIO) -> bool:
    """Whether `file` is Unicode; characters that its encoding lacks are written as "?" from now on."""
    stream = unguarded(file)
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace")
    return (getattr(file, "encoding", None) or "utf-8").lower().startswith("utf")


class Console:
    """The subscriber for the terminal: prints events as lines, and steps in a status at the bottom.

    `live` (by default: if `file` is a terminal) redraws the status from a thread; without it there are no control
    sequences, and steps become lines too, at most one per second and per hundredth of the elapsed time. NO_COLOR and
    COLUMNS are honoured. `vocab_size` serves to explain the loss at the start, `run_folder` to suggest the next command
    at the end.
    """

    def __init__(
        self,
        file: TextIO | None = None,
        *,
        live: bool | None = None,
        width: int | None = None,
        vocab_size: int | None = None,
        run_folder: Path | None = None,
        report: Report = report_on_stderr,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        file = file or sys.stdout
        self._unicode = tolerate_encoding(file)
        self._vocab_size = vocab_size
        self._run_folder = run_folder
        self._clock = clock
        self._started = clock()
        self._progress = RunProgress()
        self._next_step_line = 0.0
        self._first_event: float | None = None
        self._output = LineOutput(file, report)
        self._live: Live | None = None
        if is_live_terminal(file) if live is None else live:
            terminal = StyledConsole(file, force_terminal=True, width=width, highlight=False)
            self._live = Live(
                _Status(self),
                console=terminal,
                refresh_per_second=_REFRESHES_PER_SECOND,
                transient=True,
                # A stream that is redirected, to a file for example, stays so.
                redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
                redirect_stderr=sys.stderr is not None and sys.stderr.isatty(),
            )

    def handle(self, event: Event) -> None:
        """Print the event, or show it in the status."""
        before, self._progress = self._progress, self._progress.after(event)
        self._first_event = event.time if self._first_event is None else self._first_event
        match event:
            case RunStarted():
                self._print(narration.run_started(event, self._vocab_size))
                if self._live is not None:
                    self._live.start()
                    guard_streams()  # of rich's stand-ins, which obey the colours in what is printed meanwhile
            case Step():
                self._step(event)
            case Evaluated():
                self._print([narration.evaluated(event, before)])
                if self._live is None and not event.whole and event.step == self._progress.num_iterations:
                    self._print([narration.evaluating_all(event.step)])  # which may take minutes
            case Sampled():
                self._print(narration.sampled(event, self._unicode, self._wrap if self._live else None))
            case CheckpointSaved():
                self._print([narration.checkpoint_saved(event)])
            case Warned():
                self._print([narration.warning(event.message)])
            case Paused():
                self._print([narration.paused(event.step)])
            case Resumed():
                self._print([narration.resumed(event.step)])
            case LearningRateChanged():
                self._print([narration.learning_rate_changed(event)])
            case NumIterationsChanged():
                self._print([narration.num_iterations_changed(event)])
            case RunFinished():
                self.close()
                self._print(narration.run_finished(event, self._progress, self._run_folder))
            case RunFailed():
                self.close()
                self._print([narration.run_failed(event)])

    def close(self) -> None:
        """Remove the status lines and show the cursor again."""
        if self._live is not None:
            self._live.stop()

    def status(self, width: int) -> Text:
        """The current two status lines."""
        return status_lines(self._progress, width, self._clock() - self._started, self._unicode)

    def _step(self, event: Step) -> None:
        if self._live is not None or self._first_event is None or event.time < self._next_step_line:
            return
        self._next_step_line = event.time + max(1.0, (event.time - self._first_event) / 100)
        self._print([narration.step(event, self._progress)])

    def _print(self, lines: Iterable[Text]) -> None:
        for line in lines:
            if self._live is not None:
                self._live.console.print(line)
            else:
                self._output.write(line.plain.rstrip())

    def _wrap(self, line: Text) -> Iterable[Text]:
        assert self._live is not None
        console = self._live.console
        return line.wrap(console, max(1, console.width - 2))


class _Status:
    """The renderable of the live display, at the current width of the terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        yield self._console.status(options.max_width)


# ---- the status lines

_SHORTEST_BAR = 6
_GAP = "   "


def status_lines(progress: RunProgress, width: int, elapsed_seconds: float, unicode: bool = True) -> Text:
    """Progress and metrics, on two lines of at most `width` cells; narrow ones lack the bar and the last numbers."""
    text = Text(no_wrap=True, overflow="crop", end="")
    text.append_text(_progress_line(progress, width, elapsed_seconds, unicode))
    text.append("\n")
    text.append_text(_metrics_line(progress, width))
    return text


def bar(fraction: float, width: int, unicode: bool = True, style: str = "green") -> Text:
    """A bar of exactly `width` cells, whose two parts differ in shape as well as in colour."""
    full, half, empty = ("━", "╸", "─") if unicode else ("=", "", "-")
    halves = round(fraction * width * 2)
    done = full * (halves // 2) + (half if halves % 2 else "")
    return Text.assemble((done, style), (empty * (width - len(done)), "bright_black"))


def _progress_line(progress: RunProgress, width: int, elapsed_seconds: float, unicode: bool) -> Text:
    left = Text.assemble("step ", (f"{progress.step:,}", "bold"), f" of {progress.num_iterations:,} ")
    right = Text.assemble(f" {percent(progress.fraction):>4}  ", _time(progress, elapsed_seconds))
    space = width - left.cell_len - right.cell_len
    style = "yellow" if progress.paused else "green"
    middle = bar(progress.fraction, space, unicode, style) if space >= _SHORTEST_BAR else Text(" " * max(0, space))
    return _fit([left + middle + right], width, "") if space >= 0 else _fit([left.copy(), right], width, "")


def _time(progress: RunProgress, elapsed_seconds: float) -> tuple[str, str]:
    if progress.paused:
        return "paused", "bold yellow"
    if 0 < progress.num_iterations <= progress.step:
        return narration.EVALUATING_ALL, ""
    if progress.seconds_left is None:
        return f"{duration(elapsed_seconds)} so far", ""
    return f"{duration(progress.seconds_left)} left", ""


def _metrics_line(progress: RunProgress, width: int) -> Text:
    loss = progress.train_loss.value
    if loss is None:
        return _fit([Text("waiting for the first step", style="bright_black")], width, _GAP)
    parts = [Text.assemble("loss ", (f"{loss:.3f}", "bold cyan"))]
    if progress.evaluation is not None:
        bits = progress.evaluation.bits_per_byte
        figures = [xz for xz in (progress.xz_bits_per_byte, progress.xz_after_training_bits_per_byte) if xz]
        parts.append(Text.assemble((f"{bits:.3f}", "bold magenta"), " bits/byte"))
        if figures:
            parts.append(Text(f"{'/'.join(f'{bits / xz:.2f}' for xz in figures)} of xz"))
    if progress.tokens_per_second is not None:
        parts.append(Text.assemble((compact(progress.tokens_per_second), "bold"), " tokens/s"))
    if progress.memory_bytes is not None:
        parts.append(Text.assemble((byte_size(progress.memory_bytes), "bold"), " memory"))
    return _fit(parts, width, _GAP)


def _fit(parts: list[Text], width: int, gap: str) -> Text:
    """As many of the parts as fit on one line; the first one may be truncated."""
    line = parts[0].copy()
    for part in parts[1:]:
        if line.cell_len + len(gap) + part.cell_len > width:
            break
        line = line + Text(gap) + part
    line.truncate(width)
    return line


# ---- data preparation: a progress bar for each stage on a terminal, one line elsewhere

_BAR_WIDTH = 24
_STAGE_WIDTH = 20

Prepared = TypeVar("Prepared")


def show_preparation(preparation: "Generator[StageProgress, None, Prepared]", file: TextIO | None = None) -> Prepared:
    """Run `preparation` to its end, show its progress on `file` (stderr), and return its result.

    Its errors pass through; the terminal is restored first.
    """
    file = file or sys.stderr
    tolerate_encoding(file)
    return _draw(preparation, file) if is_live_terminal(file) else _print_stages(preparation, file)


def _print_stages(preparation: "Generator[StageProgress, None, Prepared]", file: TextIO) -> Prepared:
    output = LineOutput(file)
    printed: set[str] = set()
    while True:
        try:
            progress = next(preparation)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        if progress.stage not in printed:
            printed.add(progress.stage)
            total = "" if progress.total is None else f": {_amount(progress.total, progress.unit)}"
            output.write(f"{sanitize(progress.stage, keep_newlines=False)}{total}")


def _draw(preparation: "Generator[StageProgress, None, Prepared]", file: TextIO) -> Prepared:
    console = StyledConsole(file, force_terminal=True, highlight=False)
    stage, amount = (TextColumn(f"{{task.{part}}}", markup=False) for part in ("description", "fields[amount]"))
    with Bars(stage, BarColumn(_BAR_WIDTH), amount, console=console, redirect_stdout=False) as bars:
        guard_streams()
        tasks: dict[str, TaskID] = {}
        while True:
            try:
                progress = next(preparation)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            if progress.stage not in tasks:
                for earlier in bars.tasks:
                    if earlier.total is None:  # finished without a known total: a full bar instead of a moving one
                        bars.update(earlier.id, total=earlier.completed)
                name = sanitize(progress.stage, keep_newlines=False)
                tasks[progress.stage] = bars.add_task(f"{name:<{_STAGE_WIDTH}}", total=None, amount="")
            bars.update(
                tasks[progress.stage], completed=progress.done, total=progress.total, amount=_amount_done(progress)
            )


def _amount_done(progress: "StageProgress") -> str:
    if progress.total is None:
        return _amount(progress.done, progress.unit) if progress.done else ""
    fraction = min(1.0, progress.done / progress.total) if progress.total else 1.0
    return f"{percent(fraction):>4} of {_amount(progress.total, progress.unit)}"


def _amount(count: int, unit: str) -> str:
    if unit in ("B", "byte", "bytes"):
        return byte_size(count)
    return f"{compact(count)} {sanitize(unit, keep_newlines=False)}"
