"""Dialogs and the palette over the screens."""

import pytest

from gpt2tui.tui.help import HelpScreen
from gpt2tui.tui.presets.list import DifferenceDialog
from gpt2tui.tui.widgets.dialogs import ConfirmDialog, ErrorDialog, TextDialog
from tests.tui.looking import screen_text, until
from tests.tui.plain_workbench import drive

DIALOGS = {
    "confirm": lambda app: ConfirmDialog("Sure?", "Really?"),
    "error": lambda app: ErrorDialog("Oh", "no"),
    "text": lambda app: TextDialog("Name", "Which?"),
    "help": lambda app: HelpScreen(app.screen),
    "differences": lambda app: DifferenceDialog("Differences", []),
}


@pytest.mark.parametrize("dialog", DIALOGS.values(), ids=DIALOGS)
def test_a_dialog_dims_the_screen_and_does_not_hide_it(dialog):
    async def story(app, pilot):
        app.push_screen(dialog(app))
        await until(pilot, lambda: len(app.screen_stack) == 2 and app.screen.is_mounted)
        assert "1 Presets  2 Train" in screen_text(app)

    drive(story)


@pytest.mark.slow
def test_the_screenshot_is_in_the_current_folder_with_its_footer(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    said = []

    async def story(app, pilot):
        monkeypatch.setattr(app, "notify", lambda message, **options: said.append(message))
        for _ in range(2):
            await pilot.press("ctrl+p", *"screenshot")
            await until(pilot, lambda: "Save this screen" in screen_text(app))
            seen = len(said)
            await pilot.press("down", "enter")
            await until(pilot, lambda seen=seen: len(said) > seen)

    drive(story)
    pictures = sorted(tmp_path.glob("*.svg"))
    assert sorted(said) == [f"saved {path}" for path in pictures]
    assert len(pictures) == 2
    for picture in pictures:
        text = picture.read_text(encoding="utf-8")
        assert "Presets" in text
        assert "Wave" in text  # a key of the footer
        assert "Save this screen" not in text


def test_a_folder_that_cannot_be_written_is_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def refuse(path, text):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("gpt2tui.tui.app.replace_text", refuse)

    async def story(app, pilot):
        await app.run_action("picture")
        await until(pilot, lambda: isinstance(app.screen, ErrorDialog))
        assert "Permission denied" in screen_text(app)
        assert tmp_path.name in screen_text(app).replace("\n", "").replace(" ", "").replace("│", "")

    drive(story)
