"""Requests to a running training: set from any thread or signal handler, obeyed by the loop between two steps."""

import contextlib
import queue
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from gpt2tui.generation import TextModel

Request = Literal["checkpoint", "evaluate", "sample"]
T = TypeVar("T")


@dataclass(frozen=True)
class Decision:
    """What is to be done between two steps: plain values, which another process can be sent."""

    stop: bool
    pause: bool
    requests: tuple[Request, ...]
    """In the order in which they were made."""
    learning_rate_factor: float | None
    """The last change, None without one."""
    copy_weights: bool
    """Whether somebody waits for a copy of the weights: see `Controls.next_copy`."""

    @property
    def has_work(self) -> bool:
        """Whether anything but stopping and pausing was asked for."""
        return bool(self.requests) or self.copy_weights or self.learning_rate_factor is not None


class Controls:
    """Pause, resume, stop, and one-time requests. Setting one never blocks and is safe in a signal handler.

    What is set while `decide` reads belongs to that decision or to the next one: deques lose nothing between threads,
    and a lock could not be taken in a signal handler.
    """

    def __init__(self) -> None:
        self._stop = False
        self._paused = False
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._requests: deque[Request] = deque()
        self._copies: deque[Future[TextModel]] = deque()
        self._factors: deque[float] = deque()
        self._ended = False

    def stop(self) -> None:
        """Finish the step, save a checkpoint, end."""
        self._stop = True
        self._wake.put(None)

    def pause(self) -> None:
        """Wait after the step until `resume` or `stop`."""
        self._paused = True

    def resume(self) -> None:
        """Go on after a pause."""
        self._paused = False
        self._wake.put(None)

    def request(self, what: Request) -> None:
        """Save, evaluate or sample once, after the step, also while paused."""
        self._requests.append(what)
        self._wake.put(None)

    def copy_weights(self) -> "Future[TextModel]":
        """Asks for the network as it is after the step, also while paused: an eager copy that training leaves alone.

        It lies on the training's device, or on the CPU where that has no room; without any room the future gets a
        ResourceError. It is cancelled when the training ends before it is served.
        """
        copy: Future[TextModel] = Future()
        self._copies.append(copy)
        if self._ended:
            self._cancel_copies()
        self._wake.put(None)
        return copy

    def change_learning_rate(self, factor: float) -> None:
        """From the next step on, train at `factor` times what the preset's schedule says (1 is the preset's own)."""
        self._factors.append(factor)
        self._wake.put(None)

    def end(self) -> None:
        """The training is over: who still waits for weights is told."""
        self._ended = True
        self._cancel_copies()

    def decide(self) -> Decision:
        """Takes all that is pending: the one place where the loop reads it."""
        factors = _taken(self._factors)
        return Decision(
            stop=self._stop,
            pause=self.paused,
            requests=tuple(_taken(self._requests)),
            learning_rate_factor=factors[-1] if factors else None,
            copy_weights=bool(self._copies),
        )

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for: what takes long within a step's boundary looks at it."""
        return self._stop

    @property
    def paused(self) -> bool:
        """Whether the loop should wait."""
        return self._paused and not self._stop

    def next_copy(self) -> "Future[TextModel] | None":
        """The oldest request for the weights that is still wanted."""
        while self._copies:
            copy = self._copies.popleft()
            if copy.set_running_or_notify_cancel():
                return copy
        return None

    def _cancel_copies(self) -> None:
        for copy in _taken(self._copies):
            copy.cancel()

    def wait(self, timeout: float) -> None:
        """While paused: sleep until something changes, at most `timeout` seconds."""
        with contextlib.suppress(queue.Empty):
            self._wake.get(timeout=timeout)
            while True:
                self._wake.get_nowait()


def _taken(pending: "deque[T]") -> list[T]:
    """All that is in the deque, taken out one by one, so that what another thread appends meanwhile stays in it."""
    taken = []
    with contextlib.suppress(IndexError):
        while True:
            taken.append(pending.popleft())
    return taken
