"""Every theme can be read: the contrast of WCAG 2, computed from the cells as they are drawn."""

import asyncio

import pytest
from textual.color import Color
from textual.theme import BUILTIN_THEMES

from gpt2tui.tui.contrast import contrast
from tests.tui.looking import settled
from tests.tui.still_life import arrange, at_rest, still_life

THEMES = [name for name in BUILTIN_THEMES if not name.startswith("ansi-")]  # those have the terminal's own colours


@pytest.mark.parametrize(
    ("one", "other", "ratio"),
    [("#000", "#fff", 21.0), ("#777", "#fff", 4.48), ("#949494", "#fff", 3.03), ("#f00", "#00f", 2.15)],
)
def test_the_ratio_is_that_of_wcag(one, other, ratio):  # values of webaim.org/resources/contrastchecker
    assert contrast(Color.parse(one), Color.parse(other)) == pytest.approx(ratio, abs=0.01)
    assert contrast(Color.parse(other), Color.parse(one)) == pytest.approx(ratio, abs=0.01)


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


@pytest.mark.parametrize(
    ("mode", "themes"), [("presets", THEMES), ("chat", ["textual-dark", "textual-light", "solarized-light"])]
)
def test_text_and_lines_can_be_read_in_every_theme(monkeypatch, tmp_path, mode, themes):
    arrange(monkeypatch, tmp_path)

    async def story():
        async with still_life(mode, (120, 36)) as (app, pilot):
            await at_rest(app, pilot, "small")
            if mode == "chat":
                await pilot.press(*"the quick", "ctrl+g", "ctrl+t")
                await settled(pilot)
            for theme in themes:
                app.theme = theme
                await pilot.pause()
                await pilot.pause()
                assert not too_faint(app), theme

    asyncio.run(story())
