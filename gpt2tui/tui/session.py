"""The training of this process: its thread, its state, and the events it has emitted.

The thread only appends to a deque and reports its own end; everything else happens in the screen's thread, which
drains the deque a few times a second. The session outlives the screens and runs one training at a time.
"""

import logging
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from gpt2tui.errors import DivergedError, DoesNotFitError, Gpt2TuiError, UsageError
from gpt2tui.launch import Emitted, Launch, OpenedRun, TrainingStream, drive
from gpt2tui.run.events import Event, Paused, Resumed, RunFinished, RunStarted
from gpt2tui.run.state import RunState, state_at_end
from gpt2tui.system.host_memory import give_back_freed_memory, load_torch
from gpt2tui.tracking.run_progress import RunProgress
from gpt2tui.training.controls import Controls, Request

if TYPE_CHECKING:
    from gpt2tui.data.store_building import StageProgress
    from gpt2tui.generation import TextModel
    from gpt2tui.preset.files import LoadedPreset
    from gpt2tui.run.folder import Run

log = logging.getLogger(__name__)

SessionState = Literal[
    "idle", "preparing", "cancelling", "training", "pausing", "paused", "saving", "finished", "stopped", "failed"
]
"""The states of the training that this process owns: those of a run, and `idle` before the first or without a run,
`cancelling` and `pausing` between a request and its effect. `saving` also stands for a stop before its checkpoint."""

TRAINING: frozenset[SessionState] = frozenset({"training", "pausing", "paused"})
"""The states in which the training takes requests between two steps."""

ACTIVE: frozenset[SessionState] = TRAINING | {"preparing", "cancelling", "saving"}
"""The states in which there is a training, so that no second one may begin."""


@dataclass(frozen=True)
class Failure:
    """Why a training ended early, or did not begin; an `expected` failure is no bug and has no traceback in the log."""

    message: str
    expected: bool
    last_good_step: int | None = None
    """After a divergence: the step of the newest checkpoint from before the loss rose."""
    fit: Literal["close", "too large"] | None = None
    """Why it did not begin: it needs almost all of the free memory or disk, or more."""


@dataclass(frozen=True)
class Drained:
    """What the thread has emitted since the last call, by kind and in order; `preparation` is the latest progress."""

    opened: "OpenedRun | None"
    preparation: "StageProgress | None"
    events: tuple[Event, ...]
    state_changed: bool


@dataclass(frozen=True)
class _Ended:
    """The thread's last item."""

    error: BaseException | None


def training_stream(launch: Launch, controls: Controls) -> Iterator[Emitted]:
    """Trains in the thread that iterates, or over several ranks in processes of torchrun."""
    from gpt2tui.tui.over_ranks import ranks_of, train_over_ranks

    ranks = ranks_of(launch.loaded.preset)
    if ranks > 1:
        yield from train_over_ranks(launch, controls, ranks)
        return
    load_torch()
    yield from drive(launch.open(), controls, fit_check="warn" if launch.force else "ask")


