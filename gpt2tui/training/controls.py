"""Requests to a running training: set from any thread or signal handler, obeyed by the loop between two steps."""

import threading
from collections import deque
from typing import Literal

Request = Literal["checkpoint", "evaluate", "sample"]


class Controls:
    """Pause, resume, stop, and one-time requests. Setting one never blocks and is safe in a signal handler."""

    def __init__(self) -> None:
        self._stop = False
        self._paused = False
        self._wake = threading.Event()
        self._requests: deque[Request] = deque()

    def stop(self) -> None:
        """Finish the step, save a checkpoint, end."""
        self._stop = True
        self._wake.set()

    def pause(self) -> None:
        """Wait after the step until `resume` or `stop`."""
        self._wake.clear()
        self._paused = True

    def resume(self) -> None:
        """Go on after a pause."""
        self._paused = False
        self._wake.set()

    def request(self, what: Request) -> None:
        """Save, evaluate or sample once, after the step, also while paused."""
        self._requests.append(what)
        self._wake.set()

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for."""
        return self._stop

    @property
    def paused(self) -> bool:
        """Whether the loop should wait."""
        return self._paused and not self._stop

    def next_request(self) -> Request | None:
        """The oldest request not yet obeyed."""
        return self._requests.popleft() if self._requests else None

    def wait(self, timeout: float) -> None:
        """While paused: sleep until something changes, at most `timeout` seconds."""
        self._wake.wait(timeout)
        if self._paused:
            self._wake.clear()
