import asyncio
import math
import random
from importlib import metadata

import pytest
from textual.app import App
from textual.color import Color
from textual.content import Content
from textual.events import MouseScrollUp
from textual.theme import BUILTIN_THEMES

from gpt2tui.tui.widgets import line_plot
from gpt2tui.tui.widgets.line_plot import LinePlot
from gpt2tui.tui.widgets.plot_axes import byte_label, tick_label, time_label
from gpt2tui.tui.widgets.plot_drawing import (
    Figure,
    Line,
    VerticalMark,
    contrast,
    draw,
    faint,
    readable,
    shown_points,
    smoothed,
)
from tests.tui.looking import until

RAMP = [(x, 1.0 + x) for x in range(100)]


def text(figure, width=60, height=12):
    return draw(figure, width, height, lambda name: Color.parse("red")).text.plain


def test_plotext_is_the_release_before_the_rewrite():
    """From 6.0 on a NaN in y aborts the process, and there is one figure for all plots."""
    assert metadata.version("plotext").startswith("5.")


def test_every_peak_and_dip_is_drawn():
    points = [(x, 5.0) for x in range(10_000)]
    points[4321], points[8765] = (4321, 9.0), (8765, 1.0)
    drawn = text(Figure((Line("a", points),)), 60, 12).splitlines()
    for row in (drawn[1], drawn[8]):
        assert any("\u2800" < sign <= "\u28ff" for sign in row)


def test_what_is_not_finite_or_not_positive_on_a_logarithmic_axis_is_left_out():
    line = Line("loss", [(0, 10.0), (1, math.nan), (2, math.inf), (3, 0.0), (4, -1.0), (5, 100.0)])
    assert shown_points(Figure(log_y=True), line, 0, 5, 60) == [(0, 10.0), (5, 100.0)]


def test_smoothing_is_a_gaussian_mean_over_columns():
    numbers = random.Random(2)
    points = [(x, 3 + numbers.gauss(0, 1)) for x in range(20_000)]
    curve = smoothed(points, 0, 19_999, 100, 2.0)
    assert len(curve) <= 101
    columns = [[y for x, y in points if int(x * 100 / 19_999) == column] for column in range(100)]
    means = [sum(column) / len(column) for column in columns]
    weights = [math.exp(-(distance**2) / 8) for distance in range(-6, 7)]
    expected = sum(w * m for w, m in zip(weights, means[44:57], strict=True)) / sum(weights)
    assert curve[50][1] == pytest.approx(expected, abs=2e-3)
    levels = [y for _, y in curve[6:]]
    assert max(levels) - min(levels) < 0.15  # not a comb


def test_smoothing_does_not_flatten_the_start():
    points = [(x, 10.0 - x) for x in range(100)]
    assert smoothed(points, 0, 99, 50, 5.0)[0][1] == pytest.approx(9.5, abs=0.6)


def test_outliers_are_cut_off_with_a_sign_at_the_edge():
    points = [(x, 3 + (x % 7) / 10) for x in range(1000)]
    points[0], points[500] = (0, 11.0), (500, 90.0)
    drawn = draw(Figure((Line("a", points),), clip=True), 80, 14, lambda name: Color.parse("red"))
    assert drawn.clipped
    first = drawn.text.plain.splitlines()[0]
    assert first.count("▴") == 2
    assert "▴" not in text(Figure((Line("a", points),)), 80, 14)


def test_a_newest_value_that_diverges_is_never_cut_off():
    points = [(x, 3 + (x % 7) / 10) for x in range(1000)] + [(1000, 90.0)]
    assert "▴" not in text(Figure((Line("a", points),), clip=True), 80, 14)


def signs_of(figure, name, width=120, height=20):
    """The columns in which the colour of a theme's name is seen."""
    colors = {"success": "#4ebf71", "primary": "#0178d4", "background": "#121212"}
    drawn = draw(figure, width, height, lambda wanted: Color.parse(colors.get(wanted, "#e0e0e0"))).text
    wanted = Color.parse(colors[name]).rgb
    columns = set()
    for span in drawn.spans:
        if span.style.color is not None and tuple(span.style.color.triplet) == wanted:
            start = drawn.plain.rfind("\n", 0, span.start) + 1
            columns |= set(range(span.start - start, span.end - start))
    return columns


