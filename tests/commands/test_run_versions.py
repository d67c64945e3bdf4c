"""Tags of checkpoints, where they come from, notes, pruning, and numbers as CSV."""

import csv
import io
import json

import pytest

from gpt2tui import generation
from gpt2tui.__main__ import main
from gpt2tui.data.token_store import prepare
from gpt2tui.errors import CheckpointError, UsageError
from gpt2tui.preset import files as preset_files
from gpt2tui.run import aliases, checkpoint, events, tidying
from gpt2tui.run import folder as runs
from gpt2tui.system.files import cache_folder, runs_folder
from gpt2tui.training.starting import resolve
from gpt2tui.training.trainer import Trainer
from tests import tiny_runs
from tests.tui.fake_runs import START, loss_at, write_run


@pytest.fixture
def run(tmp_path):
    """A finished tiny run with checkpoints of the steps 4, 8 and 12."""
    trainer = tiny_runs.trainer(tmp_path, run=runs.create("tiny"))
    list(trainer.train())
    return trainer.run


def steps(run):
    return [saved.step for saved in checkpoint.saved_in(run.checkpoints)]


def tag(run, step, name="production"):
    assert main(["runs", "tag", f"{run.name}@{step}", name]) == 0


def test_a_tag_stands_for_its_checkpoint_wherever_one_is_named(run, capsys):
    tag(run, 8)
    assert (runs_folder() / "aliases.toml").read_text() == f'production = "{run.name}@8"\n'
    assert generation.load("@production", "cpu").saved.step == 8
    assert runs.find_with_checkpoint("@production")[1].step == 8
    assert main(["sample", "@production", "--prompt", "the", "--max-length", "2", "--json"]) == 0
    capsys.readouterr()
    assert main(["runs", "tags", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["run"], row["step"], row["exists"]) == ("production", run.name, 8, True)
    assert main(["runs", "show", run.name]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "step-00000008" in line)
    assert line.endswith("@production")


def test_one_alias_has_one_checkpoint_and_moves(run, capsys):
    tag(run, 8)
    assert main(["runs", "tag", f"{run.name}@latest", "@production"]) == 0
    assert f"@production is now {run.name}@12; before it was {run.name}@8" in capsys.readouterr().err
    assert [(alias.name, alias.step) for alias in aliases.read_aliases()] == [("production", 12)]
    assert main(["runs", "untag", "production"]) == 0
    assert aliases.read_aliases() == []
    with pytest.raises(CheckpointError, match="there is no tag @production; no checkpoint has a tag"):
        generation.load("@production", "cpu")


@pytest.mark.parametrize("name", ["best", "latest", "12", "", "a b", "../x", "x@3", "a" * 101])
def test_names_that_mean_something_else_are_refused(run, name):
    assert main(["runs", "tag", f"{run.name}@8", name]) == 2
    assert not (runs_folder() / "aliases.toml").exists()


def test_a_similar_tag_is_suggested_and_a_missing_checkpoint_is_named(run, capsys):
    tag(run, 8)
    assert main(["sample", "@producton"]) == 4
    assert "there is no tag @producton; did you mean @production?" in capsys.readouterr().err
    assert main(["runs", "tag", f"{run.name}@7", "other"]) == 4
    assert "no valid checkpoint of step 7" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["not toml", 'a = "no step"', "a = 3", '"a b" = "run@3"', 'best = "run@3"'])
def test_a_damaged_file_of_tags_is_reported_and_nothing_is_pruned(run, text):
    (runs_folder() / "aliases.toml").write_text(text)
    assert main(["runs", "tags"]) == 2
    checkpoint.prune(run.checkpoints, run_id=run.info()["run_id"], keep=1)
    assert steps(run) == [4, 8, 12]
    assert main(["runs", "prune", run.name, "--yes"]) == 2


def test_pruning_keeps_the_tagged_checkpoint(run):
    best = checkpoint.best(run.checkpoints).step
    tag(run, 4)
    checkpoint.prune(run.checkpoints, run_id=run.info()["run_id"], keep=1)
    assert steps(run) == sorted({4, 12, best})
    aliases.remove_alias("production")
    checkpoint.prune(run.checkpoints, run_id=run.info()["run_id"], keep=1)
    assert steps(run) == sorted({12, best})  # the tag was the only reason to keep it


def test_the_training_keeps_a_checkpoint_that_is_tagged_meanwhile(tmp_path):
    trainer = tiny_runs.trainer(tmp_path, "training.keep_checkpoints=1", run=runs.create("tiny"))
    for event in trainer.train():
        if event.name == "checkpoint_saved" and event.step == 4:
            aliases.set_alias("kept", trainer.run.folder, 4)
    assert 4 in steps(trainer.run)


def test_a_run_with_a_tag_is_not_deleted_and_its_tags_follow_its_name(run, capsys):
    tag(run, 8)
    assert main(["runs", "delete", run.name, "--yes"]) == 2
    assert "has a checkpoint with the tag @production" in " ".join(capsys.readouterr().err.split())
    assert steps(run) == [4, 8, 12]
    renamed = tidying.rename_run(run, "renamed")
    assert runs.find_with_checkpoint("@production")[0].folder.name == "renamed"
    aliases.remove_alias("production")
    tidying.delete_run(renamed)
    assert not renamed.folder.exists()


def test_a_run_elsewhere_can_be_tagged(tmp_path):
    trainer = tiny_runs.trainer(tmp_path, run=runs.create("tiny", tmp_path / "elsewhere"))
    list(trainer.train())
    assert main(["runs", "tag", f"{trainer.run.folder}@8", "there"]) == 0
    assert runs.find_with_checkpoint("@there")[1].folder.parent.parent == trainer.run.folder
    with pytest.raises(UsageError, match="tag @there"):
        tidying.delete_run(trainer.run)


