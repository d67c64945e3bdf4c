"""What the app does by itself: modes, training, leaving, help, palette, memory."""

import json

import pytest
from textual.command import CommandList
from textual.events import Key
from textual.widgets import Button, Input

from gpt2tui.errors import DataError
from gpt2tui.preset import files as preset_files
from gpt2tui.run import folder as runs
from gpt2tui.system.files import config_folder
from gpt2tui.tui.help import HelpScreen, bindings_by_place
from gpt2tui.tui.messages import PreparationAdvanced, RunAttached, RunOpened, RunsChanged, SessionChanged, TrainingBegun
from gpt2tui.tui.messages import TrainingEvents as Events
from gpt2tui.tui.widgets.dialogs import ConfirmDialog, ErrorDialog, TextDialog
from tests.tui.fake_training import FakeTraining, diverged
from tests.tui.looking import screen_text, until
from tests.tui.plain_workbench import drive


def small():
    return preset_files.load(["small"])


def heard(app, mode="train"):
    return app.screen_of(mode).heard


def kinds(app, mode="train"):
    return [type(message) for message in heard(app, mode)]


# ---- modes


@pytest.mark.slow
def test_digits_and_function_keys_change_the_mode_and_screens_keep_their_state():
    async def story(app, pilot):
        assert app.current_mode == "train"
        for key, mode in (("1", "presets"), ("f4", "chat"), ("4", "runs"), ("f2", "presets")):
            app.screen.set_focus(None)
            await pilot.press(key)
            await pilot.pause()
            assert app.current_mode == mode
        app.screen.query_one(Input).value = "kept"
        await pilot.press("f3", "f2")
        await pilot.pause()
        assert app.screen.query_one(Input).value == "kept"

    drive(story)


def test_a_digit_typed_into_an_input_is_text():
    async def story(app, pilot):
        await pilot.press("1")
        await pilot.pause()
        app.screen.query_one(Input).focus()
        await pilot.press("4", "f7")
        await pilot.pause()
        assert app.screen_of("presets").query_one(Input).value == "4"
        assert app.current_mode == "runs"  # function keys always work

    drive(story)


def test_the_mode_does_not_change_while_a_dialog_is_open():
    async def story(app, pilot):
        app.show_error("Oh", "no")
        await pilot.press("f2", "1")
        await pilot.pause()
        assert app.current_mode == "train"
        await pilot.press("enter", "f2")
        await pilot.pause()
        assert app.current_mode == "presets"

    drive(story)


@pytest.mark.slow
def test_a_second_press_on_a_dialog_answers_it_once_and_ends_nothing_below():
    async def story(app, pilot):
        answers = []
        app.push_screen(ConfirmDialog("Sure?", "", "Yes", "No"), answers.append)
        await pilot.pause()
        button = app.screen.query(Button).first()
        button.press()
        button.press()
        await pilot.pause()
        assert answers == ["Yes"]
        assert app.is_running

    drive(story)


def test_a_click_on_a_mode_goes_there():
    async def story(app, pilot):
        await pilot.click("ModeBar", offset=(40, 0))
        await pilot.pause()
        assert app.current_mode == "runs"

    drive(story)


# ---- training


def test_a_training_shows_itself_on_the_train_screen_in_order():
    async def story(app, pilot):
        await pilot.press("1")
        app.start_training(small())
        await until(pilot, lambda: Events in kinds(app))
        assert app.current_mode == "train"
        posted = kinds(app)
        assert posted[0] is TrainingBegun
        assert posted.index(RunOpened) < posted.index(Events)
        assert PreparationAdvanced in posted
        assert app.training_status.state == "training"
        assert app.training_status.run.endswith("small")

    drive(story, FakeTraining(preparation=["reading"] * 300))


def test_a_second_training_is_refused_with_a_notice():
    fake = FakeTraining()

    async def story(app, pilot):
        app.start_training(small())
        await until(pilot, lambda: app.session.state == "training")
        app.start_training(small())
        await pilot.pause()
        assert len(fake.launches) == 1
        assert any("running already" in notice.message for notice in app._notifications)

    drive(story, fake)


def test_events_wait_for_a_train_screen_that_is_not_there_yet():
    async def story(app, pilot):
        assert app.screen_of("train") is None
        app.start_training(small())
        await until(pilot, lambda: app.screen_of("train") is not None and Events in kinds(app))
        assert kinds(app)[0] is TrainingBegun

    settings = config_folder() / "settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"mode": "chat"}))
    drive(story)


