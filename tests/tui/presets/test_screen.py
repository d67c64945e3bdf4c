"""The Presets screen, driven by keys and mouse."""

from dataclasses import replace

import pytest
from textual.widgets import Button, Input, Static

from gpt2tui.preset import files as preset_files
from gpt2tui.preset.files import shipped_folder, user_folder
from gpt2tui.tui.presets.costs import Found
from gpt2tui.tui.presets.estimator import Estimator
from gpt2tui.tui.presets.field import Choice
from gpt2tui.tui.presets.form import PresetForm
from gpt2tui.tui.presets.list import DifferenceDialog, PresetList
from gpt2tui.tui.widgets.dialogs import ConfirmDialog, TextDialog
from tests.preset.optional_table import extra_table  # noqa: F401
from tests.tui.looking import screen_text, settled, until
from tests.tui.presets_app import SPEED, PresetsApp, drive, own_preset, write

SMALL = preset_files.load(["small"]).preset
COUNT = SMALL.with_vocab_size(SMALL.known_vocab_size).model.parameter_count()
N_LAYER, N_HEAD = str(SMALL.model.n_layer), str(SMALL.model.n_head)


def title(app):
    """The title of the form: the name of the preset, without the mark of unsaved changes."""
    return app.presets.query_one("#form-pane").border_title.lstrip("* ")


async def open_preset(app, pilot, name):
    app.presets.select_preset(name)
    await until(pilot, lambda: title(app).startswith(name))
    await settled(pilot)


@pytest.mark.slow
def test_the_form_has_a_field_for_every_setting(monkeypatch):
    async def script(app, pilot):
        assert [field.setting for field in app.form.fields()] == list(preset_files.settings())
        assert "small" in screen_text(app)
        assert f"{COUNT:,}" in screen_text(app)
        assert app.presets.unsaved_changes() is None  # opening changes nothing

    drive(script, monkeypatch)


@pytest.mark.slow
def test_a_mistake_is_shown_below_its_field_and_prevents_saving_and_training(monkeypatch):
    async def script(app, pilot):
        own_preset("mine", "[model]\nn_layer = 2\n")
        await open_preset(app, pilot, "mine")
        await write(app, pilot, "model.n_embd", "100")
        assert app.form.field("model.n_embd").mistake == "100 is not divisible by n_head = 12"
        assert "✗ n_embd" in screen_text(app)
        await pilot.press("ctrl+s", "ctrl+t")
        await settled(pilot)
        assert app.trained == []
        assert app.screen is app.presets
        assert "n_embd" not in preset_files.find("mine").read_text()
        await write(app, pilot, "model.n_head", "10")
        assert not app.form.field("model.n_embd").mistake

    drive(script, monkeypatch)


@pytest.mark.slow
def test_the_command_line_trains_what_was_saved(monkeypatch):
    async def script(app, pilot):
        own_preset("mine", "[model]\nn_layer = 2\n")
        await open_preset(app, pilot, "mine")
        await write(app, pilot, "optimizer.lr", "2e-3")
        assert app.presets.unsaved_changes() == "unsaved changes of the preset mine"
        await pilot.press("ctrl+s")
        await until(pilot, lambda: app.presets.unsaved_changes() is None)
        await pilot.press("ctrl+t")
        (loaded,) = app.trained
        assert loaded == preset_files.load(["mine"])
        assert loaded.preset.optimizer.lr == 2e-3

    drive(script, monkeypatch)


@pytest.mark.slow
def test_unsaved_changes_are_trained_as_they_are(monkeypatch):
    async def script(app, pilot):
        await write(app, pilot, "training.num_iterations", "500")
        await pilot.click("#train")
        assert [loaded.preset.training.num_iterations for loaded in app.trained] == [500]
        assert app.trained[0].name == "small"

    drive(script, monkeypatch)


