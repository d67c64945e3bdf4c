"""What an earlier version wrote is still read: a run whose checkpoint has a manifest of format 1."""

import json
import shutil
from pathlib import Path

import pytest

from gpt2tui import generation
from gpt2tui.__main__ import main
from gpt2tui.data.batches import evaluation_batches
from gpt2tui.data.token_store import prepare
from gpt2tui.evaluation.validation import validation_loss
from gpt2tui.launch import make_trainer, resumed_run
from gpt2tui.preset import files as preset_files
from gpt2tui.run import checkpoint
from gpt2tui.run import folder as runs
from gpt2tui.run.events import Evaluated, Step
from gpt2tui.system.files import cache_folder, runs_folder
from gpt2tui.training.controls import Controls
from tests import tiny_runs

LEGACY = Path(__file__).parents[1] / "legacy"
LOSSES = json.loads((LEGACY / "format-1.json").read_text())


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A copy of the run, in a folder where its corpus is what its preset names."""
    shutil.copy(LEGACY / "words.txt", tmp_path)
    monkeypatch.chdir(tmp_path)
    return runs.Run(shutil.copytree(LEGACY / "format-1", runs_folder() / "format-1"))


def test_a_checkpoint_of_format_1_verifies_with_the_kinds_of_its_files(run):
    saved = checkpoint.newest(run.checkpoints)
    assert (saved.step, saved.metrics, saved.parent) == (8, {"val_loss": LOSSES["val_loss"]}, None)
    kinds = {file.kind for file in saved.files.values()}
    assert kinds == {"weights", "config", "tokenizer", "training_state", "trainer", "preset"}


def test_it_is_listed_with_its_losses(run, capsys):
    assert main(["runs", "list", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["name"], listed["step"], listed["checkpoints"]) == ("format-1", 8, 1)
    assert listed["val_loss"] == LOSSES["val_loss"]
    assert (
        listed["best_val_loss"] is None
    )  # that version reported the best loss at the end of a run, which this run has not reached
    assert main(["runs", "show", "format-1", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [c["val_loss"] for c in shown["checkpoints"]] == [LOSSES["val_loss"]]
    assert shown["damaged"] == []


def test_it_has_the_loss_that_was_recorded_with_it(run):
    model = generation.load(str(run.folder), "cpu", "fp32")
    preset = preset_files.load_frozen(model.saved.folder / "preset.toml")
    corpus = tiny_runs.finish(prepare(preset, cache_folder()))
    batches = evaluation_batches(corpus.validation, 8, preset.training.sequence_length, None)
    loss = validation_loss(model.model, batches, model.tokenizer.token_bytes())
    assert loss.tokens == LOSSES["whole_val_tokens"]
    assert loss.val_loss == pytest.approx(LOSSES["whole_val_loss"], rel=1e-5)


def test_it_is_resumed_to_the_losses_of_the_run_that_was_never_interrupted(run):
    with resumed_run(run) as opened:
        corpus = tiny_runs.finish(prepare(opened.loaded.preset, cache_folder()))
        events = list(make_trainer(opened, corpus, Controls()).train())
    steps = {str(e.step): e.train_loss for e in events if isinstance(e, Step)}
    assert steps == pytest.approx(LOSSES["train_loss_after"], rel=1e-5)
    measured = {e.whole: e.val_loss for e in events if isinstance(e, Evaluated)}
    assert measured[False] == pytest.approx(LOSSES["val_loss_at_12"], rel=1e-5)
    assert measured[True] == pytest.approx(LOSSES["whole_val_loss_at_12"], rel=1e-5)
    last = checkpoint.newest(run.checkpoints)
    assert (last.step, last.parent) == (12, checkpoint.Parent(run.info()["run_id"], 8))
    assert [c.step for c in checkpoint.saved_in(run.checkpoints)] == [8, 12]
