"""Presets that start from weights: what these fill in, in files and in the form."""

import json

import pytest

from gpt2tui.errors import PresetError
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.settings import defaults, flat
from gpt2tui.preset.starting_weights import local_folder
from gpt2tui.system.files import runs_folder
from gpt2tui.tui.presets.library import read_preset_file
from gpt2tui.tui.presets.values import PresetEditing, check_values

CONFIG = {"model_type": "gpt2", "vocab_size": 257, "n_positions": 24, "n_embd": 16, "n_layer": 2, "n_head": 2}


@pytest.fixture
def weights(tmp_path):
    """A folder that says its shape and its tokenizer; the weights themselves are not read here."""
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "gpt2tui_tokenizer.json").write_text('{"kind": "byte"}')
    return folder


def test_a_relative_folder_is_beside_the_preset(tmp_path, weights):
    path = tmp_path / "mine.toml"
    path.write_text('[model]\ninit_from = "weights"\n')
    preset = preset_files.check(path).preset
    assert (preset.model.init_from, preset.model.n_embd, preset.data.tokenizer) == (str(weights), 16, "byte")


def test_an_empty_table_leaves_everything_to_the_weights(tmp_path, weights):
    path = tmp_path / "mine.toml"
    path.write_text(f'[model]\ninit_from = "{weights}"\n[data]\n')
    assert preset_files.check(path).preset.data.tokenizer == "byte"


@pytest.mark.parametrize(
    ("vocabulary", "kind"),
    [({"<|endoftext|>": 50256, "\u0120the": 262}, "gpt2"), ({"<|endoftext|>": 9}, "bpe"), ([], "bpe")],
)
def test_the_kind_of_another_programs_tokenizer(tmp_path, weights, vocabulary, kind):
    (weights / "gpt2tui_tokenizer.json").unlink()
    (weights / "vocab.json").write_text(json.dumps(vocabulary))
    path = tmp_path / "mine.toml"
    path.write_text(f'[model]\ninit_from = "{weights}"\n')
    assert preset_files.check(path).preset.data.tokenizer == kind


def test_a_run_is_found_by_its_name_with_and_without_a_step(weights):
    saved = runs_folder() / "a-run" / "checkpoints" / "step-00000004"
    saved.parent.mkdir(parents=True)
    weights.rename(saved)
    assert local_folder("a-run") == local_folder("a-run@4") == local_folder("a-run@best") == saved
    assert local_folder("another") is None
    assert local_folder("nul\0") is None


def test_a_model_of_the_hub_is_found_in_its_cache_only(tmp_path, monkeypatch, weights):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert local_folder("someone/gpt2") is None
    repository = tmp_path / "hub" / "models--someone--gpt2"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots").mkdir()
    weights.rename(repository / "snapshots" / "abc")
    assert local_folder("someone/gpt2") == repository / "snapshots" / "abc"


def test_a_frozen_preset_needs_no_weights(tmp_path, weights):
    path = tmp_path / "preset.toml"
    path.write_text(f'[model]\ninit_from = "{weights}"\n')
    preset = preset_files.check(path).preset
    preset_files.save(preset, path)
    weights.rename(tmp_path / "gone")
    assert preset_files.load_frozen(path) == preset
    assert preset_files.load([], ["optimizer.lr=0.01"], frozen=path).preset.model == preset.model


def test_the_folder_that_init_from_means_decides(tmp_path, weights):
    loaded = preset_files.load(["test"], ["model.init_from=somewhere"]).preset
    with pytest.raises(PresetError, match=r"model\.n_embd: \d+ is not that of somewhere, which has 16; leave it out"):
        preset_files.with_weights(loaded, weights)


def test_the_form_takes_shape_and_tokenizer_when_the_weights_are_here_as_one_step(weights):
    editing = PresetEditing(defaults())
    for typed in (str(weights)[:-1], str(weights)):
        editing.set("model.init_from", typed)
    values = editing.values
    assert [values[f"model.{key}"] for key in ("vocab_size", "n_positions", "n_embd")] == [257, 24, 16]
    assert (values["data.tokenizer"], values["training.sequence_length"]) == ("byte", 24)
    assert check_values(values).preset is not None
    editing.set("model.n_layer", 3)
    assert "which has 2; leave it out" in check_values(editing.values).mistakes["model.n_layer"]
    editing.undo()
    editing.undo()
    assert editing.values == defaults()


def test_the_form_shows_the_shape_of_a_file_that_leaves_it_out_and_saves_without_it(tmp_path, weights):
    path = tmp_path / "mine.toml"
    path.write_text(f'# mine\n[model]\ninit_from = "{weights}"\n')
    assert read_preset_file(path).values["model.n_embd"] == 16
    preset = preset_files.check(path).preset
    assert not preset_files.update(preset.with_training(num_iterations=7), path)
    assert "n_embd" not in path.read_text()
    assert path.read_text().startswith("# mine\n")
    assert flat(preset_files.check(path).preset) == flat(preset) | {"training.num_iterations": 7}
