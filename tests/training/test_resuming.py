"""A run can continue from an older checkpoint, in another run, with moved data, and with other settings."""

import json
import os
import shlex
import shutil
from pathlib import Path

import pytest

from gpt2tui.__main__ import main
from gpt2tui.errors import CheckpointError, DataError, DivergedError, UsageError
from gpt2tui.launch import drive, new_run, resumed_run
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.files import LoadedPreset
from gpt2tui.run import checkpoint
from gpt2tui.run import folder as runs
from gpt2tui.run.events import Event, RunStarted, SettingsChanged, Step, Warned
from gpt2tui.run.events_file import read_events
from gpt2tui.training.controls import Controls
from tests import tiny_runs


def train(opening):
    return [emitted for emitted in drive(opening, Controls()) if isinstance(emitted, Event)]


def finished_run(folder, *overrides, name="first"):
    preset = tiny_runs.preset(folder, *overrides)
    train(new_run(LoadedPreset("tiny", preset, ()), folder / "runs" / name))
    return runs.find(name)


def losses(events):
    return {event.step: event.train_loss for event in events if isinstance(event, Step)}


def warnings(events):
    return [event.message for event in events if isinstance(event, Warned)]


def steps_in(run):
    return [saved.step for saved in checkpoint.saved_in(run.checkpoints)]


def test_from_an_older_checkpoint_the_steps_are_the_same_and_later_checkpoints_are_kept_aside(tmp_path):
    run = finished_run(tmp_path)
    before = losses(read_events(run.events_file))
    assert steps_in(run) == [4, 8, 12]
    found, saved = runs.find_with_checkpoint("first@4")
    events = train(resumed_run(found, resume_from=saved))
    assert losses(events) == {step: loss for step, loss in before.items() if step > 4}
    assert isinstance(events[0], RunStarted)
    assert events[0].step == 4
    (said,) = [w for w in warnings(events) if "set-aside" in w]
    assert "set-aside-step-00000008, set-aside-step-00000012" in said
    assert checkpoint.verify(run.checkpoints / "set-aside-step-00000012").step == 12
    assert steps_in(run) == [4, 8, 12]
    assert losses(read_events(run.events_file)) == before


def test_after_going_back_the_newest_checkpoint_is_that_of_the_new_history(tmp_path):
    run = finished_run(tmp_path, "training.keep_checkpoints=2")
    found, saved = runs.find_with_checkpoint(str(run.checkpoints / checkpoint.folder_name(8)))
    train(resumed_run(found, (), ["training.num_iterations=10"], resume_from=saved))
    assert steps_in(run) == [8, 10]
    with resumed_run(run) as opened:
        assert opened.resume_from.step == 10


def test_what_was_set_aside_can_only_begin_a_branch(tmp_path):
    run = finished_run(tmp_path)
    train(resumed_run(run, resume_from=checkpoint.at(run.checkpoints, 4)))
    found, aside = runs.find_with_checkpoint(str(run.checkpoints / "set-aside-step-00000008"))
    with pytest.raises(UsageError, match="--run-dir"), resumed_run(found, resume_from=aside):
        pass
    branch = tmp_path / "runs" / "branch"
    assert losses(train(resumed_run(found, resume_from=aside, branch=branch))).keys() == {9, 10, 11, 12}


def test_a_branch_is_a_run_of_its_own_that_names_its_parent(tmp_path):
    run = finished_run(tmp_path)
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    expected = losses(read_events(run.events_file))
    found, saved = runs.find_with_checkpoint("first@4")
    events = train(resumed_run(found, resume_from=saved, branch=tmp_path / "runs" / "branch"))
    branch = runs.find("branch")
    assert losses(events) == {step: loss for step, loss in expected.items() if step > 4}
    parent = {"run_id": run.info()["run_id"], "step": 4}
    assert branch.info()["parent"] == parent
    assert branch.info()["run_id"] != parent["run_id"]
    assert steps_in(branch) == [4, 8, 12]
    for saved in checkpoint.saved_in(branch.checkpoints):
        assert (saved.run_id, saved.parent.run_id, saved.parent.step) == (branch.info()["run_id"], *parent.values())
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before


def test_a_branch_killed_before_its_first_checkpoint_begins_with_its_parents_again(tmp_path):
    run = finished_run(tmp_path)
    train(resumed_run(run, resume_from=checkpoint.at(run.checkpoints, 4), branch=tmp_path / "runs" / "branch"))
    branch = runs.find("branch")
    shutil.rmtree(branch.checkpoints)
    branch.checkpoints.mkdir()
    branch.events_file.unlink()
    assert losses(train(resumed_run(branch))).keys() == set(range(5, 13))
    shutil.rmtree(run.folder)
    shutil.rmtree(branch.checkpoints)
    branch.events_file.unlink()
    with pytest.raises(CheckpointError, match="of step 4 of the run"):
        runs.resume_point(branch)


