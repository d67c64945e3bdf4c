"""What the Train screen knows of one run, whether this process trains it or another one does."""

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from textual.content import Content

from gpt2tui.preset.schema import Preset
from gpt2tui.run.events import (
    CheckpointSaved,
    Evaluated,
    Event,
    LearningRateChanged,
    NumIterationsChanged,
    Paused,
    Resumed,
    RunFailed,
    RunFinished,
    RunStarted,
    Warned,
)
from gpt2tui.run.folder import Run
from gpt2tui.system.numbers import byte_size, compact, duration
from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tui.history import RunHistory
from gpt2tui.tui.session import ACTIVE, SessionState
from gpt2tui.tui.widgets.mode_bar import TrainingStatus


@dataclass(frozen=True)
class EventLine:
    """One line of the log; `text` is safe to print, `style` is how its kind is shown."""

    time: float
    kind: str
    text: str
    style: str

    def content(self) -> Content:
        """The line, styled."""
        clock = time.strftime("%H:%M:%S", time.localtime(self.time))
        return Content.assemble((clock, "$foreground-muted"), " ", (f"{self.kind:<5}", self.style), f" {self.text}")

    def matches(self, words: str) -> bool:
        """Whether every word is in the line, in any case."""
        line = f"{self.kind} {self.text}".casefold()
        return all(word in line for word in words.casefold().split())


def event_line(event: Event) -> EventLine | None:
    """The line of an event, None for those that make none."""
    match event:
        case RunStarted():
            name = sanitize(event.preset, keep_newlines=False)
            place = sanitize(f"{event.device}, {event.precision}", keep_newlines=False)
            words = f"{name} goes on: {place}" if event.step else f"{name}: {compact(event.parameters)} on {place}"
            return _line(event, "run", words, "bold $text-primary", event.step or None)
        case Evaluated():
            best, whole = "best " if event.best else "", "  all" if event.whole else ""
            numbers = f"{best}{event.val_loss:.3f}  {event.bits_per_byte:.3f} bits/B{whole}"
            return _line(event, "eval", numbers, "bold $text-success", event.step)
        case CheckpointSaved():
            saved = f"{byte_size(event.bytes)} in {event.seconds:.1f} s"
            return _line(event, "ckpt", saved, "$text-secondary", event.step)
        case Warned():
            return _line(event, "warn", sanitize(event.message, keep_newlines=False), "bold $text-warning")
        case Paused():
            return _line(event, "pause", "paused", "$text-warning", event.step)
        case Resumed():
            return _line(event, "pause", "goes on", "$text-warning", event.step)
        case LearningRateChanged():
            return _line(event, "lr", f"the schedule × {event.factor:g}", "$text-warning", event.step)
        case NumIterationsChanged():
            fitting = f"{event.num_iterations:,} steps fit the budget"
            return _line(event, "time", fitting, "$foreground-muted", event.step)
        case RunFinished():
            how = "stopped" if event.reason == "stopped" else "done"
            return _line(event, "end", f"{how} after {duration(event.seconds)}", "bold $text-success", event.step)
        case RunFailed():
            return _line(event, "fail", sanitize(event.message, keep_newlines=False), "bold $text-error", event.step)
    return None


def _line(event: Event, kind: str, text: str, style: str, step: int | None = None) -> EventLine:
    return EventLine(event.time, kind, text if step is None else f"{step:,}  {text}", style)


LOG_LINES = 2000


