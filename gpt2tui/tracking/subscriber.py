"""Subscribers to the events of a run, and line output that survives a closed pipe or a full disk."""

import contextlib
import os
import sys
from collections.abc import Iterable
from typing import Protocol, TextIO

from gpt2tui.run.events import Event
from gpt2tui.system.terminal_text import Report, report_on_stderr


class Subscriber(Protocol):
    """Receives each event of a run; must return quickly, because training waits for it."""

    def handle(self, event: Event) -> None:
        """Receive one event."""

    def close(self) -> None:
        """No event will follow: release files, threads and the terminal. May be called twice."""


class Subscribers:
    """Passes each event to all; a subscriber that raises is removed with one line, so that it cannot end the run."""

    def __init__(self, subscribers: Iterable[Subscriber], report: Report = report_on_stderr) -> None:
        self._subscribers = list(subscribers)
        self._report = report

    def handle(self, event: Event) -> None:
        """Pass the event to each subscriber in order."""
        for subscriber in tuple(self._subscribers):
            try:
                subscriber.handle(event)
            except Exception as error:
                self._subscribers.remove(subscriber)
                self._report(f"{_describe(subscriber, error)}; the run continues without it")
                self._close(subscriber)

    def close(self) -> None:
        """Close each subscriber in order, even if one fails."""
        while self._subscribers:
            self._close(self._subscribers.pop(0))

    def _close(self, subscriber: Subscriber) -> None:
        try:
            subscriber.close()
        except Exception as error:
            self._report(f"{_describe(subscriber, error)} while closing")


def _describe(subscriber: Subscriber, error: Exception) -> str:
    return f"{type(subscriber).__name__} failed ({type(error).__name__}: {error})"


class LineOutput:
    """Writes and flushes lines until the stream fails, then no more.

    A closed pipe (`| head`) is not reported, any other failure once. The file descriptor then refers to the null
    device, because Python flushes stdout again on exit and would turn the same failure into exit code 120.
    """

    def __init__(self, file: TextIO, report: Report = report_on_stderr) -> None:
        self._file: TextIO | None = file
        self._report = report

    def write(self, line: str) -> None:
        """Write `line` and a newline."""
        if self._file is None:
            return
        try:
            self._file.write(line + "\n")
            self._file.flush()
        except OSError as error:
            if not isinstance(error, BrokenPipeError):
                self._report(f"cannot write the log: {error}; training continues without it")
            _redirect_to_null(self._file)
            self._file = None


def _redirect_to_null(file: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):  # not every stream has a descriptor
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, file.fileno())
        finally:
            os.close(null)


class JsonStdout:
    """A subscriber that writes each event as a line of JSON to stdout; a closed pipe does not end the run."""

    def __init__(self, file: TextIO | None = None, report: Report = report_on_stderr) -> None:
        self._output = LineOutput(file or sys.stdout, report)

    def handle(self, event: Event) -> None:
        """Write the event's line."""
        self._output.write(event.as_json())

    def close(self) -> None:
        """Nothing to release: stdout stays open."""
