"""A figure of curves as text: braille drawn by plotext, on axes with round ticks."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.text import Text
from textual.color import Color

from gpt2tui.system.numbers import compact
from gpt2tui.system.terminal_text import sanitize

Points = Sequence[tuple[float, float]]
Style = Literal["solid", "faint", "dotted", "marked"]
_SMALLEST = (16, 4)  # columns and rows below which no curve is drawn
_COLUMNS_PER_X_TICK = 13
_ROWS_PER_Y_TICK = 2
_MOST_Y_TICKS = 7
_COLUMNS_PER_SIGN = 4
_FAINT = 0.5
_ROOM = 0.04  # of the y axis, above and below the curves


def decimated(points: Points, left: float, right: float, columns: int) -> list[tuple[float, float]]:
    """The points between left and right, at most two for each column: its lowest and its highest, in order.

    Points whose x or y is not finite are left out. The x of `points` must rise.
    """
    if right <= left or columns < 1:
        return [point for point in points[-1:] if math.isfinite(point[1])]
    scale = columns / (right - left)
    kept: list[tuple[float, float]] = []
    column = -1
    low = high = (0.0, 0.0)
    for point in points:
        x, y = point
        if not (left <= x <= right and math.isfinite(y)):
            continue
        this = min(int((x - left) * scale), columns - 1)
        if this != column:
            if column >= 0:
                kept.extend(sorted({low, high}))
            column, low, high = this, point, point
        elif y < low[1]:
            low = point
        elif y > high[1]:
            high = point
    if column >= 0:
        kept.extend(sorted({low, high}))
    return kept


def round_ticks(low: float, high: float, most: int) -> list[float]:
    """At most about `most` multiples of 1, 2 or 5 times a power of ten, between low and high."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low or most < 1:
        return [low] if math.isfinite(low) else []
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` round numbers between low and high, which must be positive, for an axis of logarithms.

    Powers of ten where there are enough of them, else their 1-2-5 multiples, else round numbers at equal distances.
    """
    if not 0 < low < high < math.inf or most < 1:
        return [low] if 0 < low < math.inf else []
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 3, 4, 6, 8), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        ticks = [
            tick
            for power in powers
            for factor in factors
            if low * (1 - 1e-9) <= (tick := float(f"{factor * 10.0**power:.12g}")) <= high * (1 + 1e-9)
        ]
        if 2 <= len(ticks) <= most:
            return ticks
        if len(ticks) < 2:
            return round_ticks(low, high, most) or ticks
    return ticks[:: math.ceil(len(ticks) / most)]


def tick_label(value: float) -> str:
    """A round number in few characters: `0`, `250`, `1.2k`, `0.05`, `4e-4`."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    size = abs(value)
    if size < 0.01:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return compact(value) if size >= 1000 else f"{value:.4g}"


@dataclass(frozen=True)
class Line:
    """One curve: its points (x, y) with rising x, and how it looks.

    `color` is the name of one of the theme's colours (`primary`, `accent`, `success`...) or a colour.
    faint: dimmed. dotted: separate dots. marked: a sign on each point, for curves of few points.
    """

    name: str
    points: Points
    color: str = "primary"
    style: Style = "solid"


@dataclass(frozen=True)
class VerticalMark:
    """A vertical line with a short text, which may be empty."""

    x: float
    text: str
    color: str = "warning"


@dataclass(frozen=True)
class Figure:
    """Everything to draw. `empty` is shown while there are no points; `from_zero` includes 0 in the y axis."""

    lines: tuple[Line, ...] = ()
    marks: tuple[VerticalMark, ...] = ()
    log_y: bool = False
    from_zero: bool = False
    y_label: Callable[[float], str] = tick_label
    empty: str = "nothing to draw yet"


def draw(figure: Figure, width: int, height: int, color: Callable[[str], Color]) -> Text:
    """The figure in width x height cells; `color` returns a theme colour by name.

    At most two points per column are drawn of each line, so the cost does not grow with the length of the run.
    """
    xs = [point[0] for line in figure.lines for point in (*line.points[:1], *line.points[-1:])]
    if not xs:
        return centred_message(figure.empty, width, height)
    left, right = float(min(xs)), float(max(xs))
    drawn = [(line, shown_points(figure, line, left, right, width)) for line in figure.lines]
    ys = [y for _, points in drawn for _, y in points]
    if not ys:
        return centred_message(figure.empty, width, height)
    if width < _SMALLEST[0] or height < _SMALLEST[1]:
        return centred_message(newest_values(figure), width, height)
    if right == left:
        left, right = left - 1, right + 1
    elif 0 < left <= 0.02 * right:
        left = 0.0  # a run that begins at step 1 has its first tick at 0
    lower, upper = _y_range(ys, figure.from_zero and not figure.log_y)
    return _plot(figure, drawn, (left, right, lower, upper), width, height, color)


def shown_points(figure: Figure, line: Line, left: float, right: float, columns: int) -> Points:
    """The points of a line that are drawn: at most two per column; on a logarithmic axis their logarithms."""
    points = line.points
    if figure.log_y:
        return [(x, math.log10(y)) for x, y in decimated([p for p in points if p[1] > 0], left, right, columns)]
    return decimated(points, left, right, columns)


def newest_values(figure: Figure) -> str:
    """The newest value of each line, shown where there is no room for curves."""
    return "  ".join(
        f"{sanitize(line.name, keep_newlines=False)} {figure.y_label(line.points[-1][1])}"
        for line in figure.lines
        if line.points
    )


def centred_message(text: str, width: int, height: int) -> Text:
    """A dim text in the middle of width x height cells."""
    lines = sanitize(text).splitlines()[: max(height, 0)]
    above = max(0, (height - len(lines)) // 2)
    centred = "\n".join(line[: max(width, 0)].center(max(width, 0)) for line in lines)
    return Text("\n" * above + centred, style="dim", no_wrap=True, overflow="crop", end="")


def _y_range(ys: list[float], from_zero: bool) -> tuple[float, float]:
    lower, upper = min(ys), max(ys)
    if from_zero:
        lower, upper = min(lower, 0.0), max(upper, 0.0)
    if upper == lower:
        room = abs(upper) * 0.1 or 1.0
        return (lower - room, upper + room)
    room = (upper - lower) * _ROOM
    return (lower if from_zero and lower == 0 else lower - room, upper + room)


def _plot(
    figure: Figure,
    drawn: list[tuple[Line, Points]],
    ranges: tuple[float, float, float, float],
    width: int,
    height: int,
    color: Callable[[str], Color],
) -> Text:
    import plotext  # it has one figure per process, so only the screen's thread draws

    plt: Any = plotext
    left, right, lower, upper = ranges
    back = color("background")
    plt.clear_figure()
    plt.limit_size(False, False)
    plt.plotsize(width, height)
    plt.canvas_color("default")
    plt.axes_color("default")
    plt.ticks_color(_rgb(color("foreground").blend(back, 0.45)))
    plt.xaxes(True, False)
    plt.yaxes(True, False)
    plt.xlim(left, right)
    plt.ylim(lower, upper)
    marks = [mark for mark in figure.marks if left < mark.x < right]
    for mark in marks:
        plt.vline(mark.x, color=_rgb(color(mark.color).blend(back, 0.35)))
    for line, points in drawn:
        _draw_line(plt, line, points, color(line.color), back)
    for line, points in drawn:
        # Signs that touch each other would hide the line.
        if len(points) == 1 or (line.style == "marked" and len(points) * _COLUMNS_PER_SIGN <= width):
            plt.scatter([x for x, _ in points], [y for _, y in points], marker="●", color=_rgb(color(line.color)))
    for mark in marks:
        _write_beside(plt, mark, (left, right, upper), _rgb(color(mark.color)))
    x_ticks = round_ticks(left, right, max(1, width // _COLUMNS_PER_X_TICK))
    plt.xticks(x_ticks, [tick_label(tick) for tick in x_ticks])
    _y_ticks(plt, figure, lower, upper, min(max(2, height // _ROWS_PER_Y_TICK), _MOST_Y_TICKS))
    text = Text.from_ansi(plt.build())
    text.no_wrap, text.overflow, text.end = True, "crop", ""
    return text


def _draw_line(plt: Any, line: Line, points: Points, color: Color, back: Color) -> None:
    if not points:
        return
    xs, ys = [x for x, _ in points], [y for _, y in points]
    rgb = _rgb(color.blend(back, _FAINT) if line.style == "faint" else color)
    if line.style == "dotted":
        plt.scatter(xs, ys, marker="braille", color=rgb)
    elif len(points) > 1:
        plt.plot(xs, ys, marker="braille", color=rgb)


def _write_beside(plt: Any, mark: VerticalMark, corner: tuple[float, float, float], rgb: tuple[int, int, int]) -> None:
    left, right, upper = corner
    fits_right = mark.x < left + 0.7 * (right - left)
    text = sanitize(mark.text, keep_newlines=False)
    if not text:
        return
    plt.text(
        f" {text}" if fits_right else f"{text} ", mark.x, upper, color=rgb, alignment="left" if fits_right else "right"
    )


def _y_ticks(plt: Any, figure: Figure, lower: float, upper: float, most: int) -> None:
    if not figure.log_y:
        ticks = round_ticks(lower, upper, most)
        plt.yticks(ticks, [figure.y_label(tick) for tick in ticks])
        return
    ticks = log_ticks(10.0 ** max(lower, -300), 10.0 ** min(upper, 300), most)  # within the range of a float
    plt.yticks([math.log10(tick) for tick in ticks], [figure.y_label(tick) for tick in ticks])


def _rgb(color: Color) -> tuple[int, int, int]:
    return (color.r, color.g, color.b)
