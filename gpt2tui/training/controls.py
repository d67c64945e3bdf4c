"""Requests to a running training: set from any thread or signal handler, obeyed by the loop between two steps."""

import threading
from collections import deque
from concurrent.futures import Future
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from gpt2tui.generation import TextModel

Request = Literal["checkpoint", "evaluate", "sample"]


class Controls:
    """Pause, resume, stop, and one-time requests. Setting one never blocks and is safe in a signal handler."""

    def __init__(self) -> None:
        self._stop = False
        self._paused = False
        self._wake = threading.Event()
        self._requests: deque[Request] = deque()
        self._copies: deque[Future[TextModel]] = deque()
        self._learning_rate_factor: float | None = None
        self._ended = False

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

    def copy_weights(self) -> "Future[TextModel]":
        """Asks for the network as it is after the step, also while paused: an eager copy that training leaves alone.

        It lies on the training's device. The future is cancelled when the training ends before it is served.
        """
        copy: Future[TextModel] = Future()
        self._copies.append(copy)
        if self._ended:
            self._cancel_copies()
        self._wake.set()
        return copy

    def change_learning_rate(self, factor: float) -> None:
        """From the next step on, train at `factor` times what the preset's schedule says (1 is the preset's own)."""
        self._learning_rate_factor = factor
        self._wake.set()

    def end(self) -> None:
        """The training is over: who still waits for weights is told."""
        self._ended = True
        self._cancel_copies()

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

    def next_copy(self) -> "Future[TextModel] | None":
        """The oldest request for the weights that is still wanted."""
        while self._copies:
            copy = self._copies.popleft()
            if copy.set_running_or_notify_cancel():
                return copy
        return None

    def next_learning_rate_factor(self) -> float | None:
        """The last change of the learning rate not yet obeyed."""
        factor, self._learning_rate_factor = self._learning_rate_factor, None
        return factor

    def _cancel_copies(self) -> None:
        while self._copies:
            self._copies.popleft().cancel()

    def wait(self, timeout: float) -> None:
        """While paused: sleep until something changes, at most `timeout` seconds."""
        self._wake.wait(timeout)
        if self._paused:
            self._wake.clear()