def test_a_run_is_found_by_the_beginning_of_its_name_and_as_the_latest(tmp_path):
    for name, started in (("alpha-one", 2.0), ("alpha-two", 3.0), ("beta", 1.0)):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text(json.dumps({"started": started}))
    assert [runs.find(reference).name for reference in ("b", "alpha-o", "latest")] == ["beta", "alpha-one", "alpha-two"]
    with pytest.raises(UsageError, match="2 runs have names that begin with alpha: alpha-one, alpha-two"):
        runs.find("alpha")
    with pytest.raises(UsageError, match="no run gamma;"):
        runs.find_with_checkpoint("gamma@3")
    with pytest.raises(CheckpointError, match="no valid checkpoint of step 3; it has none"):
        runs.find_with_checkpoint("beta@3")


@pytest.mark.parametrize("streaming", ["false", "true"])
def test_smaller_micro_batches_take_the_same_windows(tmp_path, streaming):
    settings = ("training.batch_size=4", f"data.streaming={streaming}")
    run = finished_run(tmp_path, *settings)
    expected = losses(read_events(run.events_file))
    smaller = ["training.batch_size=1", "training.gradient_accumulation=4"]
    events = train(resumed_run(run, (), smaller, resume_from=checkpoint.at(run.checkpoints, 4)))
    after = losses(events)
    assert after.keys() == set(range(5, 13))
    assert after == pytest.approx({step: expected[step] for step in after}, abs=1e-6)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ("training.batch_size=8", "must stay 2"),
        ("model.n_layer=3", "another shape"),
        ("data.validation_fraction=0.1", "other tokens"),
        ("optimizer.name=muon", "the other optimizer"),
        ("training.sequence_length=8", "other windows"),
    ],
)
def test_what_cannot_change_is_refused_with_its_own_reason(tmp_path, changed, reason):
    run = finished_run(tmp_path)
    with pytest.raises(CheckpointError, match=reason), resumed_run(run, (), [changed]):
        pass