@pytest.mark.slow
def test_a_shipped_preset_is_saved_under_another_name(monkeypatch):
    before = (shipped_folder() / "small.toml").read_bytes()

    async def script(app, pilot):
        await write(app, pilot, "model.n_layer", "2")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: isinstance(app.screen, TextDialog))
        assert app.screen.query_one(Input).value == "small-2"
        await pilot.press("enter")
        await until(pilot, lambda: app.presets.unsaved_changes() is None)
        assert preset_files.load(["small-2"]).preset.model.n_layer == 2
        await open_preset(app, pilot, "small")
        assert app.editor("model.n_layer").value == N_LAYER

    drive(script, monkeypatch)
    assert (shipped_folder() / "small.toml").read_bytes() == before


@pytest.mark.slow
def test_undo_and_redo_show_in_the_form(monkeypatch):
    async def script(app, pilot):
        await write(app, pilot, "model.n_layer", "11")
        await write(app, pilot, "model.n_head", "1")
        await pilot.press("ctrl+z")
        assert app.editor("model.n_head").value == N_HEAD
        await pilot.press("ctrl+z")
        assert app.editor("model.n_layer").value == N_LAYER
        assert app.presets.unsaved_changes() is None
        await pilot.press("ctrl+y")
        assert app.editor("model.n_layer").value == "11"

    drive(script, monkeypatch)


@pytest.mark.slow
def test_choices_and_switches_by_key_and_mouse(monkeypatch):
    async def script(app, pilot):
        app.editor("model.bias").focus()
        await pilot.press("left")
        assert app.editor("model.bias").value == "off"
        app.editor("data.tokenizer").focus()
        before = app.editor("data.tokenizer").value
        await pilot.press("space")
        assert app.editor("data.tokenizer").value == before  # neither changes a value in passing
        assert app.said == ["← and → choose another value"]
        await pilot.press("enter")
        assert app.editor("data.tokenizer").value == before
        assert app.editor("data.validation_fraction").has_focus
        app.editor("data.tokenizer").focus()
        await pilot.press("right")
        await settled(pilot)
        tokenizer = app.editor("data.tokenizer")
        assert isinstance(tokenizer, Choice)
        assert tokenizer.value == "char"
        await pilot.click(tokenizer, offset=(1, 0))
        assert tokenizer.value == "gpt2"
        await until(pilot, lambda: app.form.field("model.vocab_size").mistake)

    drive(script, monkeypatch)


@pytest.mark.slow
def test_the_focused_field_is_explained_with_its_override(monkeypatch):
    async def script(app, pilot):
        await write(app, pilot, "data.source", "my texts")
        text = screen_text(app)
        assert "The corpus: python-stdlib" in text
        assert "--set 'data.source=my texts'" in text
        await write(app, pilot, "model.n_layer", "5")
        assert "--set model.n_layer=5  a whole number from 1 to 1,000" in screen_text(app)

    drive(script, monkeypatch)


@pytest.mark.slow
def test_edits_stay_while_another_preset_is_shown(monkeypatch):
    async def script(app, pilot):
        await write(app, pilot, "model.n_layer", "55")
        await pilot.press("escape", "down")
        layers = str(preset_files.load(["test"]).preset.model.n_layer)
        await until(pilot, lambda: app.editor("model.n_layer").value == layers)
        assert "* small" in screen_text(app)
        await pilot.press("up")
        await until(pilot, lambda: app.editor("model.n_layer").value == "55")

    drive(script, monkeypatch)


@pytest.mark.slow
def test_the_filter_narrows_the_list_and_escape_ends_it(monkeypatch):
    async def script(app, pilot):
        await pilot.press("slash", *"124")
        presets = app.presets.query_one(PresetList)
        await until(pilot, lambda: "bigger_default" not in screen_text(app))
        assert "gpt2-124m" in screen_text(app)
        await pilot.press("enter")
        await until(pilot, lambda: app.editor("model.n_embd").value == "768")
        await pilot.press("escape")
        await until(pilot, lambda: presets.has_focus and "bigger_default" in screen_text(app))

    drive(script, monkeypatch)


@pytest.mark.slow
def test_saving_keeps_comments_and_asks_nothing(monkeypatch):
    async def script(app, pilot):
        path = own_preset("mine", "[model]\nn_layer = 2 # why so few\n")
        await open_preset(app, pilot, "mine")
        await write(app, pilot, "model.n_layer", "4")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: path.read_text() == "[model]\nn_layer = 4 # why so few\n")
        assert app.screen is app.presets

    drive(script, monkeypatch)


