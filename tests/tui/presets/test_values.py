"""The values of a preset that is being edited, without a screen."""

import pytest

from gpt2tui.errors import PresetError
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.files import flat
from gpt2tui.preset.schema import Preset
from gpt2tui.preset.settings import defaults, differences
from gpt2tui.tui.presets.values import MAX_UNDO_STEPS, PresetEditing, check_values


def command_line(*overrides):
    with pytest.raises(PresetError) as caught:
        preset_files.load(["default"], overrides)
    return str(caught.value).splitlines()


def test_defaults_are_the_schemas():
    assert defaults() == flat(Preset())
    assert check_values(defaults()).preset == Preset()


@pytest.mark.parametrize(
    ("key", "value", "override"),
    [
        ("model.n_embd", 0, "0"),
        ("model.n_embd", "wide", "wide"),
        ("optimizer.lr", 11.0, "11.0"),
        ("schedule.name", "cosin", "cosin"),
        ("training.device", "gpu", "gpu"),
        ("training.num_iterations", 1000.0, "1e3"),
        ("data.source", "", '""'),
    ],
)
def test_a_mistake_has_the_words_of_the_command_line(key, value, override):
    (line,) = command_line(f"{key}={override}")
    checked = check_values(defaults() | {key: value})
    assert checked.preset is None
    assert checked.mistakes == {key: line.removeprefix(f"--set {key}: ")}


def test_an_inconsistency_is_shown_at_its_field_and_names_its_partner():
    checked = check_values(defaults() | {"model.n_embd": 100, "model.n_head": 12, "training.sequence_length": 2048})
    assert checked.mistakes == {
        "model.n_embd": "100 is not divisible by n_head = 12",
        "training.sequence_length": "2048 is more than model.n_positions = 1024, the context length of the model",
    }


def test_all_mistakes_are_reported_at_once():
    wrong = {"model.n_layer": 0, "optimizer.beta1": 1.0, "sampling.top_p": 0.0}
    assert check_values(defaults() | wrong).mistakes.keys() == wrong.keys()


def test_a_preset_too_large_to_be_read_again_is_not_valid():
    checked = check_values(defaults() | {"sampling.prompt": "x" * 40_000})
    assert checked.preset is None
    assert "shorten" in checked.mistakes["description"]


def test_a_setting_may_be_left_out():
    checked = check_values(defaults() | {"model.vocab_size": None, "training.sample_frequency": None})
    assert checked.preset is not None
    assert checked.preset.model.vocab_size is None


def test_typing_in_one_field_is_one_step_of_undo():
    editing = PresetEditing(defaults())
    for value in (1, 12, 128):
        editing.set("model.n_embd", value)
    editing.set("model.n_layer", 3)
    assert editing.undo()
    assert editing.values == defaults() | {"model.n_embd": 128}
    assert editing.undo()
    assert not editing.changed
    assert not editing.undo()


def test_leaving_a_field_ends_its_step():
    editing = PresetEditing(defaults())
    editing.set("model.n_embd", 128)
    editing.end_step()
    editing.set("model.n_embd", 256)
    editing.undo()
    assert editing.values["model.n_embd"] == 128


def test_redo_takes_an_undo_back_until_something_else_changes():
    editing = PresetEditing(defaults())
    editing.set("model.n_embd", 128)
    editing.undo()
    assert editing.redo()
    assert editing.values["model.n_embd"] == 128
    editing.undo()
    editing.set("model.n_layer", 1)
    assert not editing.redo()


def test_changed_means_other_than_saved():
    editing = PresetEditing(defaults())
    editing.set("optimizer.lr", 0.5)
    assert editing.changed_keys == {"optimizer.lr"}
    editing.set("optimizer.lr", defaults()["optimizer.lr"])
    assert not editing.changed


def test_undo_reaches_before_a_save_and_makes_the_preset_unsaved():
    editing = PresetEditing(defaults())
    editing.set("model.n_layer", 3)
    editing.mark_saved(editing.values)
    assert not editing.changed
    editing.undo()
    assert editing.changed_keys == {"model.n_layer"}


def test_replacing_everything_is_one_step():
    editing = PresetEditing(defaults())
    editing.replace(defaults() | {"model.n_layer": 1, "model.n_head": 1})
    editing.undo()
    assert not editing.changed


def test_the_number_of_undo_steps_is_limited():
    editing = PresetEditing(defaults())
    for value in range(2 * MAX_UNDO_STEPS):
        editing.set("training.seed", value)
        editing.end_step()
    steps = 0
    while editing.undo():
        steps += 1
    assert steps == MAX_UNDO_STEPS


def test_differences_are_in_the_order_of_the_schema():
    after = defaults() | {"training.seed": 1, "model.bias": False}
    found = differences(defaults(), after)
    assert [(d.key, d.left, d.right) for d in found] == [("model.bias", True, False), ("training.seed", 1337, 1)]