def test_validation_is_in_view_and_marked_at_20_000_steps():
    numbers = random.Random(3)
    raw = [(x, 3 + numbers.gauss(0, 0.3)) for x in range(0, 20_000, 10)]
    val = [(x, 3.0) for x in range(500, 20_001, 500)]
    lines = (
        Line("train", raw, "primary", "faint"),
        Line("val", val, "success", "marked"),
        Line("smoothed", raw, "primary", smoothing=2.0),
    )
    for order in (lines, (lines[0], lines[2], lines[1])):
        figure = Figure(order, clip=True)
        seen = signs_of(figure, "success")
        assert len(seen) > 60
        drawn = text(figure, 120, 20)
        assert sum(drawn.count(sign) for sign in "⣶⠿⣤⠛⢰⢸⢠⡇⡄⡆") >= 20


@pytest.mark.parametrize("style", ["solid", "marked"])
def test_curves_that_coincide_take_turns(style):
    points = [(x, 1.0 + x) for x in range(0, 1000, 10)]
    figure = Figure((Line("a", points, "success", "solid"), Line("b", points, "primary", style)))
    assert len(signs_of(figure, "success")) > 20
    other = draw(figure, 120, 20, lambda name: Color.parse("#111111" if name == "background" else "white"))
    assert other.x_axis is not None


@pytest.mark.parametrize("theme", ["textual-dark", "textual-light", "solarized-light", "nord", "gruvbox"])
def test_lines_contrast_with_the_background_in_every_theme(theme):
    variables = BUILTIN_THEMES[theme].to_color_system().generate()
    back, fore = Color.parse(variables["background"]), Color.parse(variables["foreground"])
    for name in ("primary", "accent", "success", "error", "warning"):
        color = Color.parse(variables[name])
        assert contrast(readable(color, back, 5.5, fore), back) >= min(5.5, contrast(fore, back))
        assert contrast(faint(color, back, fore), back) >= 3


def test_contrast_is_that_of_wcag():
    """Values of the definition: black on white 21, #777777 on white 4.48."""
    white = Color.parse("#ffffff")
    assert contrast(Color.parse("#000000"), white) == pytest.approx(21)
    assert contrast(white, Color.parse("#777777")) == pytest.approx(4.48, abs=0.005)


def test_without_colours_lines_differ_by_their_dots():
    figure = Figure(tuple(Line(str(index), [(0, index), (999, index)]) for index in range(8)))
    rows = draw(figure, 120, 40, lambda name: Color.parse("white"), patterns=True).text.plain.splitlines()[:-2]
    dotted = {row.split("│")[-1].split("┤")[-1] for row in rows if any("\u2800" < sign <= "\u28ff" for sign in row)}
    shapes = {tuple((sign != " " and (ord(sign) & 0xC0 > 0, sign)) or sign for sign in row) for row in dotted}
    assert len(shapes) == 8


@pytest.mark.parametrize(
    ("value", "label"),
    [(0, "0"), (250, "250"), (1200, "1.2k"), (0.05, "0.05"), (4e-4, "4e-4"), (1.5e-5, "1.5e-5"), (999_920, "999.92k")],
)
def test_tick_labels_are_short_and_exact(value, label):
    assert tick_label(value) == label


def test_labels_of_times_and_bytes():
    assert [time_label(s) for s in (0, 30, 90, 300, 5400, 172_800)] == ["0", "30s", "1m30", "5m", "1h30", "2d"]
    assert [byte_label(b) for b in (0, 512, 1.25e9)] == ["0", "512B", "1.25GB"]


def test_a_curve_has_its_ticks_and_its_mark():
    drawn = text(Figure((Line("a", RAMP),), (VerticalMark(50, "lr × 0.5"),)))
    assert "lr × 0.5" in drawn
    assert "100" in drawn or "80" in drawn
    assert any("\u2800" < sign <= "\u28ff" for sign in drawn)


def test_one_point_is_a_sign_and_no_point_is_said():
    drawn = text(Figure((Line("a", [(1, 2.0)]),)))
    assert any("\u2800" < sign <= "\u28ff" for sign in drawn)
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
    figure = Figure((Line("a", points), Line("b", RAMP, "accent", "marked")), (VerticalMark(1, "x"),), log_y=log_y)
    for width, height in ((0, 0), (1, 1), (3, 2), (10, 4), (16, 4), (17, 5), (20, 5), (60, 12), (200, 60)):
        drawn = text(figure, width, height)
        assert len(drawn.splitlines()) <= max(height, 1)