def test_resuming_before_a_tagged_checkpoint_is_refused(run, tmp_path):
    tag(run, 12)
    saved = checkpoint.at(run.checkpoints, 4)
    again = tiny_runs.trainer(tmp_path, run=run, resume_from=saved)
    with pytest.raises(UsageError, match=r"step 12 has the tag @production.*--run-dir"):
        list(again.train())
    assert steps(run) == [4, 8, 12]


def test_the_lineage_of_a_resumed_run_ends_with_new_weights(run, tmp_path, capsys):
    tag(run, 8, "base")
    branch = tiny_runs.trainer(
        tmp_path, "training.num_iterations=16", run=runs.create("branch"),
        resume_from=checkpoint.at(run.checkpoints, 8),
    )  # fmt: skip
    list(branch.train())
    assert main(["runs", "lineage", f"{branch.run.name}@16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{branch.run.name}@16  val loss ")
    assert lines[1].startswith(f"└─ from {run.name}@8  @base  val loss ")
    assert lines[2] == "   └─ from new weights"
    assert main(["runs", "lineage", f"{branch.run.name}@16", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first["data_fingerprint"] == second["data_fingerprint"]
    assert second["metrics"]["val_loss"] == checkpoint.at(run.checkpoints, 8).val_loss
    assert first["preset_sha256"] != second["preset_sha256"]


def test_what_is_unknown_in_a_lineage_is_marked_as_unknown(run, tmp_path, capsys):
    saved = checkpoint.at(run.checkpoints, 8)
    branch = tiny_runs.trainer(
        tmp_path, "training.num_iterations=16", run=runs.create("branch"), resume_from=saved
    )  # fmt: skip
    list(branch.train())
    checkpoint.set_aside(saved.folder)
    assert main(["runs", "lineage", branch.run.name + "@16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f"└─ from {run.name}@8  the checkpoint is no longer there"
    assert "unknown" in lines[2]
    tidying.delete_run(run)
    assert main(["runs", "lineage", branch.run.name + "@16"]) == 0
    assert "└─ from unknown run " in capsys.readouterr().out


def test_a_note_is_kept_shown_and_removed(run, capsys):
    assert main(["runs", "note", run.name, "the one with the larger vocabulary"]) == 0
    assert main(["runs", "note", run.name]) == 0
    assert capsys.readouterr().out == "the one with the larger vocabulary\n"
    assert main(["runs", "show", run.name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["note"] == "the one with the larger vocabulary"
    assert main(["runs", "note", run.name, ""]) == 0
    assert not (run.folder / "note.txt").exists()


def test_prune_deletes_after_a_question_and_keeps_newest_best_and_tagged(run, capsys, monkeypatch):
    best = checkpoint.best(run.checkpoints).step
    assert main(["runs", "prune", run.name]) == 2  # nobody can be asked
    terminal = io.StringIO("n\n")
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", terminal)
    assert main(["runs", "prune", run.name]) == 0
    assert steps(run) == [4, 8, 12]
    assert main(["runs", "prune", run.name, "--keep", "3", "--yes"]) == 0
    assert steps(run) == [4, 8, 12]
    assert main(["runs", "prune", run.name, "--keep", "0", "--yes"]) == 2
    tag(run, 4)
    assert main(["runs", "prune", run.name, "--yes"]) == 0
    assert steps(run) == sorted({4, 12, best})
    with runs.locked(run):
        aliases.remove_alias("production")
        assert main(["runs", "prune", run.name, "--yes"]) == 75
    assert 4 in steps(run)


def test_the_numbers_of_a_run_as_csv(tmp_path, capsys):
    run = write_run("numbers", steps=20)
    resumed = events.RunStarted(
        time=START + 9, run="numbers", preset="test", parameters=1, tokens_per_step=1, device="cpu", precision="fp32",
        num_iterations=20, step=15,
    )  # fmt: skip
    whole = events.Evaluated(time=START + 10, step=15, val_loss=3.5, perplexity=33.0, bits_per_byte=1.0, whole=True)
    with run.events_file.open("a") as file:
        file.writelines(event.as_json() + "\n" for event in (resumed, whole))
    assert main(["runs", "export", run.name, "--csv"]) == 0
    text = capsys.readouterr().out
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [int(row["step"]) for row in rows] == list(range(1, 16))  # the later ones were undone by the resume
    assert float(rows[9]["train_loss"]) == loss_at(10)
    assert float(rows[9]["val_loss"]) == loss_at(10) + 0.1
    assert rows[8]["val_loss"] == ""
    assert (rows[14]["whole_val_loss"], rows[14]["val_loss"]) == ("3.5", "")
    file = tmp_path / "numbers.csv"
    assert main(["runs", "export", run.name, "--csv", "--to", str(file)]) == 0
    assert file.read_text() == text
    assert main(["runs", "export", run.name, "--csv", "--to", str(file)]) == 2
    assert main(["runs", "export", run.name]) == 2


def test_the_lineage_of_a_fine_tuned_run_goes_on_with_the_weights_it_started_from(run, tmp_path, capsys):
    loaded, weights = resolve(
        preset_files.load(["default"], tiny_runs.options(tmp_path, f"model.init_from={run.name}@8"))
    )
    corpus = tiny_runs.finish(prepare(loaded.preset, cache_folder()))
    tuned = runs.create("tuned", runs_folder() / "tuned")
    list(Trainer(tuned, loaded.preset, corpus, preset_name="tiny", start_from=weights).train())
    capsys.readouterr()
    assert main(["runs", "lineage", "tuned@12"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("tuned@12  ")
    assert lines[1].startswith(f"└─ from {run.name}@8  ")
    assert lines[2] == "   └─ from new weights"