def test_a_resume_records_what_it_changes_and_keeps_the_earlier_preset(tmp_path, capsys):
    run = finished_run(tmp_path)
    changes = ["training.num_iterations=14", "model.dropout=0.1", "optimizer.muon_lr=0.5", "optimizer.grad_clip=0.5"]
    earlier = run.preset_file.read_bytes()
    events = train(resumed_run(run, (), changes))
    (recorded,) = [event for event in events if isinstance(event, SettingsChanged)]
    effects = {change["key"]: (change["before"], change["after"], change["effect"]) for change in recorded.changes}
    assert recorded.step == 12
    assert effects["model.dropout"] == (0.0, 0.1, "from step 13 on")
    assert effects["optimizer.muon_lr"] == (0.02, 0.5, "no effect: optimizer.name is adamw")
    assert effects["training.num_iterations"][:2] == (12, 14)
    assert (run.folder / "preset-00000012.toml").read_bytes() == earlier
    assert recorded.as_json() in [event.as_json() for event in read_events(run.events_file)]
    assert main(["runs", "show", "first"]) == 0
    assert "changed at step 12: model.dropout: 0.0 -> 0.1, from step 13 on" in capsys.readouterr().out
    assert main(["runs", "show", "first", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["changes"]
    assert [change["key"] for change in shown] == list(effects)


def test_training_a_decayed_run_further_warns_of_the_higher_learning_rate(tmp_path):
    run = finished_run(tmp_path)
    with resumed_run(run, (), ["training.num_iterations=24"]) as opened:
        assert any("the learning rate rises from 0 at step 12" in notice for notice in opened.notices)
    with resumed_run(run, (), ["training.num_iterations=24"], resume_from=checkpoint.at(run.checkpoints, 4)) as opened:
        assert opened.notices == ()
    with resumed_run(run, resume_from=checkpoint.at(run.checkpoints, 4)) as opened:
        assert opened.notices == ()


def moved(run, folder):
    """Moves the corpus into `folder`, with a new time of change."""
    folder.mkdir()
    place = folder / "words.txt"
    shutil.move(preset_files.load_frozen(run.preset_file).data.source, place)
    os.utime(place, (1, 1))
    return place


def test_moved_data_of_the_same_bytes_is_accepted_where_it_is_named(tmp_path, monkeypatch):
    run = finished_run(tmp_path)
    place = moved(run, tmp_path / "elsewhere")
    with pytest.raises(DataError, match="does not exist"):
        train(resumed_run(run, (), ["training.num_iterations=14"]))
    monkeypatch.chdir(place.parent)
    longer = ["training.num_iterations=14", "data.source=words.txt"]
    assert losses(train(resumed_run(run, (), longer))).keys() == {13, 14}
    assert preset_files.load_frozen(run.preset_file).data.source == str(place)
    place.write_text(place.read_text() + "more")
    with pytest.raises(DataError, match="has changed since"):
        train(resumed_run(run, (), ["training.num_iterations=16"]))


def test_moved_data_is_found_by_its_name_in_the_working_folder(tmp_path, monkeypatch):
    run = finished_run(tmp_path)
    place = moved(run, tmp_path / "elsewhere")
    monkeypatch.chdir(place.parent)
    events = train(resumed_run(run, (), ["training.num_iterations=14"]))
    assert losses(events).keys() == {13, 14}
    assert any(f"{place} is used" in notice for notice in warnings(events))


def test_a_relative_source_is_relative_to_the_presets_file_and_absolute_in_the_run(tmp_path, monkeypatch):
    (tmp_path / "mine" / "data").mkdir(parents=True)
    corpus = tiny_runs.corpus_file(tmp_path / "mine" / "data")
    (tmp_path / "mine" / "own.toml").write_text('[data]\nsource = "data/words.txt"\n')
    (tmp_path / "other" / "data").mkdir(parents=True)
    (tmp_path / "other" / "data" / "words.txt").write_text("a decoy")
    monkeypatch.chdir(tmp_path / "other")
    loaded = preset_files.load(["default", tmp_path / "mine" / "own.toml"], tiny_runs.SETTINGS)
    assert loaded.preset.data.source == str(corpus)
    with new_run(loaded) as opened:
        assert opened.loaded.preset.data.source == str(corpus)
    shell = preset_files.load(["default"], [*tiny_runs.SETTINGS, "data.source=data/words.txt"])
    with new_run(shell) as opened:
        assert opened.loaded.preset.data.source == str(tmp_path / "other" / "data" / "words.txt")


def test_no_home_folder_is_written_into_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    run = finished_run(tmp_path)
    assert preset_files.load_frozen(run.preset_file).data.source == "~/words.txt"
    for name in ("preset.toml", "events.jsonl", "checkpoints/step-00000012/preset.toml"):
        assert str(tmp_path) not in Path(run.folder, name).read_text(), name
    assert run.info()["data"]["source"] == "~/words.txt"
    assert losses(train(resumed_run(run, (), ["training.num_iterations=14"]))).keys() == {13, 14}


@pytest.mark.parametrize("before_min_lr", ["0.0", "0.01"])
def test_after_a_divergence_the_message_has_the_command_that_continues(tmp_path, monkeypatch, before_min_lr):
    preset = tiny_runs.preset(tmp_path, "training.checkpoint_frequency=2", f"schedule.min_lr={before_min_lr}")
    opening = new_run(LoadedPreset("tiny", preset, ()), tmp_path / "runs" / "first")
    with monkeypatch.context() as patch, pytest.raises(DivergedError) as failed:
        tiny_runs.exploding_after(patch, last_good=6, diverged=11)
        train(opening)
    run = runs.find("first")
    assert steps_in(run)[-1] == 10  # its weights have exploded: it is not the one to continue from
    (command,) = [line.strip() for line in str(failed.value).splitlines() if "--resume" in line]
    words = shlex.split(command)
    assert words[words.index("--resume") + 1] == f"{run.folder}@6"
    assert "optimizer.lr=0.005" in words
    assert ("schedule.min_lr=0.005" in words) == (before_min_lr == "0.01")
    assert main(words[1:]) == 0
    assert steps_in(run)[-1] == 12


def test_the_checkpoint_of_the_step_before_a_sudden_divergence_is_not_the_one_to_continue_from(tmp_path, monkeypatch):
    opening = new_run(LoadedPreset("tiny", tiny_runs.preset(tmp_path), ()), tmp_path / "runs" / "first")
    with monkeypatch.context() as patch, pytest.raises(DivergedError, match=r"@4 --set optimizer\.lr=0\.005"):
        tiny_runs.exploding_after(patch, last_good=100, diverged=8)
        train(opening)
    assert steps_in(runs.find("first")) == [4, 8]


def test_after_a_divergence_before_any_good_checkpoint_the_command_begins_anew(tmp_path, monkeypatch):
    opening = new_run(LoadedPreset("tiny", tiny_runs.preset(tmp_path), ()), tmp_path / "runs" / "first")
    with monkeypatch.context() as patch, pytest.raises(DivergedError) as failed:
        tiny_runs.exploding_after(patch, last_good=2, diverged=6)
        train(opening)
    (command,) = [line.strip() for line in str(failed.value).splitlines() if "--headless" in line]
    assert main(shlex.split(command)[1:]) == 0


def test_half_of_the_variables_of_torchrun_are_refused(tmp_path, monkeypatch, capsys):
    arguments = ["--headless", "--preset", "test", "--run-dir", str(tmp_path / "run")]
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    assert main(arguments) == 2
    assert "RANK expected, but not set; torchrun sets all of them" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
