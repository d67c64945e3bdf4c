"""Every theme can be read: the contrast of WCAG 2, computed from the cells as they are drawn."""

import asyncio
import re
from pathlib import Path

import pytest
from textual.color import Color
from textual.theme import BUILTIN_THEMES

from gpt2tui.tui.app import WorkbenchApp
from gpt2tui.tui.contrast import contrast
from tests.tui.looking import screen_text, settled, until
from tests.tui.still_life import arrange, at_rest, still_life

THEMES = [name for name in BUILTIN_THEMES if not name.startswith("ansi-")]  # those have the terminal's own colours
SOME_THEMES = ["textual-dark", "textual-light", "solarized-light"]


@pytest.mark.parametrize(
    ("one", "other", "ratio"),
    [("#000", "#fff", 21.0), ("#777", "#fff", 4.48), ("#949494", "#fff", 3.03), ("#f00", "#00f", 2.15)],
)
def test_the_ratio_is_that_of_wcag(one, other, ratio):  # values of webaim.org/resources/contrastchecker
    assert contrast(Color.parse(one), Color.parse(other)) == pytest.approx(ratio, abs=0.01)
    assert contrast(Color.parse(other), Color.parse(one)) == pytest.approx(ratio, abs=0.01)


@pytest.mark.parametrize("theme", THEMES)
def test_scrollbars_are_seen(theme):
    """They are areas, which nothing moves away from their background."""
    share = int(re.search(r"scrollbar-color: \$foreground (\d+)%", Path(WorkbenchApp.CSS_PATH).read_text())[1]) / 100
    colours = BUILTIN_THEMES[theme].to_color_system().generate()
    background, foreground = Color.parse(colours["background"]), Color.parse(colours["foreground"])
    assert contrast(background.blend(foreground, share), background) > 2.3


def too_faint(app):
    """(text, its contrast) of all cells that are below 4.5, or for lines below 3."""
    behind = Color.parse(app.theme_variables["background"])
    found = []
    for strip in app.screen._compositor.render_strips():
        for text, style, _ in strip:
            signs = "".join(text.split())
            if not signs or style is None or style.color is None or all("▀" <= sign <= "▟" for sign in signs):
                continue
            under = Color(*style.bgcolor.triplet) if style.bgcolor is not None and style.bgcolor.triplet else behind
            ratio = contrast(Color(*style.color.triplet), under)
            lines = all("─" <= sign <= "╿" or "⠀" <= sign <= "⣿" for sign in signs)
            if ratio < (3.0 if lines else 4.5) - 0.01:
                found.append((text, round(ratio, 2)))
    return found


async def with_a_heat_map(app, pilot):
    await at_rest(app, pilot, "small")
    await pilot.press(*"the quick", "ctrl+g", "ctrl+t")
    await settled(pilot)


async def with_marked_runs(app, pilot):
    await settled(pilot)
    await until(pilot, lambda: "finished" in screen_text(app))
    await pilot.press("space", "down", "space", "d")
    await settled(pilot)


async def with_all_curves(app, pilot):
    screen = app.screen
    await until(pilot, lambda: screen.view.history.step is not None and not screen.plots.outdated(screen.view))


async def with_the_estimate(app, pilot):
    await at_rest(app, pilot, "Estimate")


@pytest.mark.slow
@pytest.mark.parametrize(
    "themes", [pytest.param(SOME_THEMES, id="some"), pytest.param(THEMES, id="all", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    ("mode", "size", "story"),
    [
        ("presets", (120, 36), with_the_estimate),
        ("chat", (120, 36), with_a_heat_map),
        ("train", (160, 50), with_all_curves),
        ("runs", (160, 50), with_marked_runs),
    ],
)
def test_text_and_lines_can_be_read_in_every_theme(monkeypatch, tmp_path, mode, size, story, themes):
    arrange(monkeypatch, tmp_path)

    async def test():
        async with still_life(mode, size) as (app, pilot):
            await story(app, pilot)
            for theme in themes:
                app.theme = theme
                await pilot.pause()
                await pilot.pause()
                assert not too_faint(app), theme

    asyncio.run(test())
