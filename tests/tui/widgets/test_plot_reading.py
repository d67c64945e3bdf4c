"""What a reader reads off a plot, from its text alone, is what was drawn."""

import math
import random

import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from textual.color import Color

from gpt2tui.tui.widgets.plot_drawing import Figure, Line, Reference, Window, draw

THEME = {"background": "#121212", "foreground": "#e0e0e0", "primary": "#0178d4", "success": "#4ebf71"}
BITS = ((0x40, 0x04, 0x02, 0x01), (0x80, 0x20, 0x10, 0x08))
UNITS = {"k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}


def drawn(figure, width, height, **options):
    return draw(figure, width, height, lambda name: Color.parse(THEME.get(name, name)), **options)


def number(label):
    label = label.strip()
    return float(label[:-1]) * UNITS[label[-1]] if label[-1] in UNITS else float(label)


class Reader:
    """Ticks and dots of a drawn plot. Positions are in dots, from the lower left of the curves."""

    def __init__(self, text, log):
        rows = text.plain.split("\n")
        self.log = log
        self.height = len(rows) - 2
        corner = rows[-2].index("└")
        self.width = len(rows[-2]) - corner - 1
        self.y_ticks = [
            ((self.height - 1 - index) * 4 + 1.5, number(row[:corner]))
            for index, row in enumerate(rows[:-2])
            if row[corner] == "┤"
        ]
        columns = [index for index, sign in enumerate(rows[-2]) if sign == "┬"]
        labels = rows[-1].split()
        assert len(columns) == len(labels)
        self.x_ticks = [((c - corner - 1) * 2 + 0.5, number(label)) for c, label in zip(columns, labels, strict=True)]
        self.dots = {
            (2 * column + x, 4 * (self.height - 1 - index) + y)
            for index, row in enumerate(rows[:-2])
            for column, sign in enumerate(row[corner + 1 :])
            if "\u2800" <= sign <= "\u28ff"
            for x in (0, 1)
            for y in range(4)
            if (ord(sign) - 0x2800) & BITS[x][y]
        }

    def y_position(self, value):
        """Where a value is by the lowest and the highest label."""
        return between(self.y_ticks, value, math.log10 if self.log else float)

    def x_position(self, value):
        return between(self.x_ticks, value, float)


def between(ticks, value, scale):
    (p0, v0), (p1, v1) = ticks[0], ticks[-1]
    return p0 + (scale(value) - scale(v0)) * (p1 - p0) / (scale(v1) - scale(v0))


def near(position, dots):
    """Whether one of the dots is within half a dot."""
    return any(abs(position - dot) <= 0.5 + 1e-3 for dot in dots)


def curves(draw_value):
    low = draw_value(st.floats(0.01, 100))
    high = low * draw_value(st.floats(1.02, 1000))
    count = draw_value(st.integers(2, 300))
    numbers = random.Random(draw_value(st.integers(0, 10**6)))
    first, stride = draw_value(st.integers(0, 5000)), draw_value(st.integers(1, 900))
    return [(first + stride * index, numbers.uniform(low, high)) for index in range(count)]


quickly = settings(max_examples=40, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
SIZES = st.tuples(st.integers(20, 200), st.integers(5, 60))


@quickly
@given(st.data(), SIZES, st.booleans())
def test_every_point_of_a_curve_reads_back_within_half_a_dot(data, size, log):
    points = curves(data.draw)
    reader = Reader(drawn(Figure((Line("a", points),), log_y=log), *size).text, log)
    assert len(reader.y_ticks) >= 2
    assert len(reader.x_ticks) >= 2
    rows = {}
    for column, row in reader.dots:
        rows.setdefault(column, []).append(row)
    for x, y in points:
        position, level = reader.x_position(x), reader.y_position(y)
        columns = (math.floor(position + 0.499), math.floor(position + 0.501))
        assert near(level, (row for column in columns for row in rows.get(column, ()))), (x, y)


@quickly
@given(st.data(), SIZES, st.booleans())
def test_between_two_points_every_dot_is_on_the_straight_line(data, size, log):
    low = data.draw(st.floats(0.01, 100))
    values = [low * data.draw(st.floats(1.0, 50)) for _ in range(3)]
    if max(values) < 1.02 * min(values):
        values[1] = 1.5 * min(values)
    points = list(zip((0, 500, 1000), values, strict=True))
    reader = Reader(drawn(Figure((Line("a", points),), log_y=log), *size).text, log)
    places = [(reader.x_position(x), reader.y_position(y)) for x, y in points]
    for column, row in reader.dots:
        (x0, y0), (x1, y1) = places[:2] if column <= places[1][0] else places[1:]
        slope = (y1 - y0) / (x1 - x0)
        across = abs(y0 + (column - x0) * slope - row)
        along = abs(column - x0 - (row - y0) / slope) if slope else math.inf
        ends = min(max(abs(column - x), abs(row - y)) for x, y in places)
        assert min(across, along, ends) <= 0.5 + 1e-3 or abs(column - places[1][0]) <= 0.5 + 1e-3


@quickly
@given(SIZES, st.booleans(), st.floats(0.05, 500), st.floats(1.1, 20), st.floats(0, 1))
def test_the_middle_of_a_marker_reads_back_within_half_a_dot(size, log, low, ratio, share):
    value = low * ratio**share
    figure = Figure((Line("val", [(70, value)], style="marked"), Line("a", [(0, low), (1, low * ratio)])), log_y=log)
    reader = Reader(drawn(figure, *size).text, log)
    block = [(x, y) for x, y in reader.dots if x > reader.x_position(10)]
    middle_x, middle_y = (sum(part) / len(block) for part in zip(*block, strict=True))
    assert len(block) in (6, 9)  # 6 at the right edge
    assert abs(middle_x - reader.x_position(70)) <= (0.5 if len(block) == 9 else 1.0) + 1e-3
    assert abs(middle_y - reader.y_position(value)) <= 0.5 + 1e-3


@quickly
@given(SIZES, st.booleans(), st.floats(1e-6, 1e9), st.floats(1.0, 1e6))
@example((120, 36), False, 1e-3, 1.0)
@example((20, 5), True, 3.0, 1.0)
def test_ticks_are_even_exact_and_inside(size, log, low, ratio):
    reader = Reader(drawn(Figure((Line("a", [(1, low), (400, low * ratio)]),), log_y=log), *size).text, log)
    assert len(reader.y_ticks) >= 2
    for position, value in reader.y_ticks:
        assert reader.y_position(value) == pytest.approx(position, abs=0.02)
    for position, value in reader.x_ticks:
        assert reader.x_position(value) == pytest.approx(position, abs=0.02)
    gaps = {round(b[0] - a[0]) for a, b in zip(reader.y_ticks, reader.y_ticks[1:], strict=False)}
    assert log or len(gaps) == 1


def test_a_reference_line_is_at_its_value():
    figure = Figure((Line("a", [(0, 1.0), (99, 9.0)]),), references=(Reference(7.3, ""),))
    reader = Reader(drawn(figure, 80, 20).text, log=False)
    dashes = {row for column, row in reader.dots if column < 20}
    assert any(abs(row - reader.y_position(7.3)) <= 0.5 for row in dashes)


def test_a_zoomed_plot_reads_back_too():
    points = [(step, math.sin(step / 30) + 2) for step in range(2000)]
    reader = Reader(drawn(Figure((Line("a", points),)), 100, 20, window=Window(700, 760)).text, log=False)
    assert reader.x_ticks[0][1] >= 690
    for x, y in points[700:761]:
        position = reader.x_position(x)
        rows = [row for column, row in reader.dots if abs(column - position) <= 0.5]
        assert near(reader.y_position(y), rows)