@dataclass
class DisplayedRun:
    """A run on show: its curves, its log, and what its folder says about it (None is what is not known yet)."""

    attached: bool = False
    """Another process trains it, so that nothing here can control it."""
    run: Run | None = None
    preset: Preset | None = None
    history: RunHistory = field(default_factory=RunHistory)
    log: deque[EventLine] = field(default_factory=lambda: deque(maxlen=LOG_LINES))
    train_bytes: int | None = None
    """The size of the text to train on."""
    memory_total_bytes: int | None = None
    """What the device has, or the host where the device has no memory of its own."""
    waiting: str = "waiting for the first step"
    """What is said where a curve will be."""
    version: int = 0
    """Counts the changes."""

    def add(self, events: Iterable[Event]) -> list[EventLine]:
        """Takes note of the events; returns their lines in the log."""
        lines = []
        for event in events:
            self.history.add(event)
            if line := event_line(event):
                lines.append(line)
            if isinstance(event, RunStarted | NumIterationsChanged):
                self._move_end()
        self.log.extend(lines)
        self.version += 1
        return lines

    def know(self, preset: Preset | None, train_bytes: int | None) -> None:
        """Takes note of what the run's folder says."""
        if preset is not None:
            self.preset = preset
            self.history.grad_clip = preset.optimizer.grad_clip
            self._move_end()
        self.train_bytes = train_bytes
        self.version += 1

    def _move_end(self) -> None:
        """A time budget may have moved it since the preset was read."""
        num_iterations = self.history.progress.num_iterations
        if self.preset is not None and num_iterations:
            self.preset = self.preset.with_training(num_iterations=num_iterations)

    def say(self, kind: str, text: str) -> EventLine:
        """A line of our own in the log."""
        line = EventLine(time.time(), kind, text, "$foreground-muted")
        self.log.append(line)
        return line


# ---- what can be done with the run on show, and what the mode bar says of one that another process trains

TRAINING: frozenset[SessionState] = frozenset({"running", "pausing", "paused"})
_OF_A_RUN = ("log_y", "smooth", "compare", "plot", "travel", "filter", "other_pane")


@dataclass(frozen=True)
class RunControl:
    """Which actions of the Train screen act; equal as long as none of them has come, gone or changed.

    `state` is that of this process's training. `attached`: the run on show is another process's, which still holds it
    where it is `locked`. `resumable`: it has a checkpoint and has not done all its steps.
    """

    state: SessionState
    shown: bool
    attached: bool
    locked: bool
    resumable: bool

    @classmethod
    def of(cls, view: DisplayedRun, state: SessionState, shown: bool, locked: bool) -> "RunControl":
        """For the run on show; `shown` is false while there is none."""
        ending = view.history.ending
        done = isinstance(ending, RunFinished) and ending.reason == "done"
        resumable = view.run is not None and view.history.checkpoint is not None and not done
        return cls(state, shown, view.attached, locked, resumable)

    @property
    def can_go_on(self) -> bool:
        """Whether the run on show has ended early and can be resumed here."""
        return self.state not in ACTIVE and self.resumable and not (self.attached and self.locked)

    def acts(self, action: str) -> bool | None:
        """Whether an action acts now; None when its key is shown dimmed. True for those that are none of a run's."""
        if action in ("pause", "stop", "request") and (self.attached or self.state not in TRAINING):
            if action == "stop" and self.state == "preparing" and not self.attached:
                return True
            # Controls are shown dimmed while the run on show trains but cannot be controlled, and else not at all.
            trains = self.locked if self.attached else self.state in ACTIVE
            return None if self.shown and trains and not (action == "pause" and self.can_go_on) else False
        if action == "pause":
            return self.state == "running"
        if action in ("resume", "learning_rate"):
            return self.state in ("pausing", "paused") and not self.attached
        if action == "go_on":
            return self.can_go_on
        return self.shown if action in _OF_A_RUN else True


def attached_status(view: DisplayedRun, locked: bool) -> TrainingStatus | None:
    """Where another process's run is; None for a run of this one. `locked`: some process still holds it."""
    if not view.attached or view.run is None:
        return None
    progress, ending = view.history.progress, view.history.ending
    state: SessionState = "running" if locked else "failed"
    if isinstance(ending, RunFinished):
        state = "finished"
    elif isinstance(ending, RunFailed):
        state = "failed"
    elif progress.paused and locked:
        state = "paused"
    return TrainingStatus(state, view.run.name, progress.step, progress.num_iterations, progress.seconds_left)
