"""The training that this process owns: its thread, its states, and what it has emitted.

The thread only appends to a deque and reports its own end; everything else happens in the thread of the screen, which
drains the deque a few times a second. A session outlives the screens, and one session never trains twice at once.
"""

import logging
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from gpt2tui.errors import DivergedError, Gpt2TuiError, UsageError
from gpt2tui.launch import Emitted, Launch, OpenedRun, TrainingStream, drive
from gpt2tui.run.events import Event, Paused, Resumed, RunStarted
from gpt2tui.system.host_memory import give_back_freed_memory, load_torch
from gpt2tui.tracking.run_progress import RunProgress
from gpt2tui.training.controls import Controls, Request

if TYPE_CHECKING:
    from gpt2tui.data.store_building import Progress
    from gpt2tui.generation import TextModel
    from gpt2tui.preset.files import LoadedPreset
    from gpt2tui.run.folder import Run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """Why a training ended early; `expected` failures are not bugs and have no traceback in the log."""

    message: str
    expected: bool
    diverged: bool


@dataclass(frozen=True)
class Drained:
    """What happened since the last time, in the order of each kind."""

    opened: "OpenedRun | None"
    progress: "Progress | None"
    events: tuple[Event, ...]
    state_changed: bool


@dataclass(frozen=True)
class _Ended:
    """The thread's last word."""

    error: BaseException | None


def training_stream(launch: Launch, controls: Controls) -> Iterator[Emitted]:
    """Trains, in the thread that iterates."""
    load_torch()
    yield from drive(launch.open(), controls)


class TrainingSession:
    """One training at a time, in a thread of its own. To be used from one thread, the screen's."""

    def __init__(self, stream: TrainingStream = training_stream) -> None:
        self.state: SessionState = "idle"
        self.launch: Launch | None = None
        self.run: Run | None = None
        """The folder of the training, None until it is opened; it stays after the end."""
        self.preparation: Progress | None = None
        self.progress = RunProgress()
        self.failure: Failure | None = None
        self._stream = stream
        self._controls = Controls()
        self._queue: deque[Emitted | _Ended] = deque()
        self._thread: threading.Thread | None = None
        self._state_told: SessionState = "idle"

    @property
    def active(self) -> bool:
        """Whether a training is under way, so that no second one may begin."""
        return self.state in ACTIVE

    @property
    def loaded(self) -> "LoadedPreset | None":
        """The preset of the training, None before the first."""
        return self.launch.loaded if self.launch else None

    def start(self, launch: Launch) -> None:
        """Begins a training. Raises UsageError while another one is under way."""
        if self.active or (self._thread is not None and self._thread.is_alive()):
            raise UsageError("a training is running already; stop it first")
        self.launch = launch
        self.run = launch.resume
        self.preparation = None
        self.progress = RunProgress()
        self.failure = None
        self._controls = Controls()
        self._queue = deque()
        self.state = "preparing"
        # A daemon, so that a second request to quit need not wait for a download.
        self._thread = threading.Thread(
            target=_work, args=(self._stream, launch, self._controls, self._queue), name="training", daemon=True
        )
        self._thread.start()

    def pause(self) -> None:
        """Asks the training to wait after this step."""
        if self.state == "running":
            self.state = "pausing"
            self._controls.pause()

    def resume(self) -> None:
        """Lets a paused training go on."""
        if self.state in ("pausing", "paused"):
            self.state = "running"
            self._controls.resume()

    def stop(self) -> None:
        """Asks the training to finish the step, save a checkpoint and end."""
        if self.active:
            self.state = "stopping"
            self._controls.stop()

    def request(self, what: Request) -> bool:
        """Asks for a checkpoint, an evaluation or a sample after this step; False when nothing trains."""
        if self.state not in ("running", "pausing", "paused"):
            return False
        self._controls.request(what)
        return True

    def change_learning_rate(self, factor: float) -> bool:
        """Trains on at `factor` times the preset's schedule; False when nothing trains."""
        if self.state not in ("running", "pausing", "paused"):
            return False
        self._controls.change_learning_rate(factor)
        return True

    def copy_weights(self) -> "Future[TextModel]":
        """The live weights, served at the next step boundary; cancelled when nothing trains or it ends before."""
        if self.state not in ("preparing", "running", "pausing", "paused"):
            nothing: Future[TextModel] = Future()
            nothing.cancel()
            return nothing
        return self._controls.copy_weights()

    def half_speed(self) -> Launch | None:
        """After a divergence: the launch that resumes the newest checkpoint at half the learning rate it diverged at.

        Everything else is as it was in the run that diverged, what it was resumed with included.
        """
        if self.failure is None or not self.failure.diverged or self.run is None or self.launch is None:
            return None
        if not any(self.run.checkpoints.glob("step-*")):
            return None
        factor = 0.5 * self.progress.learning_rate_factor
        return replace(self.launch, resume=self.run, run_dir=None, learning_rate_factor=factor)

    def drain(self) -> Drained:
        """Takes what the thread has emitted since the last time, and moves the state accordingly."""
        opened: OpenedRun | None = None
        latest: Progress | None = None
        events: list[Event] = []
        while self._queue:
            emitted = self._queue.popleft()
            if isinstance(emitted, Event):
                events.append(emitted)
                self._follow(emitted)
            elif isinstance(emitted, _Ended):
                self._end(emitted.error)
            elif isinstance(emitted, OpenedRun):
                opened, self.run = emitted, emitted.run
            else:
                latest = self.preparation = emitted
        changed, self._state_told = self.state != self._state_told, self.state
        return Drained(opened, latest, tuple(events), changed)

    def join(self, timeout: float | None = None) -> bool:
        """Waits for the thread's end; whether it has ended."""
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _follow(self, event: Event) -> None:
        self.progress = self.progress.after(event)
        if isinstance(event, RunStarted) and self.state == "preparing":
            self.state, self.preparation = "running", None
        elif self.state in ("running", "pausing", "paused") and isinstance(event, Paused | Resumed):
            # The loop may have reported one request when the next was already made: what was asked for last counts.
            wanted, there = self._controls.paused, isinstance(event, Paused)
            self.state = ("paused" if there else "pausing") if wanted else "running"

    def _end(self, error: BaseException | None) -> None:
        if error is None:
            self.state = "finished"
            return
        expected = isinstance(error, Gpt2TuiError)
        message = str(error) if expected else f"{type(error).__name__}: {error}"
        self.failure = Failure(message, expected, isinstance(error, DivergedError))
        self.state = "failed"


def _work(stream: TrainingStream, launch: Launch, controls: Controls, emitted: "deque[Emitted | _Ended]") -> None:
    """The body of the training thread."""
    error: BaseException | None = None
    try:
        story: Iterator[Emitted] = stream(launch, controls)
        for item in story:
            emitted.append(item)
            # While data is prepared there is nothing to save: a stop ends the preparation between two of its reports.
            if controls.stopping and not isinstance(item, Event):
                break
        close = getattr(story, "close", None)
        if close is not None:
            close()
    except Gpt2TuiError as expected:
        error = expected
    except BaseException as unexpected:  # the thread must report its end whatever happens
        log.exception("the training thread ended on a bug")
        error = unexpected
    finally:
        controls.end()
        give_back_freed_memory()
        emitted.append(_Ended(error))


# ---- the states of the training that this process owns

SessionState = Literal["idle", "preparing", "running", "pausing", "paused", "stopping", "finished", "failed"]

ACTIVE: frozenset[SessionState] = frozenset({"preparing", "running", "pausing", "paused", "stopping"})
"""Those in which a thread trains, or is about to, and no second training may begin."""
