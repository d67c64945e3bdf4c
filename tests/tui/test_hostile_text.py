"""Text that is not ours can neither style nor control the terminal, nor end the program, wherever it is shown."""

import asyncio
import json
import logging
import unicodedata

import pytest
from textual.app import App
from textual.events import Paste
from textual.geometry import Size
from textual.widgets import Input, Static, TextArea

from gpt2tui.errors import DataError
from gpt2tui.preset import files as preset_files
from gpt2tui.run import events
from gpt2tui.run import folder as runs
from gpt2tui.system.files import config_folder, runs_folder
from gpt2tui.tui.app import WorkbenchApp
from gpt2tui.tui.session import TrainingSession
from gpt2tui.tui.settings import UserSettings
from gpt2tui.tui.terminal import log_file, terminal_for_the_screen
from gpt2tui.tui.widgets.dialogs import ConfirmDialog, ErrorDialog, TextDialog
from tests.tui.fake_runs import append, write_run
from tests.tui.fake_training import FakeTraining
from tests.tui.looking import settled, until
from tests.tui.plain_workbench import first_mode

HOSTILE = (
    "\x1b]52;c;aGFja2Vk\x07\x1b[31mred\x1b[2J [/] [/foo] [red]x[/red] [@click=app.quit]y[/] [link=file:///etc]z[/link] "
    "\x9b31m \x90q \u202eesrever\u202c \x00 \x7f \r\n\x0b end \\[ ]"
)
NAME = "2026-01-01-000000-\x1b]52;c;eA==\x07[red]b[bold]‮[@click=app.quit]"  # what a file name can hold


class UnfilteredWorkbench(WorkbenchApp):
    """Without the filter before the terminal: each widget has to make its text harmless by itself."""

    def get_line_filters(self):
        return App.get_line_filters(self)


def shown(app):
    """Every cell of the screen as (text, style), of the screens below a dialog too."""
    for screen in app.screen_stack:
        for line in screen._compositor.render_strips(Size(*app.size)):
            yield from ((segment.text, segment.style) for segment in line)


def text_of(app):
    return "".join(text for text, _ in shown(app))


def assert_harmless(app):
    for text, style in shown(app):
        bad = [c for c in text if unicodedata.category(c) in ("Cc", "Cs") or c in "\u202e\u202c\u2028"]
        assert not bad, (text, bad)
        if style is not None:
            assert "app.quit" not in str(style.meta), text
            assert not style.link, text


async def settle(pilot, condition=lambda: True):
    await until(pilot, condition)
    await settled(pilot)
    assert_harmless(pilot.app)


def drive(story, training=None, size=(120, 36)):
    async def run():
        app = UnfilteredWorkbench(session=TrainingSession(training or FakeTraining()))
        async with app.run_test(size=size) as pilot:
            await first_mode(pilot)
            await settle(pilot)
            await story(app, pilot)
            assert app.return_code is None
            app.session.stop()
            app.session.join(5)

    asyncio.run(run())


def hostile_run():
    settings = [f"{key}={toml(HOSTILE)}" for key in ("sampling.prompt", "data.source", "description")]
    run = write_run(NAME, steps=60, ending="failed", checkpoints=(50,), sample=HOSTILE, overrides=settings)
    append(
        run,
        events.Warned(message=HOSTILE),
        events.Sampled(step=60, prompt=HOSTILE, text=HOSTILE),
        events.RunFailed(step=60, message=HOSTILE),
    )
    return run


def toml(text):
    return json.dumps(text).replace("\\u007f", "\\u007F").replace("\x7f", "\\u007f")


def hostile_preset():
    path = config_folder() / "presets" / f"{NAME}.toml"
    preset = preset_files.load(["test"], [f"description={toml(HOSTILE)}", f"sampling.prompt={toml(HOSTILE)}"]).preset
    preset_files.save(preset, path)
    return path


@pytest.mark.slow
def test_the_runs_screen_shows_it_as_text():
    hostile_run()
    write_run("2026-01-01-000000-a")

    async def story(app, pilot):
        await app.switch_mode("runs")
        await settle(pilot, lambda: "k=app.quit]" in text_of(app))  # the end of its name
        for key in ("space", "down", "space", "d", "escape", "u", "c", "delete"):
            await pilot.press(key)
            await settle(pilot)
        assert isinstance(app.screen, ConfirmDialog)
        await pilot.press("escape", "slash", *"red")
        await settle(pilot)

    drive(story)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(120, 36), (30, 8)])
