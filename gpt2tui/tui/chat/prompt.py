"""The prompt: Enter sends it, up and down recall earlier ones."""

from dataclasses import dataclass
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.events import Key
from textual.message import Message
from textual.strip import Strip
from textual.widgets import TextArea

MOST_REMEMBERED = 200


class PromptArea(TextArea):
    """Several lines of text; a backslash before Enter, or shift+Enter where the terminal knows it, makes a new line."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "send", "Continue", key_display="⏎"),
        Binding("shift+enter,alt+enter", "new_line", "New line", show=False),
        Binding("up", "recall(-1)", "Earlier prompt", show=False),
        Binding("down", "recall(1)", "Later prompt", show=False),
    ]

    @dataclass
    class Sent(Message):
        """The user asks for a continuation of this text, which may be empty; the prompt is cleared already."""

        text: str

    def __init__(self, *, id: str | None = None, placeholder: str = "") -> None:
        super().__init__(
            id=id, placeholder=placeholder, show_line_numbers=False, highlight_cursor_line=False, compact=True
        )
        self._history: list[str] = []
        self._position = 0  # in the history; len(history): the draft
        self._draft = ""

    async def on_key(self, event: Key) -> None:
        """Handles the keys of prompt and screen in the order in which they are typed.

        Textual handles a bound key only after it has bubbled up to the app, or, with priority, before earlier letters
        have reached the prompt: Enter after fast typing would send half of the text.
        """
        active = None if event.is_printable else self.screen.active_bindings.get(event.key)
        if active is None or not active.enabled or active.node not in (self, self.screen):
            return
        if await self.app.run_action(active.binding.action, active.node):
            event.stop()
            event.prevent_default()

    def action_send(self) -> None:
        """Sends the text, or makes a new line after a backslash."""
        row, column = self.cursor_location
        if column and self.document.get_line(row)[column - 1] == "\\":
            self.replace("\n", (row, column - 1), (row, column))
            return
        text, self.text = self.text, ""  # now: what is typed next belongs to the next prompt
        self.remember(text)
        self.post_message(self.Sent(text))

    def action_new_line(self) -> None:
        """Inserts a new line."""
        self.insert("\n")

    def remember(self, text: str) -> None:
        """Adds a text to the history."""
        if text and text not in self._history[-1:]:
            self._history = [*self._history, text][-MOST_REMEMBERED:]
        self._position = len(self._history)

    def put_back(self, text: str) -> None:
        """Puts a text that was sent in front of what has been typed since."""
        self.text = text + self.text
        self.move_cursor(self.document.end)

    def action_recall(self, by: int) -> None:
        """In the first or last line, recalls an earlier or later prompt; elsewhere moves the cursor."""
        row = self.cursor_location[0]
        if (by < 0 and row > 0) or (by > 0 and row < self.document.line_count - 1):
            self.move_cursor_relative(rows=by)
            return
        position = self._position + by
        if not 0 <= position <= len(self._history):
            return
        if self._position == len(self._history):
            self._draft = self.text
        self._position = position
        self.text = self._history[position] if position < len(self._history) else self._draft
        self.move_cursor(self.document.end)

    def render_line(self, y: int) -> Strip:
        """A line; while a resize leaves no column at all, nothing (Textual cannot wrap the placeholder then)."""
        return super().render_line(y) if self.content_size.width > 0 else Strip.blank(0)