@pytest.mark.slow
def test_saving_asks_before_it_removes_unknown_keys(monkeypatch):
    async def script(app, pilot):
        path = own_preset("mine", "[model]\nn_layer = 2\nlayers = 3\n")
        await open_preset(app, pilot, "mine")
        await write(app, pilot, "model.n_layer", "4")
        await pilot.press("ctrl+s")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("escape")
        await settled(pilot)
        assert "layers = 3" in path.read_text()
        await pilot.press("ctrl+s")
        await until(pilot, lambda: app.screen is not app.presets)
        await pilot.press("tab", "enter")  # Save without
        await until(pilot, lambda: path.read_text() == "[model]\nn_layer = 4\n")

    drive(script, monkeypatch)


@pytest.mark.slow
def test_a_change_on_disk_is_reloaded_where_nothing_is_unsaved(monkeypatch):
    async def script(app, pilot):
        path = own_preset("mine", "[model]\nn_layer = 2\n")
        await open_preset(app, pilot, "mine")
        path.write_text("[model]\nn_layer = 11\n")
        await until(pilot, lambda: app.editor("model.n_layer").value == "11")
        assert any("changed on disk" in said for said in app.said)

    drive(script, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize(("keys", "layers"), [(("enter",), "4"), (("tab", "enter"), "11")])
def test_a_change_on_disk_is_asked_about_where_something_is_unsaved(monkeypatch, keys, layers):
    async def script(app, pilot):
        path = own_preset("mine", "[model]\nn_layer = 2\n")
        await open_preset(app, pilot, "mine")
        await write(app, pilot, "model.n_layer", "4")
        path.write_text("[model]\nn_layer = 11\n")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press(*keys)
        await settled(pilot)
        assert app.screen is app.presets  # it asks once
        assert app.editor("model.n_layer").value == layers

    drive(script, monkeypatch)


@pytest.mark.slow
def test_duplicate_rename_delete(monkeypatch):
    async def script(app, pilot):
        await pilot.press("d")
        await until(pilot, lambda: app.screen is not app.presets)
        await pilot.press("enter")
        await until(pilot, lambda: any(source.name == "small-2" for source in preset_files.available()))
        assert "# What:" in preset_files.find("small-2").read_text()
        await until(pilot, lambda: title(app).startswith("small-2"))
        await pilot.press("r")
        await until(pilot, lambda: app.screen is not app.presets)
        await pilot.press(*"tiny", "enter")
        await until(pilot, lambda: title(app).startswith("tiny"))
        assert not any(source.name == "small-2" for source in preset_files.available())
        await pilot.press("D")
        await until(pilot, lambda: app.screen is not app.presets)
        await pilot.press("escape")
        await settled(pilot)
        assert preset_files.find("tiny").exists()
        await pilot.press("D")
        await until(pilot, lambda: app.screen is not app.presets)
        await pilot.press("tab", "enter")
        await until(pilot, lambda: not any(source.name == "tiny" for source in preset_files.available()))

    drive(script, monkeypatch)


@pytest.mark.slow
def test_a_shipped_preset_is_neither_renamed_nor_deleted(monkeypatch):
    async def script(app, pilot):
        await pilot.press("r", "D")
        await settled(pilot)
        assert app.screen is app.presets
        assert app.presets.query_one("#tool-delete", Button).disabled

    drive(script, monkeypatch)


@pytest.mark.slow
def test_the_difference_is_shown_from_the_saved_and_from_the_shipped(monkeypatch):
    async def script(app, pilot):
        app.presets.action_duplicate()
        await until(pilot, lambda: app.screen is not app.presets)
        await pilot.press("enter")
        await settled(pilot)
        await write(app, pilot, "optimizer.lr", "0.5")
        await pilot.press("escape", "v")
        await until(pilot, lambda: isinstance(app.screen, DifferenceDialog))
        text = screen_text(app)
        assert "from the saved small-2" in text
        assert "from the shipped small" in text
        assert text.count(f"optimizer.lr  {SMALL.optimizer.lr} → 0.5") == 2
        await pilot.press("escape")
        assert app.screen is app.presets

    drive(script, monkeypatch)


@pytest.mark.slow
def test_text_that_is_not_ours_neither_styles_nor_controls_the_terminal(monkeypatch):
    evil = r'"\u001b]52;c;aGk=\u0007[/red][b]\u202e"'

    async def script(app, pilot):
        own_preset("evil", f"description = {evil}\n[data]\nsource = {evil}\n[tracking]\nwandb = {evil}\n")
        own_preset("[b]\x1b[31m", "[oh\n")
        await open_preset(app, pilot, "evil")
        await settled(pilot)
        await pilot.press("v")
        await settled(pilot)
        await pilot.press("escape")
        app.editor("data.source").focus()
        await settled(pilot)
        text = screen_text(app)
        assert "␛]52" in text
        assert "[b]␛[31m" in text
        assert not set(text) & {"\x1b", "\x07", "\u202e"}
        assert "*" not in app.presets.query_one("#form-pane").border_title  # shown otherwise is not changed
        assert app.presets.unsaved_changes() is None
        app.presets.select_preset(next(row.id for row in app.presets.open_presets.rows() if "31m" in row.name))
        await until(pilot, lambda: not app.form.display and "TOML" in screen_text(app))
        assert "not TOML" in app.presets.query_one("#preset-file", Static).content.plain  # lines break on the screen
        assert not set(screen_text(app)) & {"\x1b", "\x07", "\u202e"}

    drive(script, monkeypatch)


@pytest.mark.slow
def test_the_preset_of_the_command_line_opens_with_its_overrides_unsaved(monkeypatch):
    async def script(app, pilot):
        assert app.editor("training.seed").value == "7"
        assert app.presets.unsaved_changes()

    app = PresetsApp(preselected=preset_files.load(["gpt2-124m"], ["training.seed=7"]))
    drive(script, monkeypatch, app=app)


@pytest.mark.slow
def test_the_last_preset_is_opened_again(monkeypatch):
    async def first(app, pilot):
        await pilot.press("down")
        await settled(pilot)

    async def second(app, pilot):
        assert app.presets.query_one("#form-pane").border_title.startswith("test")

    drive(first, monkeypatch)
    drive(second, monkeypatch)


@pytest.mark.slow
def test_the_estimate_follows_and_is_red_where_memory_is_short(monkeypatch):
    async def script(app, pilot):
        await open_preset(app, pilot, "gpt2-1558m")
        estimator = app.presets.query_one(Estimator)
        assert estimator.costs.estimate.parameters.total == 1_557_611_200
        assert "more than is free" in screen_text(app)
        before = estimator.costs
        await write(app, pilot, "model.n_layer", "x")
        assert estimator.costs is before  # what it was stays, dim
        assert "1 error: model.n_layer" in screen_text(app)
        assert app.presets.query_one("#train", Button).disabled

    drive(script, monkeypatch)


@pytest.mark.slow
def test_no_device_is_measured_while_a_training_runs(monkeypatch):
    measured = []

    async def script(app, pilot):
        await until(pilot, lambda: "measured after the training" in screen_text(app))
        assert not measured
        app.session.active = False
        await until(pilot, lambda: measured and "on 2 CPU threads, fp32" in screen_text(app))

    def measure(preset):
        measured.append(preset)
        return Found(SPEED)

    app = PresetsApp()
    app.session.active = True
    drive(script, monkeypatch, app=app, measure=measure)


@pytest.mark.slow
def test_a_measurement_during_a_training_is_repeated(monkeypatch):
    measured = []
    poisoned = replace(SPEED, flops_per_second_achievable=1.0)
    app = PresetsApp()

    def measure(preset):
        measured.append(preset)
        if len(measured) == 1:
            app.session.launch = "began and ended meanwhile"
            return Found(poisoned)
        return Found(SPEED)

    async def script(app, pilot):
        await until(pilot, lambda: len(measured) == 2)
        assert app.presets.query_one(Estimator).costs.estimate.seconds < 3600 * 24

    drive(script, monkeypatch, app=app, measure=measure)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(80, 24), (20, 5), (1, 1)])