def test_the_train_screen_shows_it_as_text(size):
    run = hostile_run()

    async def story(app, pilot):
        app.attach_run(run)
        await settle(pilot, lambda: app.current_mode == "train" and app.screen.view.history.progress.step == 60)
        for key in ("left", "right", "right_square_bracket", "y", "s", "w", "c"):
            await pilot.press(key)
            await settle(pilot)

    drive(story, size=size)


@pytest.mark.slow
def test_the_presets_screen_shows_it_as_text():
    hostile_preset()

    async def story(app, pilot):
        await app.switch_mode("presets")
        await settle(pilot, lambda: app.screen.query("SettingField"))
        app.open_preset(NAME)
        await settle(pilot, lambda: "esrever" in text_of(app))
        for key in ("v", "escape", "d", "escape", "r", "escape", "delete", "escape"):
            await pilot.press(key)
            await settle(pilot)
        await pilot.press("enter")
        for _ in range(45):  # through every field
            await pilot.press("tab")
            await settle(pilot)

    drive(story)


@pytest.mark.slow
def test_the_chat_screen_shows_it_as_text():
    hostile_run()

    async def story(app, pilot):
        await app.switch_mode("chat")
        await settle(pilot, lambda: "[red]b" in text_of(app))

    drive(story)


@pytest.mark.slow
def test_dialogs_notices_and_the_palette_show_it_as_text():
    hostile_run()
    hostile_preset()

    async def story(app, pilot):
        app.show_error(HOSTILE, HOSTILE)
        await settle(pilot)
        assert isinstance(app.screen, ErrorDialog)
        await pilot.press("escape")
        for dialog in (ConfirmDialog(HOSTILE, HOSTILE, HOSTILE, "!" + HOSTILE), TextDialog(HOSTILE, HOSTILE, HOSTILE)):
            app.push_screen(dialog)
            await settle(pilot)
            await pilot.press("escape")
        await pilot.press("ctrl+p")
        await settle(pilot)
        await pilot.press(*"2026")
        await settle(pilot)

    drive(story)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["presets", "train", "chat", "runs"])
def test_pasted_text_is_harmless_in_every_input_and_in_the_palette(mode):
    write_run("2026-01-01-000000-a")
    UserSettings().remember("run", "2026-01-01-000000-a")

    async def story(app, pilot):
        await app.switch_mode(mode)
        await settle(pilot)
        if mode != "chat":
            await pilot.press("slash")
            app.post_message(Paste(HOSTILE))
            await settle(pilot)
        for entry in [*app.screen.query(Input), *app.screen.query(TextArea)]:
            if entry.focusable:
                entry.focus(scroll_visible=False)
                app.post_message(Paste(HOSTILE))
        await settle(pilot)
        await pilot.press("ctrl+p")
        app.post_message(Paste(HOSTILE))
        await settle(pilot)
        assert "red" in app.screen.query_one(Input).value

    drive(story)


def test_the_log_shows_it_as_text():
    with terminal_for_the_screen():
        logging.getLogger("gpt2tui").error("%s", HOSTILE)
    logged = log_file().read_text(encoding="utf-8")
    assert "esrever" in logged
    assert not [c for c in logged if unicodedata.category(c) in ("Cc", "Cf") and c != "\n"]


def test_a_training_that_fails_with_it_is_a_dialog():
    async def story(app, pilot):
        app.start_training(preset_files.load(["test"]))
        await settle(pilot, lambda: isinstance(app.screen, ErrorDialog))

    drive(story, FakeTraining(fails=DataError(HOSTILE)))


@pytest.mark.slow
def test_the_check_sees_what_it_looks_for():
    """The control: the same text shown without care is found, and the filter is the last to stop it."""

    async def run(app):
        async with app.run_test() as pilot:
            await first_mode(pilot)
            await app.screen.mount(Static("a\x1b[31mb\u202ec", markup=False))
            await pilot.pause()
            assert any("[31mb" in text for text, _ in shown(app))
            assert_harmless(app)

    with pytest.raises(AssertionError, match="x1b"):
        asyncio.run(run(UnfilteredWorkbench()))
    asyncio.run(run(WorkbenchApp()))


def test_the_folder_of_runs_really_has_the_hostile_name():
    run = hostile_run()
    assert run.folder in list(runs_folder().iterdir())
    assert "\x1b" in runs.all_runs()[0].folder.name