def test_the_runs_and_chat_screens_hear_of_checkpoints():
    async def story(app, pilot):
        await pilot.press("f7", "f4")
        app.start_training(small())
        await until(pilot, lambda: app.session.state == "training")
        heard(app, "runs").clear()
        app.session.request("checkpoint")
        await until(pilot, lambda: RunsChanged in kinds(app, "runs") and RunsChanged in kinds(app, "chat"))

    drive(story)


def test_a_failed_training_is_a_dialog_and_the_app_stays():
    async def story(app, pilot):
        app.start_training(small())
        await until(pilot, lambda: isinstance(app.screen, ErrorDialog))
        assert SessionChanged in kinds(app)
        await pilot.press("enter")
        await pilot.pause()
        assert app.session.state == "failed"
        assert app.is_running

    drive(story, FakeTraining(fails=DataError("[/] the corpus \x1b]52;c;aGk=\x07 is empty")))


def test_after_a_divergence_the_training_resumes_at_half_the_learning_rate():
    fake = FakeTraining(fails=diverged(), fails_at=None)

    async def story(app, pilot):
        app.start_training(small())
        await until(pilot, lambda: app.session.state == "training")
        app.session.request("checkpoint")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("enter")
        await until(pilot, lambda: len(fake.launches) == 2)
        assert fake.launches[1].learning_rate_factor == 0.5
        assert fake.launches[1].resume == app.session.run

    drive(story, fake)


def test_attaching_shows_another_run_and_open_chat_selects_a_model(tmp_path):
    async def story(app, pilot):
        run = runs.create("other")
        app.attach_run(run)
        await until(pilot, lambda: RunAttached in kinds(app))
        app.open_chat(None)
        await until(pilot, lambda: app.current_mode == "chat" and app.screen.selected == [None])

    drive(story)


# ---- leaving


def test_without_a_training_quit_leaves_at_once():
    async def story(app, pilot):
        await pilot.press("ctrl+q")

    assert drive(story).return_code == 0


@pytest.mark.slow
def test_with_a_training_quit_asks_and_keep_training_keeps_it_running():
    async def story(app, pilot):
        app.start_training(small())
        await until(pilot, lambda: app.session.state == "training")
        await pilot.press("ctrl+q")
        await pilot.pause()
        assert isinstance(app.screen, ConfirmDialog)
        await pilot.press("ctrl+q", "right", "right", "enter")
        await pilot.pause()
        assert app.session.state == "training"
        assert app.is_running

    drive(story)


@pytest.mark.slow
def test_quit_right_behind_another_key_asks_where_that_key_has_led():
    async def story(app, pilot):
        app.start_training(small())
        await until(pilot, lambda: app.session.state == "training")
        for key in ("f2", "f4", "f7", "ctrl+q"):  # faster than the screens come
            app.post_message(Key(key, None))
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        assert app.current_mode == "runs"

    drive(story)


def test_stop_and_save_saves_before_it_leaves():
    fake = FakeTraining()

    async def story(app, pilot):
        app.start_training(small())
        await until(pilot, lambda: app.session.state == "training")
        await pilot.press("ctrl+q")
        await pilot.pause()
        await pilot.press("enter")
        await until(pilot, lambda: app.return_code is not None)
        assert app.session.state == "stopped"

    assert drive(story, fake).return_code == 0
    assert len(fake.saved) == 1


def test_leaving_while_preparing_saves_nothing():
    fake = FakeTraining(preparation=["tokenizing"] * 100_000)

    async def story(app, pilot):
        app.start_training(small())
        await until(pilot, lambda: app.session.preparation is not None)
        await pilot.press("ctrl+q")
        await until(pilot, lambda: "cancels the preparation" in screen_text(app))
        await pilot.press("enter")
        await until(pilot, lambda: app.return_code is not None)

    assert drive(story, fake).return_code == 0
    assert fake.saved == []


def test_something_unsaved_is_asked_about():
    async def story(app, pilot):
        app.screen.unsaved = "small has changes that are not saved"
        await pilot.press("ctrl+q")
        await pilot.pause()
        assert isinstance(app.screen, ConfirmDialog)
        await pilot.press("enter")
        await pilot.pause()
        assert app.is_running
        await pilot.press("ctrl+q")
        await pilot.pause()
        await pilot.press("right", "enter")

    assert drive(story).return_code == 0


def test_a_signal_stops_saves_and_leaves_without_asking():
    fake = FakeTraining()

    async def story(app, pilot):
        app.start_training(small())
        await until(pilot, lambda: app.session.state == "training")
        app.leave(143)
        await until(pilot, lambda: app.return_code is not None)

    assert drive(story, fake).return_code == 143
    assert len(fake.saved) == 1