class TrainingSession:
    """One training at a time, in a thread of its own. Call it from one thread, the screen's."""

    def __init__(self, stream: TrainingStream = training_stream) -> None:
        self.state: SessionState = "idle"
        self.launch: Launch | None = None
        self.run: Run | None = None
        """The run folder of the training, None until it is opened; kept after the end."""
        self.preparation: StageProgress | None = None
        self.progress = RunProgress()
        self.failure: Failure | None = None
        self.torchrun: int | None = None
        """The process of torchrun that trains, in a session of its own; None where this process does."""
        self._stream = stream
        self._controls = Controls()
        self._queue: deque[Emitted | _Ended] = deque()
        self._thread: threading.Thread | None = None
        self._state_reported: SessionState = "idle"
        self._ending: RunFinished | None = None

    @property
    def active(self) -> bool:
        """Whether there is a training, so that no second one may begin."""
        return self.state in ACTIVE

    @property
    def run_state(self) -> SessionState | RunState:
        """The state with what the training does between two steps, for the header."""
        if self.state == "training" and self.progress.num_iterations:
            return self.progress.state(self.loaded.preset.training.eval_frequency if self.loaded else 0)
        return self.state

    @property
    def loaded(self) -> "LoadedPreset | None":
        """The preset of the training, None before the first."""
        return self.launch.loaded if self.launch else None

    def start(self, launch: Launch) -> None:
        """Begins a training. Raises UsageError while another one is running."""
        if self.active or (self._thread is not None and self._thread.is_alive()):
            raise UsageError("a training is running already; stop it first")
        self.launch = launch
        self.run = launch.resume
        self.preparation = None
        self.progress = RunProgress()
        self.failure = None
        self.torchrun = None
        self._ending = None
        self._controls = Controls()
        self._queue = deque()
        self.state = "preparing"
        # A daemon, so that quitting a second time does not wait for a download.
        self._thread = threading.Thread(
            target=_train, args=(self._stream, launch, self._controls, self._queue), name="training", daemon=True
        )
        self._thread.start()

    def pause(self) -> None:
        """Asks the training to wait after this step."""
        if self.state == "training":
            self.state = "pausing"
            self._controls.pause()

    def resume(self) -> None:
        """Resumes a paused training."""
        if self.state in ("pausing", "paused"):
            self.state = "training"
            self._controls.resume()

    def stop(self) -> None:
        """Asks the training to finish the step, save a checkpoint and end; cancels a preparation."""
        if self.active:
            self.state = "cancelling" if self.state in ("preparing", "cancelling") else "saving"
            self._controls.stop()

    def leave(self) -> bool:
        """Lets a training over several ranks continue without this process; False where there is none to leave."""
        if self.torchrun is None or self.state not in TRAINING:
            return False
        self._controls.leave()
        self.state = "idle"
        return True

    def request(self, what: Request) -> bool:
        """Asks for a checkpoint, an evaluation or a sample after this step; False without a training."""
        if self.state not in TRAINING:
            return False
        self._controls.request(what)
        return True

    def change_learning_rate(self, factor: float) -> bool:
        """Multiplies the preset's schedule by `factor` from the next step on; False where no training here can."""
        if self.state not in TRAINING or self.torchrun is not None:
            return False
        self._controls.change_learning_rate(factor)
        return True

    def copy_weights(self) -> "Future[TextModel]":
        """The live weights as of the next step boundary; cancelled without a training or when it ends before that."""
        if self.state not in TRAINING | {"preparing"}:
            nothing: Future[TextModel] = Future()
            nothing.cancel()
            return nothing
        return self._controls.copy_weights()

    def retry_at_half_learning_rate(self) -> Launch | None:
        """After a divergence: the launch that resumes at half the learning rate, before the loss rose.

        Everything else, overrides of an earlier resume included, stays as it was. None without such a checkpoint.
        """
        from gpt2tui.run import checkpoint

        if self.failure is None or self.failure.last_good_step is None or self.run is None or self.launch is None:
            return None
        step = self.failure.last_good_step
        # The newest one is resumed with the changes since then.
        is_newest = not any(saved.step > step for saved in checkpoint.saved_in(self.run.checkpoints))
        factor = 0.5 * self.progress.learning_rate_factor
        return replace(
            self.launch,
            resume=self.run,
            resume_from=None,
            resume_step=None if is_newest else step,
            run_dir=None,
            learning_rate_factor=factor,
        )

    def drain(self) -> Drained:
        """Takes what the thread has emitted since the last call, and updates the state."""
        opened: OpenedRun | None = None
        preparation: StageProgress | None = None
        events: list[Event] = []
        ended = False  # which counts as a change: a training may begin and end between two calls
        while self._queue:
            emitted = self._queue.popleft()
            if isinstance(emitted, Event):
                events.append(emitted)
                self._apply(emitted)
            elif isinstance(emitted, _Ended):
                ended = True
                self._apply_end(emitted.error)
            elif isinstance(emitted, OpenedRun):
                opened, self.run, self.torchrun = emitted, emitted.run, emitted.torchrun
            else:
                preparation = self.preparation = emitted
        changed, self._state_reported = ended or self.state != self._state_reported, self.state
        return Drained(opened, preparation, tuple(events), changed)

    def join(self, timeout: float | None = None) -> bool:
        """Waits for the thread to end; returns whether it has."""
        if self._thread is None:
            return True
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _apply(self, event: Event) -> None:
        self.progress = self.progress.after(event)
        if isinstance(event, RunFinished):
            self._ending = event
        if isinstance(event, RunStarted) and self.state in ("preparing", "cancelling"):
            self.state, self.preparation = "saving" if self.state == "cancelling" else "training", None
        elif self.state in TRAINING and isinstance(event, Paused | Resumed):
            # The event may answer an earlier request; the latest request decides.
            wanted, paused = self._controls.paused, isinstance(event, Paused)
            self.state = ("paused" if paused else "pausing") if wanted else "training"

    def _apply_end(self, error: BaseException | None) -> None:
        if error is None:
            ended = state_at_end(self._ending) if self._ending else "finished"
            self.state = "idle" if self.state == "cancelling" else "stopped" if ended == "stopped" else "finished"
            return
        expected = isinstance(error, Gpt2TuiError)
        message = str(error) if expected else f"{type(error).__name__}: {error}"
        if isinstance(error, DoesNotFitError):
            self.failure = Failure(message, expected, fit="close" if error.close else "too large")
            self.state = "idle"
            return
        self.failure = Failure(message, expected, error.last_good_step if isinstance(error, DivergedError) else None)
        self.state = "failed"


def _train(stream: TrainingStream, launch: Launch, controls: Controls, emitted: "deque[Emitted | _Ended]") -> None:
    """The body of the training thread."""
    error: BaseException | None = None
    try:
        items: Iterator[Emitted] = stream(launch, controls)
        for item in items:
            emitted.append(item)
            # During the preparation there is nothing to save: a stop ends it at its next progress report.
            if controls.stopping and not isinstance(item, Event):
                break
        close = getattr(items, "close", None)
        if close is not None:
            close()
    except Gpt2TuiError as expected:
        error = expected
    except BaseException as unexpected:  # the thread must report its end whatever happens
        log.exception("the training thread ended with an unexpected error")
        error = unexpected
    finally:
        controls.end()
        give_back_freed_memory()
        emitted.append(_Ended(error))