def test_it_fits_every_terminal(monkeypatch, size):
    async def script(app, pilot):
        app.editor("model.n_embd").focus()
        await pilot.press("9")
        await settled(pilot)
        if size[1] >= 24:
            assert "n_embd" in screen_text(app)
            assert "tokens" in screen_text(app)
        await pilot.resize_terminal(200, 60)
        await pilot.pause()

    drive(script, monkeypatch, size=size)


@pytest.mark.slow
def test_pages_go_from_table_to_table(monkeypatch):
    async def script(app, pilot):
        app.query_one(PresetForm).focus_field("model.n_layer")
        await pilot.press("pagedown")
        assert app.editor("data.source").has_focus
        await pilot.press("pageup")
        assert app.editor("model.vocab_size").has_focus
        await pilot.press("up")
        assert app.editor("description").has_focus
        app.form.focus_field("model.n_layer")
        for title in ("[data]", "[optimizer]", "[schedule]"):
            await pilot.press("pagedown")
            await until(pilot, lambda title=title: title in screen_text(app))
            shown = next(f for f in app.form.fields() if f.has_focus_within)
            await until(pilot, lambda shown=shown: shown.region.y > app.form.region.y)
            assert shown.region.bottom <= app.form.region.bottom

    drive(script, monkeypatch)


