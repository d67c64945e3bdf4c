"""A number on a line: label, track and value. An integer index underneath, so that no float drifts."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.strip import Strip
from textual.widget import Widget


def plain_number(value: float) -> str:
    """The value with as many digits as it has."""
    return f"{value:g}"


LABEL_WIDTH, VALUE_WIDTH = 12, 6


class Slider(Widget, can_focus=True):
    """Chooses a number between two bounds: arrows, page, home and end keys, typed digits, the mouse.

    Digits typed are taken with Enter, or when the focus leaves; a number that the setting cannot have is refused with a
    word. Where `minimum` and `step` are integers, so are all values.
    """

    DEFAULT_CSS = """
    Slider { height: 1; width: 1fr; color: $foreground; }
    Slider > .slider--label { color: $text-muted; }
    Slider > .slider--filled { color: $primary; }
    Slider > .slider--rest { color: $foreground 25%; }
    Slider > .slider--value { color: $foreground; text-style: bold; }
    Slider > .slider--typed { color: $text-warning; text-style: bold; }
    Slider:focus { background: $primary 20%; }
    Slider:focus > .slider--label { color: $foreground; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "slider--label",
        "slider--filled",
        "slider--rest",
        "slider--value",
        "slider--typed",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h,minus", "change(-1)", "Less", show=False),
        Binding("right,l,plus", "change(1)", "More", show=False),
        Binding("pageup", "change_page(1)", "Much more", show=False),
        Binding("pagedown", "change_page(-1)", "Much less", show=False),
        Binding("home", "to_bound(False)", "Least", show=False),
        Binding("end", "to_bound(True)", "Most", show=False),
    ]

    index: reactive[int] = reactive(0)
    typed: reactive[str] = reactive("")

    @dataclass
    class Changed(Message):
        """The user has chosen another value."""

        slider: "Slider"
        value: float

        @property
        def control(self) -> "Slider":
            """The slider, for `@on(Slider.Changed, "#id")`."""
            return self.slider

    def __init__(
        self,
        label: str,
        minimum: float,
        maximum: float,
        step: float,
        value: float,
        *,
        page: int = 10,
        show: Callable[[float], str] = plain_number,
        id: str | None = None,
        tooltip: str | None = None,
    ) -> None:
        """`page` is how many steps the page keys go; `show` writes a value for people."""
        super().__init__(id=id)
        self.label = label
        self.minimum = minimum
        self.maximum = maximum
        self.step = step
        self.last_index = round((maximum - minimum) / step)
        self._page = page
        self._show = show
        self._dragging = False
        self.tooltip = tooltip
        self.set_reactive(Slider.index, self._index_of(value))

    @property
    def value(self) -> float:
        """The chosen number."""
        return round(self.minimum + self.index * self.step, 6)

    @value.setter
    def value(self, value: float) -> None:
        """Shows another value without posting `Changed`."""
        self.index = self._index_of(value)

    def _index_of(self, value: float) -> int:
        return max(0, min(self.last_index, round((value - self.minimum) / self.step)))

    def validate_index(self, index: int) -> int:
        """Stays between the bounds."""
        return max(0, min(self.last_index, index))

    def choose(self, index: int) -> None:
        """Moves to a value chosen by the user and posts `Changed`."""
        before, self.typed = self.index, ""
        self.index = index
        if self.index != before:
            self.post_message(self.Changed(self, self.value))

    def action_change(self, steps: int) -> None:
        """Moves by `steps`."""
        self.choose(self.index + steps)

    def action_change_page(self, pages: int) -> None:
        """Moves by `pages`."""
        self.choose(self.index + pages * self._page)

    def action_to_bound(self, upper: bool) -> None:
        """To the greatest or the least value."""
        self.choose(self.last_index if upper else 0)

    def on_key(self, event: events.Key) -> None:
        """Collects typed digits; Enter takes them, escape forgets them."""
        if event.character is not None and event.character in "0123456789.," and len(self.typed) < 9:
            self.typed += event.character.replace(",", ".")
        elif self.typed and event.key == "backspace":
            self.typed = self.typed[:-1]
        elif self.typed and event.key == "enter":
            self._take_typed()
        elif self.typed and event.key == "escape":
            self.typed = ""
        else:
            return
        event.stop()
        event.prevent_default()

    def on_blur(self) -> None:
        """Takes the typed number when the focus leaves."""
        self._take_typed()

    def _take_typed(self) -> None:
        typed, self.typed = self.typed, ""
        if not typed:
            return
        try:
            value = float(typed)
        except ValueError:
            value = math.nan
        whole = isinstance(self.step, int) and isinstance(self.minimum, int)
        if self.minimum <= value <= self.maximum and (not whole or value.is_integer()):
            self.choose(self._index_of(value))
            return
        kind = "a whole number" if whole else "a number"
        bounds = f"from {self.minimum:g} to {self.maximum:g}"
        self.notify(f"{self.label} is {kind} {bounds}, not {typed}", severity="warning", markup=False)

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """Jumps to the clicked place on the track."""
        self._dragging = True
        self.capture_mouse()
        self._follow_mouse(event)

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Follows while the button is held."""
        if self._dragging:
            self._follow_mouse(event)

    def on_mouse_up(self) -> None:
        """Lets go."""
        self._dragging = False
        self.release_mouse()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """A turn of the wheel over the focused slider is one step."""
        if self.has_focus:
            event.stop()
            self.action_change(1)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """A turn of the wheel over the focused slider is one step."""
        if self.has_focus:
            event.stop()
            self.action_change(-1)

    def _follow_mouse(self, event: events.MouseEvent) -> None:
        width = self._track_width()
        if width > 1:
            column = event.x - LABEL_WIDTH
            self.choose(round(max(0, min(width - 1, column)) / (width - 1) * self.last_index))

    def _track_width(self) -> int:
        return self.size.width - LABEL_WIDTH - VALUE_WIDTH

    def get_content_width(self, container: Size, viewport: Size) -> int:
        """Enough for a short track."""
        return LABEL_WIDTH + VALUE_WIDTH + 12

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """One line."""
        return 1

    def render_line(self, y: int) -> Strip:
        """`temperature ━━━━━●─────  0.80`; without room for a track, label and value."""

        def style(part: str) -> Style:
            return self.get_component_rich_style(f"slider--{part}")

        width = max(0, self._track_width())
        knob = round(self.index / self.last_index * (width - 1)) if self.last_index and width else 0
        shown = f"{self.typed}▏" if self.typed else self._show(self.value)
        label = self.label[:LABEL_WIDTH].ljust(LABEL_WIDTH)
        segments = [Segment(label, style("label"))]
        if width:
            segments += [
                Segment("━" * knob, style("filled")),
                Segment("●", style("filled")),
                Segment("─" * (width - knob - 1), style("rest")),
            ]
        padding = " " * max(0, VALUE_WIDTH - cell_len(shown))
        segments.append(Segment(padding + shown, style("typed" if self.typed else "value")))
        return Strip(segments).adjust_cell_length(self.size.width, self.rich_style).crop(0, self.size.width)
