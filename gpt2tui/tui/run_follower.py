"""A run of another process, read from its file in a thread as it grows."""

import threading
from collections import deque
from collections.abc import Callable
from functools import partial

from gpt2tui.run.events import Event
from gpt2tui.run.folder import Run
from gpt2tui.tui.run_facts import follow_run
from gpt2tui.tui.run_view import RunView


class RunFollower:
    """Follows one run at a time. All but the thread's body is for the screen's thread."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._told: deque[RunView | Event] = deque()

    def begin(self, run: Run) -> Callable[[], None]:
        """Leaves what was followed before; returns the body of the thread that is to follow this run."""
        self.end()
        self._stop, self._told = threading.Event(), deque()
        return partial(_follow, run, self._stop, self._told)

    def end(self) -> None:
        """Lets the thread come to its end."""
        self._stop.set()

    def drain(self) -> tuple[RunView | None, list[Event]]:
        """What the thread has told since the last time: once the run as it was found, then its new events."""
        told = [self._told.popleft() for _ in range(len(self._told))]
        found = next((item for item in told if isinstance(item, RunView)), None)
        return found, [item for item in told if isinstance(item, Event)]


def _follow(run: Run, stop: threading.Event, told: deque[RunView | Event]) -> None:
    for item in follow_run(run, stop):
        if stop.is_set():
            return
        told.append(item)