@pytest.mark.slow
def test_an_optional_table_is_a_switch_and_its_fields_are_there_with_it(monkeypatch, extra_table):  # noqa: F811
    async def script(app, pilot):
        rank = app.form.field("extra.rank")
        assert not rank.display
        app.editor("extra").focus()
        await until(pilot, lambda: "[extra]" in screen_text(app) and "--set extra=false" in screen_text(app))
        await pilot.press("right")
        await until(pilot, lambda: rank.display and app.editor("extra.rank").value == "4")
        assert app.presets.unsaved_changes()
        await pilot.press("down")
        assert app.editor("extra.rank").has_focus
        await write(app, pilot, "extra.rank", "0")
        await until(pilot, lambda: rank.mistake)
        await write(app, pilot, "extra.rank", "8")
        await pilot.press("ctrl+t")
        assert app.trained[0].preset.extra.rank == 8
        await pilot.press("escape", "v")
        await until(pilot, lambda: isinstance(app.screen, DifferenceDialog))
        assert "extra       false → true" in screen_text(app)
        await pilot.press("escape", "ctrl+z", "ctrl+z", "ctrl+z")
        await until(pilot, lambda: not rank.display)
        assert app.presets.unsaved_changes() is None

    drive(script, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("key", ["w", "d", "r"])
def test_a_shipped_preset_is_overridden_only_after_a_question(monkeypatch, key):
    async def script(app, pilot):
        own_preset("mine", "[model]\nn_layer = 2\n")
        await open_preset(app, pilot, "mine")
        await pilot.press(key)
        await until(pilot, lambda: isinstance(app.screen, TextDialog))
        await pilot.press(*"test", "enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        assert "test is a shipped preset" in screen_text(app)
        await pilot.press("enter")  # Choose another name
        await until(pilot, lambda: isinstance(app.screen, TextDialog))
        assert not (user_folder() / "test.toml").exists()
        await pilot.press(*"test", "enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("tab", "enter")  # Override
        await until(pilot, lambda: title(app) == "test · overrides shipped")
        await until(pilot, lambda: screen_text(app).count("overrides shipped") == 2)  # in the list as well
        assert preset_files.load(["test"]).preset.model.n_layer == 2

    drive(script, monkeypatch)


@pytest.mark.slow
def test_escape_at_the_question_about_a_shipped_name_saves_nothing(monkeypatch):
    async def script(app, pilot):
        await pilot.press("w")
        await until(pilot, lambda: isinstance(app.screen, TextDialog))
        await pilot.press(*"test", "enter")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("escape")
        await settled(pilot)
        assert app.screen is app.presets
        assert not (user_folder() / "test.toml").exists()

    drive(script, monkeypatch)


@pytest.mark.slow
def test_the_description_is_left_as_every_other_field(monkeypatch):
    async def script(app, pilot):
        before = app.editor("description").text
        for keys in (["enter"], ["down"] * before.count("\n") + ["down"] * 3):
            app.editor("description").focus()
            await pilot.press(*keys)
            assert not app.editor("description").has_focus
        assert app.editor("description").text == before
        app.editor("description").focus()
        app.editor("description").move_cursor((0, 0))
        await pilot.press("shift+enter")
        assert app.editor("description").text == f"\n{before}"

    drive(script, monkeypatch)


@pytest.mark.slow
def test_small_is_first_then_all_from_small_to_large(monkeypatch):
    async def script(app, pilot):
        await until(pilot, lambda: all(row.size for row in app.presets.open_presets.rows() if row.shipped))
        names = [row.name for row in app.presets.open_presets.rows() if row.shipped]
        assert names[:2] == ["small", "test"]
        assert names.index("gpt2-124m") < names.index("gpt2-350m") < names.index("gpt2-774m")
        assert names[-1] == "gpt2-1558m"

    drive(script, monkeypatch)


@pytest.mark.slow
def test_after_a_deletion_the_neighbour_is_shown(monkeypatch):
    async def script(app, pilot):
        for name in ("a", "b", "c"):
            own_preset(name, "[model]\nn_layer = 2\n")
        await open_preset(app, pilot, "b")
        await pilot.press("D")
        await until(pilot, lambda: app.screen is not app.presets)
        await pilot.press("tab", "enter")
        await until(pilot, lambda: title(app) == "c")

    drive(script, monkeypatch)


@pytest.mark.slow
def test_a_file_that_cannot_be_read_and_is_deleted_leaves_the_list(monkeypatch):
    async def script(app, pilot):
        path = own_preset("broken", "[oh\n")
        own_preset("next", "[model]\nn_layer = 2\n")
        await open_preset(app, pilot, "broken")
        path.unlink()
        await until(pilot, lambda: title(app) == "next")
        assert not any("saving writes it again" in said for said in app.said)
        assert "broken" not in [row.name for row in app.presets.open_presets.rows()]

    drive(script, monkeypatch)


@pytest.mark.slow
def test_settings_without_effect_are_dimmed_and_say_why(monkeypatch):
    async def script(app, pilot):
        await open_preset(app, pilot, "default")

        def dimmed():
            return {field.setting.key for field in app.form.fields() if field.has_class("-unused")}

        muon = {"optimizer.muon_lr", "optimizer.muon_momentum"}
        assert muon <= dimmed()
        app.editor("optimizer.name").focus()
        await pilot.press("right")
        await until(pilot, lambda: not muon & dimmed())
        app.editor("schedule.name").focus()
        await pilot.press("home")
        await until(pilot, lambda: {"schedule.min_lr", "schedule.decay_fraction"} <= dimmed())
        await pilot.press("end")
        await until(pilot, lambda: not {"schedule.min_lr", "schedule.decay_fraction"} & dimmed())
        await pilot.press("left")
        app.editor("schedule.decay_fraction").focus()
        await until(pilot, lambda: 'Used only with schedule.name = "wsd".' in screen_text(app))

    drive(script, monkeypatch, size=(120, 60))


@pytest.mark.slow
def test_a_wide_form_has_two_columns_and_a_small_one_shows_its_fields(monkeypatch):
    async def wide(app, pilot):
        left, right = app.editor("model.n_layer").region, app.editor("training.batch_size").region
        assert right.x > left.right
        assert right.y < 50
        assert app.presets.query_one(PresetList).region.width > 24
        schedule = app.editor("schedule.name")
        schedule.focus()
        await pilot.press("home")
        await settled(pilot)
        assert "linear ›" in screen_text(app)  # two more are out of view
        await pilot.click(schedule, offset=(len(" constant  linear "), 0))
        await settled(pilot)
        assert schedule.value == "cosine"
        assert "‹ linear  cosine  wsd" in screen_text(app)

    async def small(app, pilot):
        app.form.focus_field()
        await settled(pilot)
        assert app.form.size.height >= 7
        assert "parameters  " in screen_text(app)

    drive(wide, monkeypatch, size=(160, 50))
    drive(small, monkeypatch, size=(60, 16))
