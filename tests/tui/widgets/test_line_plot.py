import asyncio
import math
import random
from importlib import metadata

import pytest
from textual.app import App
from textual.color import Color

from gpt2tui.tui.widgets import plot_drawing
from gpt2tui.tui.widgets.line_plot import LinePlot
from gpt2tui.tui.widgets.plot_drawing import (
    Figure,
    Line,
    VerticalMark,
    decimated,
    draw,
    log_ticks,
    round_ticks,
    shown_points,
    tick_label,
)

RAMP = [(x, 1.0 + x) for x in range(100)]


def text(figure, width=60, height=12):
    return draw(figure, width, height, lambda name: Color.parse("red")).plain


def test_plotext_is_the_release_before_the_rewrite():
    """From 6.0 on a NaN in y aborts the process, and there is one figure for all plots."""
    assert metadata.version("plotext").startswith("5.")


@pytest.mark.parametrize("count", [100, 10_000, 1_000_000])
def test_a_million_points_draw_as_few_as_a_hundred(count):
    values = random.Random(0)
    points = [(x, values.random()) for x in range(count)]
    kept = decimated(points, 0, count - 1, 80)
    assert len(kept) <= 2 * 80
    assert kept == sorted(kept)


def test_every_peak_and_dip_is_still_there():
    points = [(x, 0.0) for x in range(10_000)]
    points[4321], points[8765] = (4321, 9.0), (8765, -9.0)
    kept = decimated(points, 0, 9_999, 50)
    assert (4321, 9.0) in kept
    assert (8765, -9.0) in kept


def test_what_is_not_finite_or_not_positive_on_a_logarithmic_axis_is_left_out():
    line = Line("loss", [(0, 10.0), (1, math.nan), (2, math.inf), (3, 0.0), (4, -1.0), (5, 100.0)])
    assert shown_points(Figure(log_y=True), line, 0, 5, 60) == [(0, pytest.approx(1.0)), (5, pytest.approx(2.0))]


@pytest.mark.parametrize("most", [2, 3, 5, 8])
@pytest.mark.parametrize(("low", "high"), [(0, 1), (1.58, 8.3), (49.8, 50.2), (0, 1_000_000), (-3e-4, 3e-4)])
def test_ticks_are_round_and_inside(low, high, most):
    ticks = round_ticks(low, high, most)
    assert 1 <= len(ticks) <= most + 1
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)
    assert all(len(tick_label(tick)) <= 8 for tick in ticks)


def test_ticks_of_logarithms():
    assert log_ticks(1, 10_000, 5) == [1, 10, 100, 1000, 10_000]
    assert log_ticks(1.6, 8.5, 6) == [2, 3, 4, 5, 6, 8]
    assert log_ticks(1.6, 8.5, 5) == [2, 3, 4, 6, 8]
    assert log_ticks(1.6, 8.5, 3) == [2, 3, 5]
    assert all(2.01 <= tick <= 2.04 for tick in log_ticks(2.01, 2.04, 4))


@pytest.mark.parametrize(
    ("value", "label"), [(0, "0"), (250, "250"), (1200, "1.2k"), (0.05, "0.05"), (4e-4, "4e-4"), (1.5e-5, "1.5e-5")]
)
def test_tick_labels_are_short(value, label):
    assert tick_label(value) == label


def test_a_curve_has_its_ticks_and_its_mark():
    drawn = text(Figure((Line("a", RAMP),), (VerticalMark(50, "lr × 0.5"),)))
    assert "lr × 0.5" in drawn
    assert "100" in drawn or "80" in drawn
    assert any("\u2800" < sign <= "\u28ff" for sign in drawn)


def test_one_point_is_a_sign_and_no_point_is_said():
    assert "●" in text(Figure((Line("a", [(1, 2.0)]),)))
    assert "nobody knows" in text(Figure((Line("a", []),), empty="nobody knows"))


def test_text_in_a_mark_cannot_control_the_terminal():
    drawn = text(Figure((Line("a", RAMP),), (VerticalMark(50, "\x1b]52;c;eA==\x07[/]"),)))
    assert "\x1b" not in drawn


@pytest.mark.parametrize("log_y", [False, True])
@pytest.mark.parametrize(
    "points",
    [[], [(0, 0.0)], [(0, 5.0), (1, 5.0)], [(0, math.nan)], [(0, -1.0), (9, -2.0)], RAMP, [(7, 1e300), (8, 1e-300)]],
    ids=["none", "one", "flat", "nan", "negative", "ramp", "extreme"],
)
def test_nothing_raises_at_any_size(points, log_y):
    figure = Figure((Line("a", points), Line("b", RAMP, "accent", "marked")), (VerticalMark(1, "x"),), log_y)
    for width, height in ((0, 0), (1, 1), (3, 2), (10, 4), (16, 4), (17, 5), (20, 5), (60, 12), (200, 60)):
        drawn = text(figure, width, height)
        assert len(drawn.splitlines()) <= max(height, 1)


class PlotApp(App[None]):
    def compose(self):
        yield LinePlot()


def test_the_legend_names_lines_with_any_text():
    async def story():
        app = PlotApp()
        async with app.run_test(size=(60, 12)) as pilot:
            plot = app.query_one(LinePlot)
            plot.show(Line("[/foo] \x1b[31m", RAMP), Line("val", RAMP, "no such colour", "marked"))
            await pilot.pause()
            assert "\x1b" not in str(plot.border_subtitle)
            assert "val" in str(plot.border_subtitle)

    asyncio.run(story())


def test_a_plot_that_cannot_be_drawn_does_not_end_the_program(monkeypatch):
    def broken(*arguments):
        raise ZeroDivisionError("[/] no")

    async def story():
        app = PlotApp()
        async with app.run_test(size=(60, 12)) as pilot:
            monkeypatch.setattr(plot_drawing, "_plot", broken)
            app.query_one(LinePlot).show(Line("a", RAMP))
            await pilot.pause()
            assert "could not be drawn" in app.query_one(LinePlot).render().plain

    asyncio.run(story())


def test_a_figure_is_drawn_once_until_it_changes(monkeypatch):
    drawn = []
    draw_really = plot_drawing._plot
    monkeypatch.setattr(plot_drawing, "_plot", lambda *a: drawn.append(a) or draw_really(*a))

    async def story():
        app = PlotApp()
        async with app.run_test(size=(60, 12)) as pilot:
            plot = app.query_one(LinePlot)
            plot.show(Line("a", RAMP))
            await pilot.pause()
            once = len(drawn)
            for _ in range(3):
                plot.refresh()
                await pilot.pause()
            assert len(drawn) == once
            app.theme = "textual-light"
            await pilot.pause()
            assert len(drawn) > once

    asyncio.run(story())
