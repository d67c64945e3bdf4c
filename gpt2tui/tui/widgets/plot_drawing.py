"""A figure of curves as text: braille dots on a grid of our own, beside axes that plotext draws.

plotext rounds dots, signs and ticks separately, so they contradict each other by up to a row, and its time grows with
the area. So it gets ticks that are already placed, and draws the two axes: it knows which labels fit where.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from rich.style import Style as RichStyle
from rich.text import Span, Text
from textual.color import Color

from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tui.widgets.plot_axes import LARGEST, Axis, Layout, step_axis, tick_label, time_label, value_axis
from gpt2tui.tui.widgets.plot_canvas import DOTS_PER_COLUMN, DOTS_PER_ROW, Canvas

Points = Sequence[tuple[float, float]]
Style = Literal["solid", "faint", "dotted", "marked"]
XUnit = Literal["step", "tokens", "time"]
_SMALLEST = (16, 4)  # columns and rows below which no curve is drawn
_POINTS_TO_CLIP = 50  # with fewer points none is an outlier
_CLIPPING_GAIN = 0.67  # outliers are cut off where the axis then needs at most this share of its range
_REFERENCE_REACH = 0.25  # of the range: how far from the curves a reference line may be to be shown

LINE_CONTRAST = 5.5  # with the background
FAINT_CONTRAST = 3.0
TEXT_CONTRAST = 4.5

PATTERNS = ((1, 0), (4, 3), (1, 2), (8, 3, 1, 3), (2, 2), (10, 6), (1, 4), (6, 2, 1, 2, 1, 2))
"""Dots on, dots off, ... along a line, by which lines differ where there are no colours."""


@dataclass(frozen=True)
class Line:
    """One curve: its points (x, y) with rising x, and how it looks.

    `color` is the name of one of the theme's colours (`primary`, `accent`, `success`...) or a colour.
    faint: dimmed, for noise. dotted: separate dots. marked: a sign on each point that has room.
    `smoothing`: the standard deviation, in columns, of the Gaussian whose weights average the points.
    """

    name: str
    points: Points
    color: str = "primary"
    style: Style = "solid"
    smoothing: float = 0.0


@dataclass(frozen=True)
class VerticalMark:
    """A vertical line with a short text, which may be empty."""

    x: float
    text: str
    color: str = "warning"


@dataclass(frozen=True)
class Reference:
    """A horizontal dashed line with a short text; drawn where the curves come near it."""

    y: float
    text: str
    color: str = "foreground"


@dataclass(frozen=True)
class Figure:
    """Everything to draw. `empty` is shown while there are no points; `from_zero` includes 0 in the y axis.

    `clip`: points outside of the 1st to 99th percentile may be cut off; a sign at the edge says so.
    """

    lines: tuple[Line, ...] = ()
    marks: tuple[VerticalMark, ...] = ()
    references: tuple[Reference, ...] = ()
    log_y: bool = False
    from_zero: bool = False
    clip: bool = False
    y_label: Callable[[float], str] = tick_label
    x_unit: XUnit = "step"
    empty: str = "nothing to draw yet"

    def x_label(self, x: float) -> str:
        """The text of an x."""
        return time_label(x) if self.x_unit == "time" else tick_label(x)


@dataclass(frozen=True)
class Window:
    """The part of the x axis that is shown."""

    left: float
    right: float


@dataclass(frozen=True)
class Drawing:
    """A drawn figure: its text, and where its curves are in it. Without curves the axes are None."""

    text: Text
    x_axis: Axis | None = None
    first_column: int = 0
    lines: tuple[tuple[Line, Points], ...] = ()
    """The points of each line that are in view."""
    clipped: bool = False

    def x_at(self, column: int) -> float | None:
        """The x at the middle of a column of the text; None outside of the curves."""
        if self.x_axis is None or not 0 <= column - self.first_column < self.x_axis.cells:
            return None
        return self.x_axis.value((column - self.first_column) * DOTS_PER_COLUMN + (DOTS_PER_COLUMN - 1) / 2)


def full_range(figure: Figure) -> Window | None:
    """From the first x of all lines to the last; None without points."""
    xs = [point[0] for line in figure.lines for point in (*line.points[:1], *line.points[-1:])]
    return Window(float(min(xs)), float(max(xs))) if xs else None


def draw(
    figure: Figure,
    width: int,
    height: int,
    color: Callable[[str], Color],
    window: Window | None = None,
    cursor: float | None = None,
    patterns: bool = False,
) -> Drawing:
    """The figure in width x height cells; `color` returns a theme colour by name.

    `window` is the part to show, `cursor` the x of a vertical line, `patterns`: lines differ by their dots.
    """
    whole = full_range(figure)
    if whole is None:
        return Drawing(centred_message(figure.empty, width, height))
    left, right = (window.left, window.right) if window else (whole.left, whole.right)
    if window is None and 0 < left <= 0.02 * right:
        left = 0.0  # a run that begins at step 1 has its first tick at 0
    if right <= left:
        left, right = left - 1, right + 1
    lines = tuple((line, shown_points(figure, line, left, right, width)) for line in figure.lines)
    values = y_range(figure, lines)
    if values is None:
        return Drawing(centred_message(figure.empty, width, height))
    if width < _SMALLEST[0] or height < _SMALLEST[1]:
        return Drawing(centred_message(newest_values(figure), width, height))
    rows = height - 2
    zero = figure.from_zero and not figure.log_y
    y_axis = value_axis(
        *values, Layout(rows, DOTS_PER_ROW, max(1.0, min(rows / 3, 4.0)), free_below=0 if zero else 1), figure.log_y
    )
    y_labels = tuple((row, figure.y_label(value)) for row, value in y_axis.ticks)
    gutter = max(len(label) for _, label in y_labels) + 1
    if width - gutter < 4:
        return Drawing(centred_message(newest_values(figure), width, height))
    columns = Layout(width - gutter, DOTS_PER_COLUMN, 13.0, min(7, (width - gutter) // 3), 0, centred=False)
    x_axis = step_axis(left, right, columns, figure.x_unit)
    x_labels = tuple((column, figure.x_label(value)) for column, value in x_axis.ticks)
    canvas = Canvas(x_axis, y_axis)
    _draw_references(canvas, figure, color)
    back = color("background")
    solid = 0
    for line, points in lines:
        tone = readable(color(line.color), back, LINE_CONTRAST, color("foreground"))
        if line.style == "faint":
            tone = faint(color(line.color), back, color("foreground"))
        pattern: tuple[int, ...] = PATTERNS[0]
        if line.style == "dotted":
            pattern = (1, 2)
        elif line.style != "faint":
            pattern = PATTERNS[solid % len(PATTERNS)] if patterns else pattern
            solid += 1
        canvas.line(points, tone, pattern, gives_way=line.style in ("faint", "dotted"), first=line.style == "marked")
        if line.style == "marked" or len(points) == 1:
            canvas.markers(points, tone)
    for mark in figure.marks:
        if x_axis.value(0) < mark.x <= right and mark.x >= left:
            canvas.vertical(
                mark.x, "┊", readable(color(mark.color), back, TEXT_CONTRAST, color("foreground")), mark.text
            )
    if cursor is not None and left <= cursor <= right:
        canvas.vertical(cursor, "│", color("foreground"))
    axis_style = RichStyle(
        color=_rich(readable(color("foreground").blend(back, 0.45), back, TEXT_CONTRAST, color("foreground")))
    )
    text = _assemble(canvas, axes(width, height, gutter, y_labels, x_labels), gutter, axis_style)
    return Drawing(text, x_axis, gutter, lines, canvas.clipped)


def shown_points(figure: Figure, line: Line, left: float, right: float, columns: int) -> Points:
    """The points of a line between left and right that an axis can show, smoothed where the line is."""
    points = line.points
    first = bisect_left(points, left, key=lambda point: point[0])
    last = bisect_right(points, right, key=lambda point: point[0])
    least = 0.0 if figure.log_y else -LARGEST
    shown = [p for p in points[first:last] if least < p[1] < LARGEST]
    if line.smoothing and len(shown) > 2:
        return smoothed(shown, left, right, columns, line.smoothing)
    return shown


def smoothed(points: Points, left: float, right: float, columns: int, deviation: float) -> list[tuple[float, float]]:
    """The mean of each column's points, averaged with those of its neighbours by Gaussian weights per point.

    `deviation` is the Gaussian's standard deviation in columns. Near the first point the weights reach equally far to
    both sides, so that the fall of the loss at the start of a run is not flattened.
    """
    scale = columns / (right - left)
    means: list[tuple[float, float, int]] = []  # the position in columns, the value, the number of points
    column, x_sum, y_sum, count = -1, 0.0, 0.0, 0
    for x, y in points:
        position = (x - left) * scale
        if int(position) != column:
            if count:
                means.append((x_sum / count, y_sum / count, count))
            column, x_sum, y_sum, count = int(position), 0.0, 0.0, 0
        x_sum, y_sum, count = x_sum + position, y_sum + y, count + 1
    means.append((x_sum / count, y_sum / count, count))
    start, factor = means[0][0], -0.5 / deviation**2
    result = []
    begin = end = 0
    for position, _, _ in means:
        reach = min(3 * deviation, position - start)
        while means[begin][0] < position - 3 * deviation:
            begin += 1
        while end < len(means) and means[end][0] <= position + 3 * deviation:
            end += 1
        total = weights = 0.0
        for other, y, count in means[begin:end]:
            if abs(other - position) <= reach + 1e-9:
                weight = count * math.exp(factor * (other - position) ** 2)
                total, weights = total + weight * y, weights + weight
        result.append((left + position / scale, total / weights))
    return result


def y_range(figure: Figure, lines: Sequence[tuple[Line, Points]]) -> tuple[float, float] | None:
    """The values that the y axis shows, from the lowest to the highest; None without points."""
    values = sorted(y for _, points in lines for _, y in points)
    if not values:
        return None
    low, high = values[0], values[-1]
    if figure.clip and len(values) >= _POINTS_TO_CLIP:
        low, high = _without_outliers(figure, lines, values)
    if figure.from_zero and not figure.log_y:
        low, high = min(low, 0.0), max(high, 0.0)
    if high <= low * (1 + 1e-12) if low > 0 else high <= low:
        room = abs(high) * 0.1 or 1.0
        return (low / 1.1, high * 1.1) if figure.log_y else (low - room, high + room)
    scaled = math.log if figure.log_y else float
    reach = _REFERENCE_REACH * (scaled(high) - scaled(low))
    near = [
        reference.y
        for reference in figure.references
        if (reference.y > 0 or not figure.log_y) and scaled(low) - reach <= scaled(reference.y) <= scaled(high) + reach
    ]
    return min([low, *near]), max([high, *near])


def _without_outliers(
    figure: Figure, lines: Sequence[tuple[Line, Points]], values: Sequence[float]
) -> tuple[float, float]:
    """The 1st to 99th percentile, the newest values and all marked points, where that shortens the axis much."""
    kept = [y for line, points in lines for _, y in (points if line.style == "marked" else points[-1:])]
    rank = max(1, round(0.01 * len(values)))
    low, high = min([values[rank], *kept]), max([values[-1 - rank], *kept])
    scaled = math.log if figure.log_y else float
    gains = scaled(high) - scaled(low) <= _CLIPPING_GAIN * (scaled(values[-1]) - scaled(values[0]))
    return (low, high) if gains and high > low else (values[0], values[-1])


def newest_values(figure: Figure) -> str:
    """The newest value of each line, shown where there is no room for curves."""
    return "  ".join(
        f"{sanitize(line.name, keep_newlines=False)} {short_value(figure, line.points[-1][1])}"
        for line in figure.lines
        if line.points
    )


def short_value(figure: Figure, y: float) -> str:
    """A value in four digits, as the axis writes it."""
    return figure.y_label(float(f"{y:.4g}"))


def centred_message(text: str, width: int, height: int) -> Text:
    """A dim text in the middle of width x height cells."""
    lines = sanitize(text).splitlines()[: max(height, 0)]
    above = max(0, (height - len(lines)) // 2)
    centred = "\n".join(line[: max(width, 0)].center(max(width, 0)) for line in lines)
    return Text("\n" * above + centred, style="dim", no_wrap=True, overflow="crop", end="")


def _draw_references(canvas: Canvas, figure: Figure, color: Callable[[str], Color]) -> None:
    back = color("background")
    for reference in figure.references:
        if figure.log_y and reference.y <= 0:
            continue
        tone = readable(color(reference.color).blend(back, 0.4), back, TEXT_CONTRAST, color("foreground"))
        canvas.horizontal(reference.y, tone, reference.text)


def _assemble(canvas: Canvas, frame: Sequence[str], gutter: int, axis_style: RichStyle) -> Text:
    """The rows of the canvas, from the highest, between the axes."""
    parts: list[str] = []
    spans: list[Span] = []
    length = 0

    def add(text: str, style: RichStyle | None) -> None:
        nonlocal length
        if style is not None:
            spans.append(Span(length, length + len(text), style))
        parts.append(text)
        length += len(text)

    styles: dict[Color, RichStyle] = {}
    for index, row in enumerate(canvas.rendered()):
        add(frame[index][:gutter], axis_style)
        for signs, tone in row:
            if tone is not None and tone not in styles:
                styles[tone] = RichStyle(color=_rich(tone))
            add(signs, styles[tone] if tone is not None else None)
        add("\n", None)
    add("\n".join(frame[-2:]), axis_style)
    return Text("".join(parts), spans=spans, no_wrap=True, overflow="crop", end="")


@lru_cache(32)
def axes(
    width: int,
    height: int,
    gutter: int,
    y_labels: tuple[tuple[int, str], ...],
    x_labels: tuple[tuple[int, str], ...],
) -> tuple[str, ...]:
    """The rows of an empty plot with its two axes. The left axis is in the first `gutter` columns."""
    left = _axes_of_plotext(1, height - 2, gutter, y_labels, ())
    # plotext's time grows with the area, and nothing is in it.
    below = _axes_of_plotext(width - gutter, 1, gutter, ((0, " " * (gutter - 1)),), x_labels)
    return (*(row[:gutter] for row in left[: height - 2]), *below[-2:])


def _axes_of_plotext(
    columns: int, rows: int, gutter: int, y_labels: Sequence[tuple[int, str]], x_labels: Sequence[tuple[int, str]]
) -> list[str]:
    import plotext  # it has one figure per process, so only the screen's thread draws

    plt: Any = plotext
    plt.clear_figure()
    plt.limit_size(False, False)
    plt.theme("clear")
    plt.plotsize(gutter + columns, rows + (2 if x_labels else 1))
    plt.xaxes(True, False)
    plt.yaxes(True, False)
    plt.xlim(0, max(columns - 1, 1))
    plt.ylim(0, max(rows - 1, 1))
    plt.scatter([0], [0], marker=" ")  # without any data it draws no axes
    plt.xticks([column for column, _ in x_labels], [label for _, label in x_labels])
    plt.yticks([row for row, _ in y_labels], [label for _, label in y_labels])
    return [row.rstrip().ljust(gutter + columns) for row in plt.uncolorize(plt.build()).splitlines()]


# ---- colours


def readable(color: Color, back: Color, least: float, towards: Color) -> Color:
    """The colour, moved as little as needed towards another one to contrast with the background."""
    for share in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
        mixed = color.blend(towards, share)
        if contrast(mixed, back) >= least:
            return mixed
    return towards


def faint(color: Color, back: Color, fore: Color) -> Color:
    """The colour, moved towards the background as far as it stays readable."""
    start = readable(color, back, FAINT_CONTRAST, fore)
    mixed = (start.blend(back, share / 20) for share in range(9, 0, -1))
    return next((tone for tone in mixed if contrast(tone, back) >= FAINT_CONTRAST), start)


def contrast(one: Color, other: Color) -> float:
    """The contrast ratio of WCAG 2: from 1 to 21."""
    brighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


def _luminance(color: Color) -> float:
    def linear(part: float) -> float:
        return part / 12.92 if part <= 0.04045 else float(((part + 0.055) / 1.055) ** 2.4)

    red, green, blue = (linear(part) for part in color.normalized)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _rich(color: Color) -> Any:
    return color.rich_color
