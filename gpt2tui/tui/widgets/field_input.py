"""A one-line input that does not lay out the whole screen at each key."""

from textual.geometry import Size
from textual.reactive import Reactive
from textual.widgets import Input


class FieldInput(Input):
    """Textual's input, for a place of fixed width: a longer text scrolls in it, and nothing around it moves."""

    virtual_size = Reactive(Size(0, 0), layout=False)
