"""The cells between the axes: dots of curves, markers, lines and short texts, and which of them a cell shows."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from textual.color import Color

from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tui.widgets.plot_axes import Axis

DOTS_PER_COLUMN = 2
DOTS_PER_ROW = 4
_BITS = ((0x40, 0x04, 0x02, 0x01), (0x80, 0x20, 0x10, 0x08))  # of a braille sign, from its lowest dot
_MARKER_COLUMNS = 3  # from one marker to the next, at least
_TURN = 2  # columns that each of several curves has of the cells they share
_DASH = (4, 3)  # dots on and off of a horizontal line

Cells = dict[tuple[int, int], int]


@dataclass
class _Curve:
    color: Color
    gives_way: bool
    cells: Cells = field(default_factory=dict)


class Canvas:
    """Dots are numbered from the lower left. Values go to dots by the two axes, and by nothing else.

    A cell shows one curve. Curves that share cells take turns of two columns, so that none hides another; one that
    gives way is shown only where there is no other. Markers are above all curves; texts are where nothing else is.
    """

    def __init__(self, x_axis: Axis, y_axis: Axis) -> None:
        self.x_axis, self.y_axis = x_axis, y_axis
        self.clipped = False
        """Whether a curve left the canvas above or below."""
        self._curves: list[_Curve] = []
        self._first: list[_Curve] = []
        self._markers: dict[tuple[int, int], tuple[int, Color]] = {}
        self._edges: dict[tuple[int, int], tuple[str, _Curve]] = {}
        self._signs: dict[tuple[int, int], tuple[str, Color]] = {}
        self._texts: list[tuple[int, bool, str, Color]] = []
        self._dashes: dict[tuple[int, int], tuple[str, Color]] = {}
        self._labels: list[tuple[int, str, Color]] = []

    def line(
        self,
        points: Sequence[tuple[float, float]],
        color: Color,
        pattern: tuple[int, ...] = (1, 0),
        gives_way: bool = False,
        first: bool = False,
    ) -> None:
        """Joins the points, whose x rises. `first`: it has the first turn where curves share cells.

        Every point's own dot is drawn unless the pattern leaves it out: all points of a column of dots are joined from
        the lowest to the highest.
        """
        curve = _Curve(color, gives_way)
        self._curves.append(curve)
        if first:
            self._first.append(curve)
        dots = self._path(points, curve)
        on = [index % 2 == 0 for index, count in enumerate(pattern) for _ in range(count)]
        if not all(on):
            dots = [dot for index, dot in enumerate(dots) if on[index % len(on)]]
        cells = curve.cells
        for x, y in dots:
            place = (x >> 1, y >> 2)
            cells[place] = cells.get(place, 0) | _BITS[x & 1][y & 3]

    def markers(self, points: Sequence[tuple[float, float]], color: Color) -> None:
        """A block of 3 x 3 dots around each point that has room, and around the last one in any case."""
        free = math.inf
        for x, y in reversed(points):
            position = self.x_axis.position(x)
            if position > free:
                continue
            column, row = _nearest(position), _nearest(self.y_axis.position(y))
            if not (0 <= column < self.x_axis.dots and 0 <= row < self.y_axis.dots):
                continue
            free = position - _MARKER_COLUMNS * DOTS_PER_COLUMN
            for dot_x in (column - 1, column, column + 1):
                for dot_y in (row - 1, row, row + 1):
                    if 0 <= dot_x < self.x_axis.dots and 0 <= dot_y < self.y_axis.dots:
                        place = (dot_x >> 1, dot_y >> 2)
                        mask = self._markers.get(place, (0, color))[0] | _BITS[dot_x & 1][dot_y & 3]
                        self._markers[place] = (mask, color)

    def horizontal(self, value: float, color: Color, text: str) -> None:
        """A dashed line that gives way to everything, with a text in it."""
        row = _nearest(self.y_axis.position(value))
        if not 0 <= row < self.y_axis.dots:
            return
        cells: Cells = {}
        on, off = _DASH
        for x in range(self.x_axis.dots):
            if x % (on + off) < on:
                place = (x >> 1, row >> 2)
                cells[place] = cells.get(place, 0) | _BITS[x & 1][row & 3]
        self._dashes |= {place: (chr(0x2800 + mask), color) for place, mask in cells.items()}
        self._labels.append((row >> 2, f" {sanitize(text, keep_newlines=False)} ", color))

    def vertical(self, x: float, sign: str, color: Color, text: str = "") -> None:
        """A sign in every free cell of a column, and a text beside it."""
        column = _nearest(self.x_axis.position(x)) // DOTS_PER_COLUMN
        if not 0 <= column < self.x_axis.cells:
            return
        for row in range(self.y_axis.cells):
            self._signs[column, row] = (sign, color)
        if text := sanitize(text, keep_newlines=False):
            self._texts.append((column, column < 0.7 * self.x_axis.cells, text, color))

    def rendered(self) -> Iterator[list[tuple[str, Color | None]]]:
        """The rows from the highest, each as parts of one colour."""
        shown = self._shown()
        self._write_texts(shown)
        for row in range(self.y_axis.cells - 1, -1, -1):
            parts: list[tuple[str, Color | None]] = []
            signs: list[str] = []
            tone: Color | None = None
            for column in range(self.x_axis.cells):
                sign, color = shown.get((column, row), (" ", None))
                if color is not tone and color != tone and signs:
                    parts.append(("".join(signs), tone))
                    signs = []
                signs.append(sign)
                tone = color
            parts.append(("".join(signs), tone))
            yield parts

    def _path(self, points: Sequence[tuple[float, float]], curve: _Curve) -> list[tuple[int, int]]:
        """The dots of the line through the points, from left to right; those outside of the canvas are left out."""
        width, height = self.x_axis.dots, self.y_axis.dots
        dots: list[tuple[int, int]] = []
        before, floor = (0.0, 0.0), math.floor  # each point of the run passes here
        column = low = high = -1
        for position, level in zip(self.x_axis.positions(points, 0), self.y_axis.positions(points, 1), strict=True):
            dot_x, dot_y = floor(position + 0.5), floor(level + 0.5)
            if not 0 <= dot_x < width:
                continue
            if not 0 <= dot_y < height:
                self._mark_edge(dot_x, dot_y < 0, curve)
            if dot_x == column:
                if dot_y < low:
                    low = dot_y
                elif dot_y > high:
                    high = dot_y
            else:
                if column >= 0:
                    dots += [(column, dot) for dot in range(max(low, 0), min(high, height - 1) + 1)]
                    dots += _between(before, (position, level), height)
                column, low, high = dot_x, dot_y, dot_y
            before = (position, level)
        if column >= 0:
            dots += [(column, dot) for dot in range(max(low, 0), min(high, height - 1) + 1)]
        return dots

    def _mark_edge(self, dot_x: int, below: bool, curve: _Curve) -> None:
        """Says at the edge that a curve goes beyond it."""
        self.clipped = True
        place = (dot_x // DOTS_PER_COLUMN, 0 if below else self.y_axis.cells - 1)
        self._edges[place] = ("▾" if below else "▴", curve)

    def _shown(self) -> dict[tuple[int, int], tuple[str, Color]]:
        shown = self._dashes | self._signs
        for curve in self._curves:
            if curve.gives_way:
                for place, mask in curve.cells.items():
                    shown[place] = (chr(0x2800 + mask), curve.color)
        shown |= {place: (sign, curve.color) for place, (sign, curve) in self._edges.items()}
        strong = [*self._first, *(c for c in self._curves if not c.gives_way and c not in self._first)]
        claims: dict[tuple[int, int], list[_Curve]] = {}
        for curve in strong:
            for place in curve.cells:
                claims.setdefault(place, []).append(curve)
        for place, curves in claims.items():
            curve = curves[place[0] // _TURN % len(curves)]
            shown[place] = (chr(0x2800 + curve.cells[place]), curve.color)
        for place, (sign, curve) in self._edges.items():
            if not curve.gives_way:
                shown[place] = (sign, curve.color)
        for place, (mask, color) in self._markers.items():
            shown[place] = (chr(0x2800 + mask), color)
        return shown

    def _write_texts(self, shown: dict[tuple[int, int], tuple[str, Color]]) -> None:
        columns, rows = self.x_axis.cells, self.y_axis.cells
        for row, text, color in self._labels:
            places = ((start, at) for at in (row, row + 1, row - 1) for start in range(columns - len(text), -1, -1))
            any(self._write(shown, start, at, text, color) for start, at in places)
        for column, to_the_right, text, color in self._texts:
            start = column + 2 if to_the_right else column - 1 - len(text)
            for row in range(rows - 1, max(rows - 4, -1), -1):
                if self._write(shown, start, row, text, color):
                    break

    def _write(
        self, shown: dict[tuple[int, int], tuple[str, Color]], start: int, row: int, text: str, color: Color
    ) -> bool:
        """Writes a text where its cells are free; returns whether they were."""
        places = [(start + index, row) for index in range(len(text))]
        inside = start >= 0 and start + len(text) <= self.x_axis.cells and 0 <= row < self.y_axis.cells
        if not inside or any(
            shown.get(place, self._dashes.get(place)) is not self._dashes.get(place) for place in places
        ):
            return False
        shown.update((place, (sign, color)) for place, sign in zip(places, text, strict=True))
        return True


def _nearest(position: float) -> int:
    return math.floor(position + 0.5)


def _between(start: tuple[float, float], end: tuple[float, float], height: int) -> list[tuple[int, int]]:
    """The dots nearest to the straight line between two points; where it is flat, without those of its ends."""
    (x0, y0), (x1, y1) = start, end
    first, last = _nearest(x0), _nearest(x1)
    slope = (y1 - y0) / (x1 - x0)
    if abs(slope) <= 1:
        flat = ((x, _nearest(y0 + (x - x0) * slope)) for x in range(first + 1, last))
        return [(x, y) for x, y in flat if 0 <= y < height]
    rows = range(max(0, math.ceil(min(y0, y1))), min(height - 1, math.floor(max(y0, y1))) + 1)
    steep = ((_nearest(x0 + (y - y0) / slope), y) for y in (rows if slope > 0 else reversed(rows)))
    return [(x, y) for x, y in steep if first <= x <= last]
