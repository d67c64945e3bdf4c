"""Two ranks read a stream and a mix, train adapters and track with W&B as one does: real processes of torchrun."""

import json

import pytest

from gpt2tui.launch import new_run
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.files import LoadedPreset
from gpt2tui.run import checkpoint
from gpt2tui.run.events import Step
from gpt2tui.run.events_file import read_events
from gpt2tui.run.folder import Run
from tests import tiny_runs
from tests.training.rank_processes import trained_by
from tests.training.test_mix import text_of
from tests.training.test_ranks import SETTINGS, alone, furthest, losses, of_run, preset
from tests.training.test_starting_weights import loaded_from, their_model

pytestmark = pytest.mark.slow

SHORT = (
    "training.num_iterations=20", "training.eval_frequency=10", "training.checkpoint_frequency=10",
    "schedule.name=constant",
)  # fmt: skip
HALF = "training.num_iterations=10"
REST = ["training.num_iterations=20"]


def streamed(folder, *overrides):
    return preset(folder, *SHORT, "data.streaming=true", *overrides)


def adapted(folder, *overrides):
    return loaded_from(folder, folder / "base", *SETTINGS, *SHORT, "lora.rank=4", "lora.dropout=0.2", *overrides).preset


def mixed(folder, *overrides):
    for name, words in (("a.txt", ["red", "green", "blue"]), ("b.txt", ["one", "two", "three"])):
        if not (folder / name).exists():
            text_of(words, name, folder)
    mix = f'data.mix=[{{source="{folder / "a.txt"}",weight=3}},{{source="{folder / "b.txt"}"}}]'
    return preset_files.load(["default"], [*tiny_runs.SETTINGS, *SETTINGS, *SHORT, mix, *overrides]).preset


def tracked(folder, *overrides):
    return preset(folder, *SHORT, "tracking.wandb=offline", *overrides)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    with tiny_runs.folders_in(folder):
        their_model(folder / "base")
        yield folder


@pytest.fixture(scope="module")
def two(folder):
    """What the ranks say of each job; their runs are in the folder by the jobs' names, stopped and resumed halfway."""

    def job(name, preset):
        return {"run": str(folder / name), "preset": preset.model_dump_json()}

    def rest(name):
        return {"run": str(folder / name), "resume": REST}

    jobs = [
        job("streamed", streamed(folder, HALF)), rest("streamed"),
        job("adapted", adapted(folder, HALF)), rest("adapted"),
        job("mixed", mixed(folder, HALF)), rest("mixed"),
        job("tracked", tracked(folder)),
    ]  # fmt: skip
    return trained_by(2, jobs, folder / "processes")


@pytest.mark.parametrize(("name", "of"), [("streamed", streamed), ("adapted", adapted), ("mixed", mixed)])
def test_two_ranks_train_and_resume_the_run_of_one(folder, two, name, of):
    events, batches = alone(new_run(LoadedPreset("tiny", of(folder), ()), folder / f"alone-{name}"))
    ours = [loss for loss in of_run(folder, name) if loss[0] != 10]  # there it was stopped, and evaluated as a whole
    assert furthest(ours, [loss for loss in losses(events) if loss[0] != 10]) < 1e-5
    at = 2 * ("streamed", "adapted", "mixed").index(name)
    first, rest = two[at : at + 2]
    taken = [a + b for part in (first, rest) for a, b in zip(part[0]["batches"], part[1]["batches"], strict=True)]
    assert taken == batches
    assert rest[0]["weights"] == rest[1]["weights"]


def test_adapters_of_two_ranks_are_saved_as_those_of_one(folder, two):
    saved = checkpoint.newest(folder / "adapted" / "checkpoints")
    assert (saved.kind, saved.step) == ("adapter", 20)
    config = json.loads((saved.folder / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"]) == ("LORA", 4)


def test_rank_0_alone_talks_to_wandb_with_the_numbers_of_all(folder, two):
    pytest.importorskip("wandb")
    from tests.tracking import wandb_file

    (file,) = (folder / "tracked").rglob("*.wandb")
    logged = {row["step"]: row["train_loss"] for row in wandb_file.history(file) if "train_loss" in row}
    steps = [event for event in read_events(Run(folder / "tracked").events_file) if isinstance(event, Step)]
    assert logged == pytest.approx({event.step: event.train_loss for event in steps}, abs=1e-4)
    assert not list((folder / "processes").rglob("*.wandb"))
