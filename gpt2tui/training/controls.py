"""Requests to a running training: set from any thread or signal handler, handled by the loop between two steps.

Those of other processes come through files in the run's folder: see `outside_requests`.
"""

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
    """What the loop must do between two steps: plain values, which can be sent to another process."""

    stop: bool
    pause: bool
    requests: tuple[Request, ...]
    """In the order of the calls."""
    learning_rate_factor: float | None
    """The newest change; None if there is none."""
    copy_weights: bool
    """Whether copies of the weights were requested: see `Controls.next_copy`."""

    @property
    def has_work(self) -> bool:
        """Whether there are requests besides stopping and pausing."""
        return bool(self.requests) or self.copy_weights or self.learning_rate_factor is not None


class Controls:
    """Pause, resume, stop, and one-time requests. Setting one never blocks and is safe in a signal handler.

    A request made while `decide` runs is part of that decision or of the next one. It uses deques, which are
    thread-safe, because a signal handler must not take a lock.
    """

    def __init__(self) -> None:
        self._stop = False
        self.stop_signal = 0
        """The number of the signal that asked to stop, on this rank; 0 where none did."""
        self._paused = False
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._requests: deque[Request] = deque()
        self._copies: deque[Future[TextModel]] = deque()
        self._factors: deque[float] = deque()
        self._ended = False
        self.left = False
        """Whether the training, which other processes do, continues without this one."""

    def leave(self) -> None:
        """Let the processes that train continue without this one, which only watches them."""
        self.left = True
        self._wake.put(None)

    def stop(self, signal_number: int = 0) -> None:
        """Finish the step, save a checkpoint and end the run."""
        self.stop_signal = self.stop_signal or signal_number
        self._stop = True
        self._wake.put(None)

    def pause(self) -> None:
        """Wait after the step until `resume` or `stop`."""
        self._paused = True

    def resume(self) -> None:
        """Continue after a pause."""
        self._paused = False
        self._wake.put(None)

    def request(self, what: Request) -> None:
        """Save, evaluate or sample once, after the step, also while paused."""
        self._requests.append(what)
        self._wake.put(None)

    def copy_weights(self) -> "Future[TextModel]":
        """Requests an independent, eager copy of the network after the step, also while paused.

        It is on the training's device, or on the CPU if the device has no room; if neither has, the future gets a
        ResourceError. It is cancelled when the training ends first.
        """
        copy: Future[TextModel] = Future()
        self._copies.append(copy)
        if self._ended:
            self._cancel_copies()
        self._wake.put(None)
        return copy

    def change_learning_rate(self, factor: float) -> None:
        """From the next step on, multiply the preset's schedule by `factor`; 1 is the unchanged schedule."""
        self._factors.append(factor)
        self._wake.put(None)

    def end(self) -> None:
        """The training is over: cancels the pending requests for copies, and later ones."""
        self._ended = True
        self._cancel_copies()

    def decide(self) -> Decision:
        """Takes all pending requests: the only place where the loop reads them."""
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
        """Whether a stop was requested: evaluation and sampling check it and end early."""
        return self._stop

    @property
    def paused(self) -> bool:
        """Whether the loop should wait."""
        return self._paused and not self._stop

    def next_copy(self) -> "Future[TextModel] | None":
        """The oldest request for a copy that was not cancelled."""
        while self._copies:
            copy = self._copies.popleft()
            if copy.set_running_or_notify_cancel():
                return copy
        return None

    def _cancel_copies(self) -> None:
        for copy in _taken(self._copies):
            copy.cancel()

    def wait(self, timeout: float) -> None:
        """Sleeps until a request arrives, at most `timeout` seconds; for a paused loop."""
        with contextlib.suppress(queue.Empty):
            self._wake.get(timeout=timeout)
            while True:
                self._wake.get_nowait()


def _taken(pending: "deque[T]") -> list[T]:
    """Removes and returns all items, one by one, so that none that another thread appends meanwhile is lost."""
    taken = []
    with contextlib.suppress(IndexError):
        while True:
            taken.append(pending.popleft())
    return taken
