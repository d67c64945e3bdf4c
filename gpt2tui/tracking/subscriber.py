"""Whoever watches a run: an object that is handed each event and closed at the end."""

from collections.abc import Iterable
from typing import Protocol

from gpt2tui.run.events import Event
from gpt2tui.system.terminal_text import Report, report_on_stderr


class Subscriber(Protocol):
    """Reads the stream of events; must return quickly, because training waits for it."""

    def handle(self, event: Event) -> None:
        """Take note of one event."""

    def close(self) -> None:
        """No event will follow: let go of files, threads and the terminal. May be called twice."""


class Subscribers:
    """Hands each event to all; one that raises is dropped with one line, so that it cannot stop the run."""

    def __init__(self, subscribers: Iterable[Subscriber], report: Report = report_on_stderr) -> None:
        self._subscribers = list(subscribers)
        self._report = report

    def handle(self, event: Event) -> None:
        """Hand the event to each subscriber in order."""
        for subscriber in tuple(self._subscribers):
            try:
                subscriber.handle(event)
            except Exception as error:
                self._subscribers.remove(subscriber)
                self._report(f"{_describe(subscriber, error)}; the run goes on without it")
                self._close(subscriber)

    def close(self) -> None:
        """Close each subscriber in order; one that fails does not keep the others open."""
        while self._subscribers:
            self._close(self._subscribers.pop(0))

    def _close(self, subscriber: Subscriber) -> None:
        try:
            subscriber.close()
        except Exception as error:
            self._report(f"{_describe(subscriber, error)} while closing")


def _describe(subscriber: Subscriber, error: Exception) -> str:
    return f"{type(subscriber).__name__} failed ({type(error).__name__}: {error})"
