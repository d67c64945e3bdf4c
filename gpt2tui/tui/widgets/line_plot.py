"""The widget that shows a figure of `plot_drawing` at any size."""

from typing import Any

from rich.text import Text
from textual.color import Color, ColorParseError
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tui.widgets.plot_drawing import Figure, Line, VerticalMark, centred_message, draw

__all__ = ["Figure", "Line", "LinePlot", "VerticalMark"]

_GLYPHS = {"solid": "━", "faint": "─", "dotted": "┄", "marked": "●"}


class LinePlot(Widget):
    """Draws a figure and never raises, whatever is in it.

    The lower border is the legend, unless `legend` is false.
    """

    DEFAULT_CSS = """
    LinePlot {
        height: 1fr;
        border: round $panel-lighten-2;
        border-title-color: $text-muted;
        border-subtitle-color: $text-muted;
        padding: 0 1 0 0;
    }
    """

    figure: reactive[Figure] = reactive(Figure, init=False)

    def __init__(self, *, legend: bool = True, id: str | None = None) -> None:
        super().__init__(id=id)
        self._has_legend = legend
        self._drawn: tuple[object, Text] = (None, Text())
        self._legend_shown: Content | None = None
        self._named: tuple[Content, str] | None = None

    def show(self, *lines: Line, **options: Any) -> None:
        """Draws these lines; `options` are the other fields of `Figure`."""
        self.figure = Figure(lines, **options)

    def render(self) -> Text:
        """The drawing, cached until the figure, the size or the theme changes."""
        key = (self.figure, self.content_size, self.app.theme)
        # By identity first: comparing figures compares their points.
        old = self._drawn[0]
        if not (isinstance(old, tuple) and old[0] is key[0] and old[1:] == key[1:]):
            self._drawn = (key, self._draw())
        return self._drawn[1]

    def watch_figure(self) -> None:
        """Updates the legend."""
        if self._has_legend and (legend := self._legend()) != self._legend_shown:
            self._legend_shown = legend
            self.border_subtitle = legend

    def set_title(self, title: Content, definition: str) -> None:
        """The title on the upper border, and the tooltip."""
        if (title, definition) != self._named:
            self._named = (title, definition)
            self.border_title, self.tooltip = title, Content(definition)

    def _draw(self) -> Text:
        width, height = self.content_size
        try:
            return draw(self.figure, width, height, self.theme_color)
        except Exception as error:  # an exception in render would end the program and the training
            self.log.error(f"a plot could not be drawn: {error!r}")
            return centred_message(f"this plot could not be drawn: {error}", width, height)

    def theme_color(self, name: str) -> Color:
        """A theme colour by name, or any colour; the foreground when the name is unknown."""
        variables = self.app.theme_variables
        for value in (variables.get(name, name), variables.get("foreground", "white")):
            try:
                return Color.parse(value)
            except ColorParseError:
                continue
        return Color.parse("white")

    def _legend(self) -> Content:
        parts = []
        for line in self.figure.lines:
            if line.points:
                color = self.theme_color(line.color)
                if line.style == "faint":
                    color = color.blend(self.theme_color("background"), 0.5)
                name = sanitize(line.name, keep_newlines=False)
                parts.append(Content.assemble((_GLYPHS[line.style], color.hex), f" {name}"))
        return Content("  ").join(parts)