class PlotApp(App[None]):
    AUTO_FOCUS = ""

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


def test_the_legend_has_the_colours_of_the_theme():
    async def story():
        app = PlotApp()
        async with app.run_test(size=(60, 12)) as pilot:
            plot = app.query_one(LinePlot)
            plot.show(Line("a", RAMP))
            await pilot.pause()
            dark = str(plot.border_subtitle)
            app.theme = "textual-light"
            await until(pilot, lambda: str(plot.border_subtitle) != dark)

    asyncio.run(story())


def test_a_plot_that_cannot_be_drawn_does_not_end_the_program(monkeypatch):
    def broken(*arguments):
        raise ZeroDivisionError("[/] no")

    async def story():
        app = PlotApp()
        async with app.run_test(size=(60, 12)) as pilot:
            monkeypatch.setattr(line_plot, "draw", broken)
            app.query_one(LinePlot).show(Line("a", RAMP))
            await pilot.pause()
            assert "could not be drawn" in app.query_one(LinePlot).render().plain

    asyncio.run(story())


def test_a_figure_is_drawn_once_until_it_changes(monkeypatch):
    drawn = []
    draw_really = line_plot.draw
    monkeypatch.setattr(line_plot, "draw", lambda *a: drawn.append(a) or draw_really(*a))

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


def legend(plot):
    return Content.from_markup(str(plot.border_subtitle)).plain


def test_the_cursor_reads_values_off():
    async def story():
        app = PlotApp()
        async with app.run_test(size=(70, 14)) as pilot:
            plot = app.query_one(LinePlot)
            plot.show(Line("loss", [(x, 100.0 + x) for x in range(1001)]), Line("val", [(400, 7.0)], style="marked"))
            plot.focus()
            await pilot.pause()
            assert "step 1,000  loss 1.1k  val 7 @400" in legend(plot)
            await pilot.press("home")
            assert "step 0  loss 100" in legend(plot)
            await pilot.press("right")
            step = plot.view.cursor
            assert 0 < step <= 40
            assert f"loss {100 + step:g}" in legend(plot)
            assert "│" in plot.render().plain
            app.set_focus(None)
            await pilot.pause()
            assert "step" not in legend(plot)

    asyncio.run(story())


def test_the_cursor_reaches_every_point_of_a_short_run():
    async def story():
        app = PlotApp()
        async with app.run_test(size=(70, 14)) as pilot:
            plot = app.query_one(LinePlot)
            plot.show(Line("loss", [(0, 1.0), (10, 2.0), (20, 3.0)]))
            plot.focus()
            await pilot.pause()
            seen = [plot.view.cursor]
            for _ in range(3):
                await pilot.press("left")
                seen.append(plot.view.cursor)
            assert seen == [20, 10, 0, 0]

    asyncio.run(story())


def test_zoom_pan_and_the_whole_run_again():
    async def story():
        app = PlotApp()
        async with app.run_test(size=(70, 14)) as pilot:
            plot = app.query_one(LinePlot)
            plot.show(Line("loss", [(x, x % 13) for x in range(1001)]))
            plot.focus()
            await pilot.press("plus", "plus")
            assert (plot.view.window.left, plot.view.window.right) == (750, 1000)
            assert "750" in plot.render().plain.splitlines()[-1] or "800" in plot.render().plain.splitlines()[-1]
            await pilot.press("comma")
            assert plot.view.window.right == 875
            await pilot.press("minus", "minus")
            assert plot.view.window is None
            await pilot.press("up", "0")
            assert plot.view.window is None

    asyncio.run(story())


def test_the_mouse_moves_the_cursor_and_the_wheel_zooms():
    async def story():
        app = PlotApp()
        async with app.run_test(size=(70, 14)) as pilot:
            plot = app.query_one(LinePlot)
            plot.show(Line("loss", [(x, x % 13) for x in range(1001)]))
            await pilot.pause()
            await pilot.hover(plot, offset=(35, 5))
            await pilot.pause()
            assert 400 < plot.view.cursor < 600
            await pilot._post_mouse_events([MouseScrollUp], plot, offset=(35, 5))
            await pilot.pause()
            assert plot.view.window.left < plot.view.cursor < plot.view.window.right
            assert plot.view.window.right - plot.view.window.left == 500

    asyncio.run(story())
