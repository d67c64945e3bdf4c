"""While the screen is up the terminal belongs to it: whatever else would write there goes to a log file."""

import contextlib
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
    """Where the workbench writes what went wrong."""
    return cache_folder() / "workbench.log"


class _HarmlessFormatter(logging.Formatter):
    """Names and messages that are not ours go into the log too, and a log is printed to a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return sanitize(super().format(record))


@contextlib.contextmanager
def terminal_for_the_screen() -> Iterator[None]:
    """Sends file descriptors 1 and 2 to the log: C libraries, child processes and Python's logging write there.

    The screen keeps the terminal through `sys.__stdout__` and `sys.__stderr__`, which Textual draws on. Everything is
    as before at the end. Without a place for the log it all goes nowhere.
    """
    before = sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__
    descriptors = os.dup(1), os.dup(2)
    sys.stdout.flush()
    sys.stderr.flush()
    log = _open_log()
    out, err, log_text = (
        os.fdopen(descriptor, "w", encoding="utf-8", errors="replace", closefd=False)
        for descriptor in (*descriptors, log)
    )
    handler = logging.StreamHandler(log_text)
    handler.setFormatter(_HarmlessFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
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


# ---- the last border before the terminal: whatever a widget has drawn, no control character leaves the screen


class ControlFilter(LineFilter):
    """Drops control characters from every line that is drawn.

    Each widget already shows text that is not ours through `sanitize`, which leaves a sign where something was. This
    is for the one that forgets to, and for those of Textual: an input shows whatever it is given.
    """

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The line, unchanged where there is nothing to drop, which is nearly always."""
        if all(text.isprintable() for text, _, _ in segments):
            return segments
        return [Segment(drop_controls(text), style, control) for text, style, control in segments]
