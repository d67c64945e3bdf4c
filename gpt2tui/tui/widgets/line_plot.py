"""The widget that shows a figure of `plot_drawing` at any size, with a cursor that reads values off and a zoom."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.color import Color, ColorParseError
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tui.widgets.plot_drawing import (
    LINE_CONTRAST,
    PATTERNS,
    Drawing,
    Figure,
    Line,
    VerticalMark,
    Window,
    centred_message,
    draw,
    faint,
    full_range,
    readable,
    short_value,
)

__all__ = ["INSPECT_KEYS", "Figure", "Line", "LinePlot", "PlotView", "VerticalMark"]

_GLYPHS = {"solid": "━", "faint": "─", "dotted": "┄", "marked": "■"}
_PATTERN_GLYPHS = ("━", "╍", "┅", "━╸╺", "╌", "━ ━", "┄ ┄", "━··")  # in the order of PATTERNS
INSPECT_KEYS = "the cursor in the plot: ← → move it, ↑ ↓ or + - zoom, , . earlier and later part, 0 all, esc leaves"
_ZOOM = 2.0
_LEAST_WINDOW = 4.0  # steps


@dataclass(frozen=True)
class PlotView:
    """The part of the x axis on show, None for all of it, and the x of the cursor, None without one."""

    window: Window | None = None
    cursor: float | None = None


class LinePlot(Widget, can_focus=True):
    """Draws a figure and never raises, whatever is in it.

    The lower border is the legend, unless `legend` is false; with a cursor, it has the values there.
    """

    DEFAULT_CSS = """
    LinePlot {
        height: 1fr;
        border: round $panel-lighten-2;
        border-title-color: $text-muted;
        border-subtitle-color: $text-muted;
        padding: 0 1 0 0;
    }
    LinePlot:focus { border: round $border; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "move(-1)", "Cursor left", show=False, key_display="←"),
        Binding("right", "move(1)", "Cursor right", show=False, key_display="→"),
        Binding("shift+left", "move(-10)", "Cursor 10 columns left", show=False, key_display="shift+←"),
        Binding("shift+right", "move(10)", "Cursor 10 columns right", show=False, key_display="shift+→"),
        Binding(
            "up,plus,equals_sign", "zoom(1)", "Zoom in", show=False, key_display="↑ +", tooltip="or turn the wheel"
        ),
        Binding("down,minus", "zoom(-1)", "Zoom out", show=False, key_display="↓ -"),
        Binding("comma", "pan(-1)", "Earlier part", show=False, key_display=",", tooltip="or drag"),
        Binding("full_stop", "pan(1)", "Later part", show=False, key_display="."),
        Binding("home", "end(0)", "Cursor to the first step", show=False),
        Binding("end", "end(1)", "Cursor to the last step", show=False),
        Binding("0", "whole", "The whole run", show=False),
    ]

    figure: reactive[Figure] = reactive(Figure, init=False)
    view: reactive[PlotView] = reactive(PlotView, init=False)

    @dataclass
    class Moved(Message):
        """The user has moved the cursor or the part on show."""

        plot: "LinePlot"
        view: PlotView

        @property
        def control(self) -> "LinePlot":
            """The plot."""
            return self.plot

    def __init__(self, *, legend: bool = True, id: str | None = None) -> None:
        super().__init__(id=id)
        self._has_legend = legend
        self._drawn: tuple[object, Drawing] = (None, Drawing(Text()))
        self._legend_shown: str | None = None
        self._named: tuple[Content, str] | None = None
        self._dragged_from: tuple[int, Window] | None = None

    def show(self, *lines: Line, **options: Any) -> None:
        """Draws these lines; `options` are the other fields of `Figure`."""
        self.figure = Figure(lines, **options)

    def render(self) -> Text:
        """The drawing, cached until the figure, the view, the size or the theme changes."""
        return self._drawing.text

    @property
    def _drawing(self) -> Drawing:
        key = (self.figure, self.view, self.content_size, self.app.theme_variables)
        # By identity first: comparing figures compares their points.
        old = self._drawn[0]
        if not (isinstance(old, tuple) and old[0] is key[0] and old[1:] == key[1:]):
            self._drawn = (key, self._draw())
            self.call_after_refresh(self._update_legend)  # in the colours of the theme
        return self._drawn[1]

    def watch_figure(self, old: Figure, new: Figure) -> None:
        """Updates the legend; in another unit of x, or without points there, the part on show means nothing."""
        window, whole = self.view.window, full_range(new)
        if old.x_unit != new.x_unit or (
            window and whole and not (whole.left <= window.right and window.left <= whole.right)
        ):
            self.view = PlotView()
        self._update_legend()

    def watch_view(self) -> None:
        """Updates the values at the cursor."""
        self._update_legend()

    def set_title(self, title: Content, definition: str) -> None:
        """The title on the upper border, and the tooltip."""
        if (title, definition) != self._named:
            self._named = (title, definition)
            self.border_title, self.tooltip = title, Content(definition)

    def _draw(self) -> Drawing:
        width, height = self.content_size
        try:
            window, cursor = self.view.window, self.view.cursor
            return draw(self.figure, width, height, self.theme_color, window, cursor, self.app.no_color)
        except Exception as error:  # an exception in render would end the program and the training
            self.log.error(f"a plot could not be drawn: {error!r}")
            return Drawing(centred_message(f"this plot could not be drawn: {error}", width, height))

    def theme_color(self, name: str) -> Color:
        """A theme colour by name, or any colour; the foreground when the name is unknown."""
        variables = self.app.theme_variables
        for value in (variables.get(name, name), variables.get("foreground", "white")):
            try:
                return Color.parse(value)
            except ColorParseError:
                continue
        return Color.parse("white")

    # ---- the legend, or the values at the cursor

    def _update_legend(self) -> None:
        legend = self._readout() if self.view.cursor is not None else self._legend() if self._has_legend else Content()
        if legend.markup != self._legend_shown:  # equal contents may differ in colours
            self._legend_shown = legend.markup
            self.border_subtitle = legend

    def _legend(self) -> Content:
        parts = []
        solid = 0
        for line in self.figure.lines:
            if not line.points:
                continue
            glyph = _GLYPHS[line.style]
            if line.style in ("solid", "marked"):
                if self.app.no_color and line.style == "solid":
                    glyph = _PATTERN_GLYPHS[solid % len(PATTERNS)]
                solid += 1
            parts.append(
                Content.assemble((glyph, self._tone(line).hex), f" {sanitize(line.name, keep_newlines=False)}")
            )
        return Content("  ").join(parts)

    def _readout(self) -> Content:
        """The x of the cursor, and each line's value at its nearest point."""
        cursor = self.view.cursor
        figure, lines = self.figure, self._drawing.lines or tuple((line, line.points) for line in self.figure.lines)
        if cursor is None:
            return Content()
        parts = []
        for line, points in lines:
            if (point := nearest_point(points, cursor)) is None:
                continue
            name = sanitize(line.name, keep_newlines=False)
            words = f"{name} {short_value(figure, point[1])}"
            if line.style == "marked":
                words += f" @{self._x_text(point[0])}"
            parts.append(Content.styled(words, self._tone(line).hex))
        unit = {"step": "step ", "tokens": "tokens ", "time": "time "}[figure.x_unit]
        return Content("  ").join([Content(f"{unit}{self._x_text(cursor)}"), *parts])

    def _x_text(self, x: float) -> str:
        return f"{round(x):,}" if self.figure.x_unit == "step" else self.figure.x_label(float(f"{x:.4g}"))

    def _tone(self, line: Line) -> Color:
        color, back, fore = (self.theme_color(name) for name in (line.color, "background", "foreground"))
        return faint(color, back, fore) if line.style == "faint" else readable(color, back, LINE_CONTRAST, fore)

    # ---- the cursor and the part on show

    def _show_view(self, view: PlotView) -> None:
        if view != self.view:
            self.view = view
            self.post_message(self.Moved(self, view))

    @property
    def _window(self) -> Window | None:
        return self.view.window or full_range(self.figure)

    def on_focus(self) -> None:
        """The cursor is at the newest point."""
        if self.view.cursor is None and (window := self._window):
            self._show_view(replace(self.view, cursor=self._snapped(window.right)))

    def on_blur(self) -> None:
        """No cursor without the focus."""
        self._show_view(replace(self.view, cursor=None))

    def _snapped(self, x: float) -> float:
        """The x of the nearest point that is on show."""
        window = self._window
        found = [
            point[0]
            for line in self.figure.lines
            if (point := nearest_point(line.points, x)) and (window is None or window.left <= point[0] <= window.right)
        ]
        return min(found, key=lambda other: abs(other - x), default=x)

    def action_move(self, columns: int) -> None:
        """Moves the cursor by columns, at least to the next point."""
        window, axis = self._window, self._drawing.x_axis
        if window is None or axis is None:
            return
        old = self.view.cursor if self.view.cursor is not None else window.right
        new = self._snapped(min(max(old + columns * axis.per_dot * axis.per_cell, window.left), window.right))
        if new == old:  # fewer points than columns
            new = next_x(self.figure.lines, old, columns > 0)
        self._show_view(replace(self.view, cursor=min(max(new, window.left), window.right)))

    def action_end(self, which: int) -> None:
        """The cursor to the first point on show (0) or to the last (1)."""
        if window := self._window:
            x = self._snapped(window.right if which else window.left)
            self._show_view(replace(self.view, cursor=x))

    def action_zoom(self, by: int) -> None:
        """Shows half as much around the cursor, or twice as much."""
        if window := self._window:
            middle = self.view.cursor if self.view.cursor is not None else window.right
            self._zoom(middle, by)

    def _zoom(self, middle: float, by: int) -> None:
        window, whole = self._window, full_range(self.figure)
        if window is None or whole is None or whole.right <= whole.left:
            return
        share = (middle - window.left) / (window.right - window.left)
        least = min(_LEAST_WINDOW, whole.right - whole.left)
        length = max((window.right - window.left) * _ZOOM**-by, least)
        self._show_window(whole, middle - share * length, length)

    def action_pan(self, by: int) -> None:
        """Shows an earlier part or a later one, half a width away."""
        window, whole = self._window, full_range(self.figure)
        if window and whole:
            length = window.right - window.left
            self._show_window(whole, window.left + by * length / 2, length)

    def action_whole(self) -> None:
        """Shows the whole run."""
        self._show_view(replace(self.view, window=None))

    def _show_window(self, whole: Window, left: float, length: float) -> None:
        """Shows `length` from `left` on, moved into the run; the whole run follows what comes, a part stays."""
        if length >= whole.right - whole.left:
            self._show_view(replace(self.view, window=None))
            return
        left = min(max(left, whole.left), whole.right - length)
        cursor = self.view.cursor
        if cursor is not None:
            cursor = min(max(cursor, left), left + length)
        self._show_view(PlotView(Window(left, left + length), cursor))

    # ---- the mouse

    def _x_under(self, event: events.MouseEvent) -> float | None:
        offset = event.get_content_offset(self)
        return self._drawing.x_at(offset.x) if offset is not None else None

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Moves the cursor, or drags the curves."""
        axis = self._drawing.x_axis
        if self._dragged_from is not None and axis is not None:
            column, window = self._dragged_from
            whole = full_range(self.figure)
            if whole is not None:
                moved = (event.x - column) * axis.per_dot * axis.per_cell
                self._show_window(whole, window.left - moved, window.right - window.left)
            return
        x, shown = self._x_under(event), self._window
        if x is not None and shown is not None:
            self._show_view(replace(self.view, cursor=self._snapped(min(max(x, shown.left), shown.right))))

    def on_leave(self) -> None:
        """No cursor without the pointer, unless the plot has the focus."""
        if not self.has_focus and self._dragged_from is None:
            self._show_view(replace(self.view, cursor=None))

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """Begins to drag a part of the run."""
        if self.view.window is not None and self._x_under(event) is not None:
            self._dragged_from = (event.x, self.view.window)
            self.capture_mouse()

    def on_mouse_up(self) -> None:
        """Ends dragging."""
        if self._dragged_from is not None:
            self._dragged_from = None
            self.release_mouse()

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        """Zooms in at the pointer."""
        self._wheel(event, 1)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        """Zooms out at the pointer."""
        self._wheel(event, -1)

    def _wheel(self, event: events.MouseEvent, by: int) -> None:
        if (x := self._x_under(event)) is not None:
            event.stop()
            self._zoom(x, by)


def nearest_point(points: Sequence[tuple[float, float]], x: float) -> tuple[float, float] | None:
    """The point whose x is nearest; None without points. The x of `points` must rise."""
    index = bisect_left(points, x, key=lambda point: point[0])
    return min(points[max(index - 1, 0) : index + 1], key=lambda point: abs(point[0] - x), default=None)


def next_x(lines: Sequence[Line], x: float, later: bool) -> float:
    """The x of the next point of any line, or of the previous one; x itself at the end."""
    found = []
    for line in lines:
        index = bisect_left(line.points, x, key=lambda point: point[0])
        if later:
            index += sum(1 for point in line.points[index : index + 1] if point[0] <= x)
        else:
            index -= 1
        if 0 <= index < len(line.points):
            found.append(line.points[index][0])
    return (min(found) if later else max(found)) if found else x
