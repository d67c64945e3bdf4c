"""Textual's switches, which tell on from off by colour alone, with an empty box for off."""

from typing import TypeVar

from rich.segment import Segment
from textual.strip import Strip
from textual.widgets import Checkbox, SelectionList
from textual.widgets.option_list import OptionDoesNotExist

Value = TypeVar("Value")
ON, OFF = "X", " "


class Switch(Checkbox):
    """A checkbox whose mark is not there while it is off."""

    BUTTON_INNER = OFF

    def watch_value(self) -> None:
        """Draws the mark or takes it away."""
        self.BUTTON_INNER = ON if self.value else OFF
        super().watch_value()


class SwitchList(SelectionList[Value]):
    """A list of lines, each on or off, whose mark is not there while it is off."""

    def render_line(self, y: int) -> Strip:
        """A line: the three segments of its box, and its text."""
        strip = super().render_line(y)
        try:
            line = self.get_option_at_index(self.scroll_offset.y + y)
        except OptionDoesNotExist:
            return strip
        if line.value in self.selected:
            return strip
        left, mark, *rest = strip
        return Strip([left, Segment(OFF, mark.style), *rest])
