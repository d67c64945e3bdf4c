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
    """The lines of a run, the newest at the end; `open_filter` asks for words that the lines must have."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "close_filter", "Clear filter", show=False)]

    DEFAULT_CSS = """
    EventLog {
        border: round $panel-lighten-2;
        border-title-color: $text-muted;
        border-subtitle-color: $text-muted;
    }
    EventLog VerticalScroll { scrollbar-size-vertical: 1; scrollbar-gutter: stable; padding: 0 1; }
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
        yield FieldInput(placeholder="words; Esc closes", compact=True)

    def on_mount(self) -> None:
        """Keeps the end in view until the user scrolls back."""
        self.query_one(VerticalScroll).anchor()
        self._draw()

    def show(self, lines: Iterable[EventLine]) -> None:
        """Replaces all lines."""
        self._lines = deque(lines, LOG_LINES)
        self._draw()

    def add(self, lines: Iterable[EventLine]) -> None:
        """Adds lines at the end."""
        before = len(self._lines)
        self._lines.extend(lines)
        if len(self._lines) != before or before == LOG_LINES:
            self._draw()

    def open_filter(self) -> None:
        """Opens the filter."""
        self.add_class("-filtering")
        self.screen.set_focus(self.query_one(Input))  # at once: `focus` would come after keys that wait already

    def action_close_filter(self) -> None:
        """Closes the filter and shows all lines."""
        self.query_one(Input).value = ""
        self.remove_class("-filtering")
        self.screen.set_focus(None)
        self._draw()

    def on_resize(self) -> None:
        """Shows as much of each line as fits."""
        self._draw()

    @on(Input.Changed)
    def filter(self, event: Input.Changed) -> None:
        """Shows the matching lines while the user types."""
        event.stop()
        self._draw()

    @on(Input.Submitted)
    def leave(self, event: Input.Submitted) -> None:
        """Gives the focus back to the screen; the filter stays."""
        event.stop()
        self.screen.set_focus(None)
        if not event.value.strip():
            self.action_close_filter()

    def _draw(self) -> None:
        words = self.query_one(Input).value
        width = self.query_one(VerticalScroll).scrollable_content_region.width
        shown = [line for line in self._lines if line.has_words(words)][-_SHOWN:]
        self.query_one(Static).update(Content("\n").join(line.content(width) for line in shown))
        self.border_title = Content(f"log · {sanitize(words, keep_newlines=False)}" if words else "log")
        self.border_subtitle = "" if self.has_class("-filtering") else "/ filter"
