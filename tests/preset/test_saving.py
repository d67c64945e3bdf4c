"""Saving over a user's preset file: what is not changed stays as it was written."""

import tomllib

import pytest
import tomlkit

from gpt2tui.errors import ResourceError
from gpt2tui.preset import files as preset_files
from gpt2tui.preset import files as preset_writer
from gpt2tui.preset.schema import Preset


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("GPT2TUI_CONFIG", str(tmp_path / "config"))


COMMENTED = """\
# What: mine.

description = 'for me' # a literal string

[training] # the loop
batch_size=8# no spaces
num_iterations = 1_000 # an underscore

  # two rates
[optimizer]
  lr = 1e-3 # indented
  beta1 = 0.8
"""


def changed(preset, **tables):
    return Preset.model_validate(
        preset.model_dump() | {name: getattr(preset, name).model_dump() | new for name, new in tables.items()}
    )


def saved(path, preset):
    """The text of the file after saving, which must read as the preset."""
    note = preset_files.update(preset, path)
    assert preset_files.check(path).preset == preset
    return path.read_text(), note


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(COMMENTED)
    return path


def test_saving_what_the_file_says_changes_no_byte(mine):
    assert saved(mine, preset_files.check(mine).preset) == (COMMENTED, "")


def test_a_changed_value_keeps_its_comment_and_everything_else(mine):
    preset = changed(preset_files.check(mine).preset, training={"batch_size": 16}, optimizer={"lr": 0.5})
    expected = COMMENTED.replace("batch_size=8", "batch_size=16").replace("1e-3", "0.5")
    assert saved(mine, preset) == (expected, "")


def test_a_new_key_stands_in_its_table_before_the_comments_of_the_next(mine):
    preset = changed(preset_files.check(mine).preset, training={"seed": 5})
    assert saved(mine, preset)[0] == COMMENTED.replace("# an underscore\n", "# an underscore\nseed = 5\n")


def test_a_new_table_holds_only_what_differs_from_the_default(mine):
    preset = changed(preset_files.check(mine).preset, model={"n_layer": 3})
    assert saved(mine, preset)[0] == COMMENTED + "\n[model]\nn_layer = 3\n"


def test_a_setting_that_is_left_out_is_removed_from_the_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[model]\nvocab_size = 60_000\nn_layer = 2 # few\n")
    preset = changed(preset_files.check(path).preset, model={"vocab_size": None})
    assert saved(path, preset)[0] == "[model]\nn_layer = 2 # few\n"


def test_a_preset_that_extends_another_keeps_that_and_only_its_own_keys(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('extends = "small" # the base\n\n[model]\nn_layer = 3\n')
    preset = changed(preset_files.check(path).preset, optimizer={"lr": 0.5}, model={"n_layer": 4})
    text, note = saved(path, preset)
    assert text == 'extends = "small" # the base\n\n[model]\nn_layer = 4\n\n[optimizer]\nlr = 0.5\n'
    assert not note


def test_a_value_of_the_base_is_left_out_again_with_auto(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('extends = "small" # the base\n[data] # text\ntokenizer = "bpe"\n')
    preset = changed(preset_files.check(path).preset, model={"vocab_size": None})
    text, note = saved(path, preset)
    assert tomllib.loads(text) == {"extends": "small", "data": {"tokenizer": "bpe"}, "model": {"vocab_size": "auto"}}
    assert "[data] # text" in text
    assert not note
    assert preset_files.check(path).preset == preset
    again, _ = saved(path, preset)
    assert again == text
    with_size, _ = saved(path, changed(preset, model={"vocab_size": 2048}))
    assert tomllib.loads(with_size)["model"] == {"vocab_size": 2048}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing",
        "model.n_layer = 2 # dotted\n",
        "model = {n_layer = 2} # inline\n",
        "[model]\n",
        "[model]\nn_layer = 2 # no end of line",
        "\ufeff[model]\r\nn_layer = 2 # windows\r\n",
        "[training]\nseed = 1\n[model]\nn_layer = 2\n[data]\n",
    ],
)
def test_any_way_to_write_a_file_is_kept_readable(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_bytes(text.encode())
    preset = changed(
        preset_files.check(path).preset,
        model={"n_layer": 7, "bias": False},
        data={"source": 'a "b"\n\x00\\'},
        tracking={"tags": ["a", "ü"]},
    )
    result, _ = saved(path, preset)
    assert result.count("#") == text.count("#")


@pytest.mark.parametrize(
    "text",
    [
        '[model]\nn_layer = "three"\nlayers = 3 # unknown\n[optimizer]\nlr = 0.5 # kept\n',
        "model = 3\n[optimizer]\nlr = 0.5 # kept\n",
        "[[model]]\nn_layer = 3\n[optimizer]\nlr = 0.5 # kept\n",
        '"model.n_layer" = 3\n[optimizer]\nlr = 0.5 # kept\n',
        "[modle]\nn_layer = 3\n[modle.x]\ny = 1\n[optimizer]\nlr = 0.5 # kept\n",
        "[model]\nbias = 1\nn_layer.x = 2\n[optimizer]\nlr = 0.5 # kept\n",
        "[model]\nlayer.x = 1\n[optimizer]\nlr = 0.5 # kept\n",
    ],
)
def test_mistakes_in_the_file_are_corrected(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    result, note = saved(path, Preset.model_validate({"model": {"n_layer": 2}, "optimizer": {"lr": 0.5}}))
    assert "lr = 0.5 # kept" in result
    assert not note


def test_a_missing_file_or_one_that_is_not_toml_is_written_whole(tmp_path):
    path = tmp_path / "mine.toml"
    assert saved(path, Preset()) == (preset_files.dumps(Preset()), "")
    path.write_text("[model\n")
    assert saved(path, Preset()) == (preset_files.dumps(Preset()), "")


def test_what_tomlkit_gets_wrong_is_written_whole_and_said(mine, monkeypatch):
    monkeypatch.setattr(tomlkit, "dumps", lambda document: COMMENTED)
    text, note = saved(mine, changed(preset_files.check(mine).preset, training={"seed": 5}))
    assert "could not be kept" in note
    assert "#" not in text


def test_a_save_that_fails_leaves_the_commented_file(mine, monkeypatch):
    def full(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(preset_writer, "replace_text", full)
    with pytest.raises(ResourceError, match="No space left"):
        preset_files.update(Preset(), mine)
    assert mine.read_text() == COMMENTED


def test_what_tomlkit_refuses_is_written_whole_and_said(mine, monkeypatch):
    def refuse(text):
        raise tomlkit.exceptions.ParseError(1, 1)

    preset = changed(preset_files.check(mine).preset, training={"seed": 5})
    monkeypatch.setattr(tomlkit, "parse", refuse)
    assert "could not be kept" in saved(mine, preset)[1]