def test_a_worker_that_fails_is_a_dialog_and_the_app_stays():
    async def story(app, pilot):
        def fail():
            raise OSError("the [/] disk is full")

        app.screen.run_worker(fail, thread=True)
        await until(pilot, lambda: isinstance(app.screen, ErrorDialog))
        assert app.is_running

    assert drive(story).return_code != 1


# ---- first run, help, palette, memory


@pytest.mark.slow
def test_the_first_run_offers_to_train_small_and_to_choose():
    fake = FakeTraining()

    async def story(app, pilot):
        buttons = app.screen.query(Button)
        assert len(buttons) == 2
        await pilot.click("#first-run-choose")
        await pilot.pause()
        assert app.current_mode == "presets"
        await pilot.press("f3")
        await pilot.pause()
        app.screen.query(Button).first().focus()
        await pilot.press("enter")
        await until(pilot, lambda: len(fake.launches) == 1)
        assert fake.launches[0].loaded.name == "small"

    drive(story, fake)


def test_help_is_made_of_the_bindings():
    async def story(app, pilot):
        places = bindings_by_place(app.screen)
        assert ("w", "Wave (say hello)", True) in places["This screen"]
        everywhere = {keys: what for keys, what, _ in places["Everywhere"]}
        assert everywhere["^q"] == "Quit"
        assert any("Presets" in what for what in everywhere.values())
        app.screen.set_focus(None)
        await pilot.press("question_mark")
        await pilot.pause()
        assert isinstance(app.screen, HelpScreen)
        await pilot.press("escape")
        await pilot.pause()
        assert not isinstance(app.screen, HelpScreen)

    drive(story)


def test_the_palette_has_keys_presets_and_runs():
    runs.create("old").info_file.write_text("{}")

    async def story(app, pilot):
        from gpt2tui.tui.palette import WorkbenchCommands

        provider = WorkbenchCommands(app.screen)
        await provider.startup()
        titles = {entry.title for entry in provider._entries()}
        name = runs.all_runs()[0].name
        wanted = {"Wave", "Go to Runs", "Train small", "Edit preset small", f"Show run {name}", f"Resume run {name}"}
        assert wanted <= titles
        assert "Training: pause" not in titles
        await pilot.press("ctrl+p")
        await pilot.pause()
        await pilot.press(*"wave")
        found = app.screen.query_one(CommandList)
        await until(pilot, lambda: found.option_count and found.get_option_at_index(0).hit.text == "Wave")
        await pilot.press("enter")
        await until(pilot, lambda: app.screen_of("train").waves == 1)

    drive(story)


def test_theme_and_mode_are_remembered():
    async def change(app, pilot):
        app.theme = "nord"
        await pilot.press("f4")
        await pilot.pause()

    async def look(app, pilot):
        assert app.theme == "nord"
        assert app.current_mode == "chat"

    drive(change)
    drive(look)


@pytest.mark.parametrize("content", ["{", '{"theme": 3, "mode": "nowhere"}', '{"theme": "no such theme"}'])
def test_damaged_settings_are_as_good_as_none(content):
    config_folder().mkdir(parents=True)
    (config_folder() / "settings.json").write_text(content)

    async def story(app, pilot):
        assert app.current_mode == "train"

    drive(story)


@pytest.mark.parametrize("size", [(80, 24), (20, 5), (2, 2)])
def test_no_size_ends_the_app(size):
    async def story(app, pilot):
        app.start_training(small())
        await until(pilot, lambda: app.session.state == "training")
        app.show_error("A title", "a message " * 40)
        await pilot.pause()
        await pilot.resize_terminal(20, 5)
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, ErrorDialog))
        app.screen.set_focus(None)
        await pilot.press("question_mark")
        await pilot.pause()

    drive(story, size=size)


def test_text_in_dialogs_is_never_markup():
    hostile = "[/] [bold]x[/bold] \x1b]52;c;aGk=\x07"

    async def story(app, pilot):
        answers = []
        app.push_screen(ConfirmDialog(hostile, hostile, hostile, "!" + hostile), answers.append)
        await pilot.pause()
        await pilot.press("enter")
        await pilot.pause()
        assert answers == [hostile]
        app.push_screen(TextDialog(hostile, hostile, hostile, validate=lambda text: hostile), answers.append)
        await pilot.pause()
        await pilot.press("enter")
        await pilot.pause()
        assert len(answers) == 1  # it is not valid
        await pilot.press("escape")
        await pilot.pause()
        assert answers[-1] is None
        assert "\x1b" not in app.export_screenshot()

    drive(story)
