"""A one-line input that does not lay out the whole screen at each key press."""

from textual.geometry import Size
from textual.reactive import Reactive
from textual.widgets import Input


class FieldInput(Input):
    """Textual's input for a fixed width: a longer text scrolls inside it, and nothing around it is laid out again."""

    virtual_size = Reactive(Size(0, 0), layout=False)
