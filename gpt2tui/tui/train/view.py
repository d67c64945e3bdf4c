"""A run as the Train screen shows it: its curves, its log, and which keys act on it."""

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

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
    SettingsChanged,
    Warned,
    change_line,
)
from gpt2tui.run.folder import Run
from gpt2tui.run.state import ACTIVE as ACTIVE_RUN
from gpt2tui.run.state import RunState
from gpt2tui.system.numbers import byte_size, compact, counted, duration
from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tracking.run_progress import RunProgress
from gpt2tui.tui.history import RunHistory
from gpt2tui.tui.session import ACTIVE, TRAINING, SessionState
from gpt2tui.tui.widgets.mode_bar import TrainingStatus


@dataclass(frozen=True)
class EventLine:
    """One line of the log; `text` is safe to print, `details` follow as far as they fit, `style` is the kind's."""

    time: float
    kind: str
    text: str
    style: str
    details: tuple[str, ...] = ()

    def content(self, width: int) -> Content:
        """The line, styled, with as many of its details as fit into `width` cells."""
        clock = time.strftime("%H:%M:%S", time.localtime(self.time))
        line = Content.assemble((clock, "$foreground-muted"), " ", (f"{self.kind:<5}", self.style), f" {self.text}")
        for detail in self.details:
            longer = Content.assemble(line, f"  {detail}")
            if longer.cell_length > width:
                break
            line = longer
        return line

    def has_words(self, words: str) -> bool:
        """Whether every word is in the line, ignoring case."""
        line = " ".join((self.kind, self.text, *self.details)).casefold()
        return all(word in line for word in words.casefold().split())


def event_line(event: Event, progress: RunProgress | None = None) -> EventLine | None:
    """The log line of an event, None for events without one; `progress` has the figures of xz."""
    match event:
        case RunStarted():
            name = sanitize(event.preset, keep_newlines=False)
            place = sanitize(f"{event.device}, {event.precision}", keep_newlines=False)
            words = f"{name} resumed: {place}" if event.step else f"{name}: {compact(event.parameters)} on {place}"
            if event.init_from:
                words += f", started from {sanitize(event.init_from, keep_newlines=False)}"
            return _line(event, "run", words, "bold $text-primary", event.step or None)
        case Evaluated():
            best, whole = "best " if event.best else "", "  all text" if event.whole else ""
            line = _line(event, "eval", f"{best}val {event.val_loss:.3f}{whole}", "bold $text-success", event.step)
            xz = progress.xz_comparison(event.bits_per_byte, short=True) if progress else ""
            measured = [f"{name} {value:.3g}" for name, value in event.metrics.items()]
            return replace(line, details=(f"{event.bits_per_byte:.3f} bits/B", *([xz] if xz else []), *measured))
        case CheckpointSaved():
            saved = f"{byte_size(event.bytes)} in {event.seconds:.1f} s"
            return _line(event, "ckpt", saved, "$text-secondary", event.step)
        case Warned():
            return _line(event, "warn", sanitize(event.message, keep_newlines=False), "bold $text-warning")
        case Paused():
            return _line(event, "pause", "paused", "$text-warning", event.step)
        case Resumed():
            return _line(event, "pause", "resumed", "$text-warning", event.step)
        case LearningRateChanged():
            return _line(event, "lr", f"schedule × {event.factor:g}", "$text-warning", event.step)
        case SettingsChanged():
            words = sanitize("; ".join(map(change_line, event.changes)), keep_newlines=False)
            return _line(event, "set", words, "$text-warning", event.step)
        case NumIterationsChanged():
            fitting = f"{counted(event.num_iterations, 'step')} fit the budget"
            return _line(event, "time", fitting, "$foreground-muted", event.step)
        case RunFinished():
            how = "stopped" if event.reason == "stopped" else "finished"
            rule = f": {event.rule}" if event.rule else ""
            return _line(event, "end", f"{how} after {duration(event.seconds)}{rule}", "bold $text-success", event.step)
        case RunFailed():
            return _line(event, "fail", sanitize(event.message, keep_newlines=False), "bold $text-error", event.step)
    return None


def _line(event: Event, kind: str, text: str, style: str, step: int | None = None) -> EventLine:
    return EventLine(event.time, kind, text if step is None else f"{step:,}  {text}", style)


LOG_LINES = 2000


