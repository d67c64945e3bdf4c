"""While the workbench is open, only the screen writes to the terminal: all other output goes to a log file."""

import contextlib
import io
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from gpt2tui.system.files import cache_folder
from gpt2tui.system.terminal_text import drop_controls, sanitize

LARGEST_BYTES = 2**20


def log_file() -> Path:
    """The log of the workbench."""
    return cache_folder() / "workbench.log"


class _SanitizingFormatter(logging.Formatter):
    """Removes control characters: the log holds text from outside and may be printed to a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return sanitize(super().format(record))


@contextlib.contextmanager
def terminal_for_the_screen() -> Iterator[None]:
    """Redirects file descriptors 1 and 2, where C libraries and child processes write, and Python's logging to the log.

    Textual draws on `sys.__stdout__` and `sys.__stderr__`, which keep the terminal. All is restored at the end. When
    the log cannot be opened, the output is discarded.
    """
    before = sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__
    descriptors = os.dup(1), os.dup(2)
    sys.stdout.flush()
    sys.stderr.flush()
    log = _open_log()
    out, err = (
        _Terminal(io.FileIO(descriptor, "w", closefd=False), encoding="utf-8", errors="replace")
        for descriptor in descriptors
    )
    log_text = os.fdopen(log, "w", encoding="utf-8", errors="replace", closefd=False)
    handler = logging.StreamHandler(log_text)
    handler.setFormatter(_SanitizingFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.__stdout__, sys.__stderr__ = out, err  # type: ignore[misc]
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__ = before  # type: ignore[misc]
        for file in (log_text, out, err):
            with contextlib.suppress(OSError, ValueError):  # a terminal that is gone, a disk that is full
                file.close()
        os.dup2(descriptors[0], 1)
        os.dup2(descriptors[1], 2)
        for descriptor in (*descriptors, log):
            os.close(descriptor)


class _Terminal(io.TextIOWrapper):
    """A terminal that may close: from then on what is written is lost, without an error in the thread that draws."""

    def __init__(self, raw: io.FileIO, **options: str) -> None:
        super().__init__(io.BufferedWriter(raw), **options)  # type: ignore[arg-type]

    def write(self, text: str) -> int:
        """Writes the text, or drops it."""
        with contextlib.suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        """Sends what was written, or drops it."""
        with contextlib.suppress(OSError):
            super().flush()


def _open_log() -> int:
    path = log_file()
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > LARGEST_BYTES:
            path.replace(path.with_suffix(".old.log"))
        return os.open(path, flags, 0o644)
    except OSError:
        return os.open(os.devnull, os.O_WRONLY)


# ---- the last check before the terminal


class ControlFilter(LineFilter):
    """Drops control characters from every line that is drawn.

    Our widgets already pass text from outside through `sanitize`, which leaves a visible sign for each. This catches
    what they miss, and Textual's own widgets: an input shows whatever it is given.
    """

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The line without control characters."""
        if all(text.isprintable() for text, _, _ in segments):
            return segments
        return [Segment(drop_controls(text), style, control) for text, style, control in segments]
