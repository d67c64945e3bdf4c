"""Presets that start from weights: what these fill in, in files and in the form."""

import json

import pytest

from gpt2tui import model_files
from gpt2tui.errors import PresetError
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.settings import defaults, flat
from gpt2tui.preset.starting_weights import local_folder
from gpt2tui.run import checkpoint
from gpt2tui.run import folder as runs
from gpt2tui.run.aliases import set_alias
from gpt2tui.system.files import runs_folder
from gpt2tui.training.starting import resolve
from gpt2tui.tui.presets.library import read_preset_file
from gpt2tui.tui.presets.values import PresetEditing, check_values
from tests import tiny_runs

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


@pytest.fixture
def trained(tmp_path):
    """Two runs of different widths, the second begun last."""
    found = []
    for name, width in (("2026-01-31-120000-small", 16), ("2026-02-01-120000-wide", 24)):
        run = runs.create("x", runs_folder() / name)
        list(tiny_runs.trainer(tmp_path, f"model.n_embd={width}", "training.num_iterations=8", run=run).train())
        found.append(run)
    return found


def test_init_from_takes_every_name_of_a_model(trained, tmp_path):
    """In a preset, on the command line and in the form, what `gpt2tui sample` takes too."""
    set_alias("good", trained[0].folder, 4)
    steps = {"latest": 24, "wide": 24, "2026-01": 16, "small@4": 16, "@good": 16, "latest@best": 24, "small@latest": 16}
    for reference, width in steps.items():
        meant = model_files.find(reference).folder
        folder = local_folder(reference)
        assert folder.parent == meant.parent, reference
        assert folder == meant, reference
        path = tmp_path / "mine.toml"
        path.write_text(f'extends = "finetune"\n[model]\ninit_from = "{reference}"\n')
        assert preset_files.check(path).preset.model.n_embd == width, reference
        editing = PresetEditing(flat(preset_files.load(["finetune"]).preset))
        editing.set("model.init_from", reference)
        assert editing.values["model.n_embd"] == width, reference
        assert check_values(editing.values).preset is not None, reference
        assert resolve(preset_files.load(["finetune"], [f"model.init_from={reference}"]))[1].folder == meant, reference


def test_a_wrong_name_in_init_from_is_answered_where_it_is_written(trained):
    set_alias("good", trained[0].folder, 4)
    answers = {
        "smalt": "did you mean 2026-01-31-120000-small",
        "2026-0": "2 runs have names that begin with 2026-0",
        "small@5": "it has those of the steps 4, 8",
        "@goood": "there is no tag @goood; did you mean @good?",
        "gpt2-124m": "is a preset, not a model; train it first",
        "gpt2": "write openai-community/gpt2",
        "./nowhere": "the folder does not exist",
        "nul\0": "there is no model nul",
        "n" * 1000: "there is no model nnn",
    }
    values = flat(preset_files.load(["finetune"]).preset)
    for reference, words in answers.items():
        assert words in check_values(values | {"model.init_from": reference}).mistakes["model.init_from"]
        with pytest.raises(PresetError) as caught:
            preset_files.load(["finetune"], [f"model.init_from={reference}"])
        assert str(caught.value).startswith("--set model.init_from: ")
        assert words in str(caught.value)
    assert check_values(values | {"model.init_from": "someone/model"}).preset is not None  # the Hub may have it


def test_the_shape_of_a_model_whose_name_begins_like_another_is_dropped_while_typing(trained):
    editing = PresetEditing(flat(preset_files.load(["finetune"]).preset))
    before = editing.values["model.n_embd"]
    for typed in ("w", "wi", "wide", "widest/model"):
        editing.set("model.init_from", typed)
    assert editing.values["model.n_embd"] == before


def test_a_large_checkpoint_is_not_read_to_know_its_shape(trained, monkeypatch):
    monkeypatch.setattr(checkpoint, "sha256", lambda path: pytest.fail(f"{path} was read"))
    assert local_folder("latest") is not None
    with pytest.raises(pytest.fail.Exception):
        model_files.find("latest")


def test_an_adapter_of_peft_takes_shape_and_tokenizer_of_its_base(tmp_path, weights):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(weights)}))
    assert local_folder(str(adapter)) == weights
    assert preset_files.load(["finetune"], [f"model.init_from={adapter}"]).preset.model.n_embd == 16
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(adapter)}))
    with pytest.raises(PresetError, match="belongs to itself"):
        preset_files.load(["finetune"], [f"model.init_from={adapter}"])


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
    loaded = preset_files.load(["test"], ["model.init_from=some/where"]).preset
    with pytest.raises(PresetError, match=r"model\.n_embd: \d+ is not that of some/where, which has 16; leave it out"):
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
