"""Whether something is on can be read without colour."""

import asyncio

import pytest
from textual.app import App

from gpt2tui.tui.widgets.toggles import Switch, SwitchList
from tests.tui.looking import screen_text, until


@pytest.mark.parametrize("widget", [lambda: Switch("a"), lambda: SwitchList(("a", 1), ("b", 2, True))])
def test_only_what_is_on_has_a_mark(widget):
    class Shown(App):
        def compose(self):
            yield widget()

    async def test():
        app = Shown()
        async with app.run_test(size=(30, 8)) as pilot:
            app.screen.query_one("*").focus()
            await until(pilot, lambda: "▐ ▌ a" in screen_text(app))
            assert screen_text(app).count("X") == ("b" in screen_text(app))
            await pilot.press("space")
            await until(pilot, lambda: "▐X▌ a" in screen_text(app))
            await pilot.press("space")
            await until(pilot, lambda: "▐ ▌ a" in screen_text(app))

    asyncio.run(test())
