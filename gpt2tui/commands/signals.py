"""SIGINT, SIGTERM and SIGHUP as requests to stop: the step ends, a checkpoint is saved, the exit code is 128 + n."""

import signal
from types import FrameType, TracebackType

from gpt2tui.system.terminal_text import print_on_stderr
from gpt2tui.training.controls import Controls

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP


class Interrupted(BaseException):
    """A signal that stops at once: nothing is there to save yet, or it is the second SIGINT."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class StopSignals:
    """A context manager for the main thread: the first signal asks `controls` to stop, a second SIGINT stops at once.

    Until `training` is set there is nothing to save, and a signal raises Interrupted.
    """

    def __init__(self, controls: Controls, *, silent: bool = False) -> None:
        """`silent`: the run says so itself when it stops, as one of several ranks does."""
        self.controls = controls
        self.silent = silent
        self.training = False
        self.received: int | None = None

    @property
    def exit_code(self) -> int | None:
        """128 + the signal that came first; None when none came."""
        return None if self.received is None else 128 + self.received

    def __enter__(self) -> "StopSignals":
        numbers = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
        # Signals that the caller ignores, as nohup does SIGHUP, stay ignored.
        handled = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._handle) for number in handled}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self.training or (self.received is not None and number == signal.SIGINT):
            raise Interrupted(128 + number)
        if self.received is None:
            self.received = number
            self.controls.stop(number)
            if not self.silent:
                print_on_stderr(
                    "\ngpt2tui: stopping after this step, then saving a checkpoint; press Ctrl-C again to stop at once"
                )
