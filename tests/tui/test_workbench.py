"""The workbench as it is shipped, all its screens in it, around a training that is only a story."""

import asyncio
from collections import Counter

import pytest
from textual.app import App
from textual.css import stylesheet
from textual.css.parse import parse
from textual.events import Resize
from textual.geometry import Size

from gpt2tui.preset import files as preset_files
from gpt2tui.preset.files import user_folder
from gpt2tui.tui.app import QuitDialog, WorkbenchApp
from gpt2tui.tui.base import SteadyScreen
from gpt2tui.tui.presets.form import PresetForm
from gpt2tui.tui.session import TrainingSession
from tests.tui.conftest import parse_rules
from tests.tui.fake_training import FakeTraining
from tests.tui.looking import until
from tests.tui.plain_workbench import first_mode


@pytest.mark.slow
def test_leaving_with_an_unsaved_preset_asks_and_a_saved_one_does_not():
    path = user_folder() / "mine.toml"
    preset_files.save(preset_files.load(["test"], ["data.tokenizer=byte"]).preset, path)

    async def run():
        app = WorkbenchApp(session=TrainingSession(FakeTraining()), preset=preset_files.load(["mine"]))
        async with app.run_test(size=(120, 36)) as pilot:
            await first_mode(pilot)
            await until(pilot, lambda: app.screen.query(PresetForm) and app.screen.query_one(PresetForm).fields())
            await pilot.press("enter", *"300")
            assert app.screen.unsaved_changes() is not None
            await pilot.press("ctrl+q")
            await until(pilot, lambda: isinstance(app.screen, QuitDialog))
            await pilot.press("escape")
            await pilot.press("ctrl+s")
            await until(pilot, lambda: preset_files.check(path).preset.model.vocab_size == 300)
            await pilot.press("ctrl+q")
        return app.return_code

    assert asyncio.run(run()) == 0


def test_style_sheets_are_parsed_once_for_each_theme(monkeypatch):
    parsed = Counter()

    def counted(scope, css, read_from, **options):
        parsed[read_from, css] += 1
        return parse(scope, css, read_from, **options)

    monkeypatch.setattr(stylesheet, "parse", counted)
    monkeypatch.setattr(stylesheet.Stylesheet, "_parse_rules", parse_rules)  # not that of conftest.py

    async def run():
        app = WorkbenchApp(session=TrainingSession(FakeTraining()))
        async with app.run_test(size=(120, 36)) as pilot:
            await first_mode(pilot)
            before = parsed.copy()
            await pilot.press("f7")
            await until(pilot, lambda: app.current_mode == "runs" and app.screen.is_mounted)
            assert set(parsed) > set(before)
            assert {source: parsed[source] for source in before} == before
            dark = app.screen.styles.background
            app.theme = "textual-light"
            await until(pilot, lambda: app.screen.styles.background != dark)
            assert all(parsed[source] > before[source] for source in before)

    asyncio.run(run())


MOST_LAYOUTS = 100


def layouts_after_two_sizes_at_once(screen_class):
    """How often a screen is laid out for two sizes that come at once while a mode is changed; ends at MOST_LAYOUTS."""

    class Counting(screen_class):
        layouts = 0

        def _refresh_layout(self, size=None, scroll=False):
            self.layouts += 1
            if self.layouts < MOST_LAYOUTS:
                super()._refresh_layout(size, scroll)

    async def run():
        app = App()
        async with app.run_test(size=(120, 36)) as pilot:
            screen = Counting()
            await app.push_screen(screen)
            app.delay_update()  # as switching modes does
            for size in (Size(20, 5), Size(120, 36)):
                screen.post_message(Resize(size, size))
                screen.call_later(lambda: None)  # or the second would take the place of the first
            rounds = []
            screen.call_later(rounds.append, 1)  # behind both
            await until(pilot, lambda: rounds and screen.size == (120, 36))
            return screen.layouts

    return asyncio.run(run())


@pytest.mark.slow
def test_a_screen_comes_to_rest_after_several_sizes_at_once():
    assert layouts_after_two_sizes_at_once(SteadyScreen) < 10
