"""A run as text: a live line at the bottom of a terminal, or plain lines anywhere else."""

import io
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TextIO

from rich.console import Console as RichConsole
from rich.console import ConsoleOptions, RenderResult
from rich.live import Live
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
from gpt2tui.system.terminal_text import Report, report_on_stderr
from gpt2tui.tracking import narration
from gpt2tui.tracking.line_output import LineOutput
from gpt2tui.tracking.run_progress import RunProgress
from gpt2tui.tracking.status_line import status_lines

_REFRESHES_PER_SECOND = 4


def is_live_terminal(file: TextIO) -> bool:
    """Whether lines on `file` can be redrawn: a terminal, and not one that calls itself dumb."""
    return file.isatty() and not RichConsole(file=file).is_dumb_terminal


def tolerate_encoding(file: TextIO) -> bool:
    """Whether `file` takes every character; if not, those that it lacks come out as "?" from now on."""
    if isinstance(file, io.TextIOWrapper):
        file.reconfigure(errors="replace")
    return (getattr(file, "encoding", None) or "utf-8").lower().startswith("utf")


class Console:
    """The subscriber that a person reads. Events that last become lines; the rest moves a status line.

    `live` (by default: if `file` is a terminal) redraws the status from a thread; without it there are no
    control sequences at all, and steps become lines, at first one a second, later one every hundredth of the
    time gone. NO_COLOR and COLUMNS are honoured. `vocab_size` explains the loss at the start, `run_folder`
    tells at the end what to do next.
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
            terminal = RichConsole(
                file=file, force_terminal=True, width=width, markup=False, emoji=False, highlight=False
            )
            self._live = Live(
                _Status(self),
                console=terminal,
                refresh_per_second=_REFRESHES_PER_SECOND,
                transient=True,
                # A stream that was sent elsewhere, to a file say, keeps going there.
                redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),
                redirect_stderr=sys.stderr is not None and sys.stderr.isatty(),
            )

    def handle(self, event: Event) -> None:
        """Print what lasts and take note of the rest."""
        before, self._progress = self._progress, self._progress.after(event)
        self._first_event = event.time if self._first_event is None else self._first_event
        match event:
            case RunStarted():
                self._print(narration.run_started(event, self._vocab_size))
                if self._live is not None:
                    self._live.start()
            case Step():
                self._step(event)
            case Evaluated():
                self._print([narration.evaluated(event, before)])
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
        """Take the status line away and give the cursor back."""
        if self._live is not None:
            self._live.stop()

    def status(self, width: int) -> Text:
        """The two status lines as they are now."""
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
    """What the live display draws, at the width that the terminal has at that moment."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> RenderResult:
        yield self._console.status(options.max_width)
