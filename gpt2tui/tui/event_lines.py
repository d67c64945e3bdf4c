"""Events as lines of a narrow log: when, what kind, at which step, what.

Steps and samples make no line: they are on show beside it.
"""

import time
from dataclasses import dataclass

from textual.content import Content

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
from gpt2tui.system.numbers import byte_size, compact, duration
from gpt2tui.system.terminal_text import sanitize


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
