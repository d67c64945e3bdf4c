"""A run over several sources is resumed as if it had never been interrupted."""

import random
import shutil

import pytest

from gpt2tui.__main__ import main
from gpt2tui.errors import CheckpointError, DataError
from gpt2tui.launch import drive, new_run, resumed_run
from gpt2tui.preset import files as preset_files
from gpt2tui.run import folder as runs
from gpt2tui.run.events import Evaluated, Event, Step
from gpt2tui.run.events_file import read_events
from gpt2tui.training.controls import Controls
from tests import tiny_runs

WEIGHTS = (3, 1)


def text_of(words, name, folder):
    chosen = random.Random(name).choices(words, k=600)
    path = folder / name
    path.write_text("\n".join(" ".join(chosen[i : i + 9]) for i in range(0, len(chosen), 9)))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run of 12 steps over two texts."""
    folder = tmp_path_factory.mktemp("mix")
    with tiny_runs.folders_in(folder):
        text_of(["red", "green", "blue"], "a.txt", folder)
        text_of(["one", "two", "three"], "b.txt", folder)
        mix = [{"source": str(folder / name), "weight": w} for name, w in zip(("a.txt", "b.txt"), WEIGHTS, strict=True)]
        loaded = preset_files.load(["default", {"data": {"mix": mix}}], tiny_runs.SETTINGS)
        train(new_run(loaded, folder / "runs" / "mix"))
    return folder


@pytest.fixture
def run(finished, tmp_path, monkeypatch):
    shutil.copytree(finished / "runs", tmp_path / "runs")
    monkeypatch.setenv("GPT2TUI_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("GPT2TUI_CACHE", str(finished / "cache"))
    return runs.find("mix")


def train(opening):
    return [emitted for emitted in drive(opening, Controls()) if isinstance(emitted, Event)]


def facts(events):
    steps = [(e.step, e.train_loss, e.grad_norm) for e in events if isinstance(e, Step)]
    return steps, [(e.step, e.whole, e.val_loss, e.bits_per_byte) for e in events if isinstance(e, Evaluated)]


def test_resumed_from_a_step_a_mix_has_the_same_losses(run):
    steps, evaluations = facts(list(read_events(run.events_file)))
    found, saved = runs.find_with_checkpoint("mix@4")
    resumed = facts(train(resumed_run(found, resume_from=saved)))
    assert resumed == ([fact for fact in steps if fact[0] > 4], [fact for fact in evaluations if fact[0] > 4])


def test_other_weights_are_refused_at_a_resume(run):
    one, two = preset_files.load_frozen(run.preset_file).data.sources
    with pytest.raises(CheckpointError, match=r"data\.mix.*other tokens"):
        train(resumed_run(run, (), [f'data.mix=[{{source="{one}",weight=2}},{{source="{two}"}}]']))


def test_a_source_that_has_moved_is_found_and_one_that_has_changed_is_refused(run, tmp_path, monkeypatch):
    one, two = preset_files.load_frozen(run.preset_file).data.sources
    (tmp_path / "moved").mkdir()
    shutil.copy(two, tmp_path / "moved" / "b.txt")
    monkeypatch.chdir(tmp_path / "moved")
    longer = "training.num_iterations=14"
    mix = f'data.mix=[{{source="{one}",weight=3}},{{source="b.txt"}}]'
    steps, _ = facts(train(resumed_run(run, (), [longer, mix])))
    assert [step for step, *_ in steps] == [13, 14]
    assert preset_files.load_frozen(run.preset_file).data.sources[1].endswith("moved/b.txt")
    (tmp_path / "moved" / "b.txt").write_text("other words " * 500)
    with pytest.raises(DataError, match="has changed since"):
        train(resumed_run(run, (), ["training.num_iterations=16"]))


def test_a_dry_run_tells_how_often_each_source_is_read(run, capsys):
    assert main(["train", str(run.preset_file), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "corpus      data.mix: prepared" in out
    assert "75% " in out
    assert "25% " in out
    assert out.count("tokens, read 0.") == 2


def test_evaluation_asks_for_one_source_of_the_mix(run, capsys):
    assert main(["eval", "mix"]) == 2
    assert "was trained on a mix; name one of its sources with --source" in capsys.readouterr().err
    assert main(["eval", "mix", "--source", preset_files.load_frozen(run.preset_file).data.sources[0]]) == 0
    assert "not the text" not in capsys.readouterr().err
