"""The log of the run on show, with a filter."""

from collections import deque
from collections.abc import Iterable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Input, Static

from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tui.train.view import LOG_LINES, EventLine
from gpt2tui.tui.widgets.field_input import FieldInput

_SHOWN = 300


class EventLog(Vertical):
    """Lines of a run, the newest at the end; `open_filter` shows only those that have all words."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "close_filter", "Clear filter", show=False)]

    DEFAULT_CSS = """
    EventLog {
        border: round $panel-lighten-2;
        border-title-color: $text-muted;
        border-subtitle-color: $text-muted;
    }
    EventLog VerticalScroll { scrollbar-size-vertical: 1; padding: 0 1; }
    /* At least as high as there is room: an anchored container scrolls to less than 0 over a short content. */
    EventLog Static { min-height: 100%; }
    EventLog Input { display: none; }
    EventLog.-filtering Input { display: block; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lines: deque[EventLine] = deque(maxlen=LOG_LINES)

    def compose(self) -> ComposeResult:
        """The lines over the filter."""
        with VerticalScroll():
            yield Static("", markup=False)
        yield FieldInput(placeholder="words; Esc clears", compact=True)

    def on_mount(self) -> None:
        """Names itself; the end stays in view until one scrolls back."""
        self.query_one(VerticalScroll).anchor()
        self._draw()

    def show(self, lines: Iterable[EventLine]) -> None:
        """These lines, in place of what was there."""
        self._lines = deque(lines, LOG_LINES)
        self._draw()

    def add(self, lines: Iterable[EventLine]) -> None:
        """More lines at the end."""
        before = len(self._lines)
        self._lines.extend(lines)
        if len(self._lines) != before or before == LOG_LINES:
            self._draw()

    def open_filter(self) -> None:
        """Lets one type what to look for."""
        self.add_class("-filtering")
        self.query_one(Input).focus()

    def action_close_filter(self) -> None:
        """Shows everything again."""
        self.query_one(Input).value = ""
        self.remove_class("-filtering")
        self.screen.set_focus(None)
        self._draw()

    @on(Input.Changed)
    def filter(self, event: Input.Changed) -> None:
        """Shows what matches, while one types."""
        event.stop()
        self._draw()

    @on(Input.Submitted)
    def leave(self, event: Input.Submitted) -> None:
        """Gives the keys back to the screen; the filter stays."""
        event.stop()
        self.screen.set_focus(None)
        if not event.value.strip():
            self.action_close_filter()

    def _draw(self) -> None:
        words = self.query_one(Input).value
        shown = [line for line in self._lines if line.matches(words)][-_SHOWN:]
        self.query_one(Static).update(Content("\n").join(line.content() for line in shown))
        self.border_title = Content(f"log · {sanitize(words, keep_newlines=False)}" if words else "log")
        self.border_subtitle = "" if self.has_class("-filtering") else "/ filter"
