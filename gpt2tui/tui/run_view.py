"""What the Train screen knows of one run, whether this process trains it or another one does."""

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from gpt2tui.preset.schema import Preset
from gpt2tui.run.events import Event, NumIterationsChanged, RunStarted
from gpt2tui.run.folder import Run
from gpt2tui.tui.event_lines import EventLine, event_line
from gpt2tui.tui.history import RunHistory

LOG_LINES = 2000


@dataclass
class RunView:
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