@dataclass
class DisplayedRun:
    """A run on show: its curves, its log, and facts from its folder, None until they are read."""

    attached: bool = False
    """Whether it is read from its file: another process trains it, or trained it."""
    run: Run | None = None
    preset: Preset | None = None
    history: RunHistory = field(default_factory=RunHistory)
    log: deque[EventLine] = field(default_factory=lambda: deque(maxlen=LOG_LINES))
    train_bytes: int | None = None
    """The size of the training text."""
    memory_total_bytes: int | None = None
    """The memory of the device, or of the host where the device has none of its own."""
    takes_requests: bool = False
    """Whether this process trains it now, so that a checkpoint, an evaluation or a sample can be asked for."""
    waiting: str = "waiting for the first step"
    """The text in place of the curves until there are any."""
    complete: bool = True
    """Whether all of its events have been read, not only some steps of a long run."""
    version: int = 0
    """The number of changes so far."""

    def add(self, events: Iterable[Event]) -> list[EventLine]:
        """Adds events; returns their lines in the log."""
        lines = []
        for event in events:
            self.history.add(event)
            if line := event_line(event, self.history.progress):
                lines.append(line)
            if isinstance(event, RunStarted | NumIterationsChanged):
                self._set_num_iterations()
        self.log.extend(lines)
        self.version += 1
        return lines

    def set_facts(self, preset: Preset | None, train_bytes: int | None) -> None:
        """Sets the preset, if it is known, and the size of the training text."""
        if preset is not None:
            self.preset = preset
            self.history.grad_clip = preset.optimizer.grad_clip
            self._set_num_iterations()
        self.train_bytes = train_bytes
        self.version += 1

    def _set_num_iterations(self) -> None:
        """A time budget may have changed it since the preset was read."""
        num_iterations = self.history.progress.num_iterations
        if self.preset is not None and num_iterations:
            self.preset = self.preset.with_training(num_iterations=num_iterations)

    def log_line(self, kind: str, text: str) -> None:
        """Adds a line to the log that is no event."""
        self.log.append(EventLine(time.time(), kind, text, "$foreground-muted"))


# ---- which keys act on the run on show, and its status for the mode bar

CONTROLS = ("pause", "resume", "stop", "request", "learning_rate")
_NEED_A_RUN = (
    "log_y",
    "smooth",
    "inspect",
    "x_unit",
    "compare",
    "plot",
    "travel",
    "keep_sample",
    "filter",
    "other_pane",
)


@dataclass(frozen=True)
class RunControl:
    """Which actions of the Train screen are enabled; two are equal when the same actions are.

    `state` is that of this process's training. `attached`: the run on show is read from its file; `locked`: a process
    still trains it, which takes requests; `waits`: it is paused. `resumable`: it has a checkpoint and steps left;
    `finished`: it has a checkpoint and no steps left.
    """

    state: SessionState
    shown: bool
    attached: bool
    locked: bool
    waits: bool
    resumable: bool
    finished: bool

    @classmethod
    def of(cls, view: DisplayedRun, state: SessionState, shown: bool, locked: bool) -> "RunControl":
        """For the run on show; `shown` is False when there is none."""
        ending = view.history.ending
        done = isinstance(ending, RunFinished) and ending.reason != "stopped"
        saved = view.run is not None and view.history.checkpoint is not None
        paused = view.history.progress.paused
        return cls(state, shown, view.attached, locked, paused, saved and not done, saved and done)

    @property
    def can_resume(self) -> bool:
        """Whether the run on show has ended early and can be resumed here."""
        return self.resumable and self._can_begin

    @property
    def _can_begin(self) -> bool:
        """Whether nothing trains here, nor the run on show elsewhere."""
        return self.state not in ACTIVE and not (self.attached and self.locked)

    def why_not(self, action: str) -> str:
        """Why a key that controls a training does nothing now; empty where it does something or is of another kind."""
        if action not in CONTROLS or self.is_enabled(action):
            return ""
        if not self.shown:
            return "there is no run to control: ^p has the commands to start one"
        if self.attached and self.locked:
            return "another process trains this run: there this key does nothing now"
        if self.attached or self.state not in ACTIVE:
            return "this run is not being trained" + ("; space resumes it" if self.can_resume else "")
        if action == "learning_rate" and self.state in TRAINING:
            return "the learning rate changes while the training is paused: press space first"
        return f"not while {self.state}"

    def is_enabled(self, action: str) -> bool | None:
        """Whether an action is enabled; None where its key is shown dimmed. True for actions that need no run."""
        if self.attached and action in ("pause", "resume", "stop", "request", "learning_rate"):
            pausing = {"pause": not self.waits, "resume": self.waits}
            return self.locked and action != "learning_rate" and pausing.get(action, True)
        if action in ("pause", "stop", "request") and self.state not in TRAINING:
            if action == "stop" and self.state == "preparing":
                return True
            # Dimmed while the training takes no requests, otherwise hidden.
            return (
                None if self.shown and self.state in ACTIVE and not (action == "pause" and self.can_resume) else False
            )
        if action == "pause":
            return self.state == "training"
        if action in ("resume", "learning_rate"):
            return self.state in ("pausing", "paused")
        if action == "resume_run":
            return self.can_resume
        if action == "train_longer":
            return self.finished and self._can_begin
        if action == "chat":
            return (self.finished or self.resumable) and self._can_begin
        return self.shown if action in _NEED_A_RUN else True


def attached_status(view: DisplayedRun, state: RunState, locked: bool) -> TrainingStatus:
    """The progress of another process's run for the mode bar. `locked`: a process still trains it."""
    progress, name = view.history.progress, view.run.name if view.run else ""
    left = progress.seconds_left if locked else None
    active = state in ACTIVE_RUN
    return TrainingStatus(state, name, progress.step, progress.num_iterations, left, elsewhere=active)
