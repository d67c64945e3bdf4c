"""`gpt2tui import`: a run that is listed, sampled, evaluated and trained from."""

import json

import pytest

from gpt2tui.__main__ import main
from gpt2tui.run import checkpoint
from gpt2tui.run import folder as runs
from gpt2tui.run.summary import summarize
from tests import tiny_runs
from tests.training.test_starting_weights import OTHERS, their_model


@pytest.fixture
def imported(tmp_path, capsys):
    their_model(tmp_path / "my-gpt2")
    assert main(["import", str(tmp_path / "my-gpt2")]) == 0
    (run,) = runs.all_runs()
    assert capsys.readouterr().out == f"{run.folder}\n"
    return run


def test_it_is_a_finished_run_with_one_checkpoint(tmp_path, imported):
    summary = summarize(imported)
    assert (summary.state, summary.step, summary.checkpoints) == ("finished", 0, 1)
    saved = checkpoint.newest(imported.checkpoints)
    assert saved.origin.source == str(tmp_path / "my-gpt2")
    assert saved.run_id == imported.info()["run_id"]
    assert imported.info()["origin"]["sha256"] == saved.origin.sha256
    assert imported.name.endswith("-my-gpt2")


def test_it_is_sampled_evaluated_listed_and_trained_from(tmp_path, imported, capsys):
    source = str(tiny_runs.corpus_file(tmp_path))
    assert main(["sample", imported.name, "--prompt", "the", "--max-length", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["tokens"] == 4
    assert main(["eval", imported.name, "--source", source, "--json"]) == 0
    evaluated = json.loads(capsys.readouterr().out)
    assert evaluated["is_training_corpus"] is None
    assert main(["runs", "show", imported.name]) == 0
    capsys.readouterr()
    (tmp_path / "further.toml").write_text("")
    preset = ["--preset", str(tmp_path / "further.toml"), "--set", f"model.init_from={imported.name}"]
    settings = [word for setting in OTHERS for word in ("--set", setting)]
    short = ["--set", "training.num_iterations=3", "--set", f"data.source={source}"]
    assert main(["--headless", *preset, *settings, *short]) == 0
    assert len(runs.all_runs()) == 2


def test_without_a_corpus_there_is_nothing_to_evaluate_on(imported, capsys):
    assert main(["eval", imported.name]) == 2
    assert "name a corpus with --source" in capsys.readouterr().err


def test_it_cannot_be_resumed_and_says_what_to_do(imported, capsys):
    assert main(["--headless", "--resume", imported.name]) == 4
    assert f"--set model.init_from={imported.name}" in capsys.readouterr().err


def test_what_is_no_model_leaves_no_folder(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["import", str(tmp_path / "empty")]) == 4
    assert "has no model.safetensors" in capsys.readouterr().err
    assert runs.all_runs() == []
