"""The last border before the terminal: whatever a widget has drawn, no control character leaves the screen."""

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from gpt2tui.system.terminal_text import drop_controls


class ControlFilter(LineFilter):
    """Drops control characters from every line that is drawn.

    Each widget already shows text that is not ours through `sanitize`, which leaves a sign where something was. This
    is for the one that forgets to, and for those of Textual: an input shows whatever it is given.
    """

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The line, unchanged where there is nothing to drop, which is nearly always."""
        if all(text.isprintable() for text, _, _ in segments):
            return segments
        return [Segment(drop_controls(text), style, control) for text, style, control in segments]
