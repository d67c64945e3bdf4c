"""How a run or a checkpoint may be named, and what is answered to a name that is almost one."""

import pytest

from gpt2tui import generation, model_files
from gpt2tui.__main__ import main
from gpt2tui.errors import CheckpointError, UsageError
from gpt2tui.run import aliases, checkpoint
from gpt2tui.run import folder as runs
from gpt2tui.system.files import runs_folder
from gpt2tui.tui.chat.engine import ChatModels, load_ahead
from tests import tiny_runs


@pytest.fixture
def trained(tmp_path):
    """Two runs, the second of which is begun last."""
    folders = []
    for name in ("2026-01-31-120000-small", "2026-02-01-120000-lr1e-3"):
        trainer = tiny_runs.trainer(tmp_path, "training.num_iterations=8", run=runs.create("x", runs_folder() / name))
        for _ in trainer.train():
            pass
        folders.append(trainer.run.folder)
    return folders


def test_a_model_is_named_like_a_run_and_at_any_step(trained, monkeypatch):
    monkeypatch.setattr(model_files, "_download", lambda hub_id: pytest.fail(f"the Hub was asked for {hub_id}"))
    first, last = trained
    steps = {
        "latest": (last, None),
        "2026-01": (first, None),
        "lr1e-3": (last, None),
        "small": (first, None),
        str(first): (first, None),
        "small@4": (first, 4),
        "latest@8": (last, 8),
        f"{first}@latest": (first, 8),
        "2026-02@best": (last, None),
        str(first / "checkpoints" / "step-00000004"): (first, 4),
    }
    for reference, (run, step) in steps.items():
        saved = generation.load(reference).saved
        assert saved.folder.parent.parent.resolve() == run.resolve(), reference
        assert step in (None, saved.step), reference


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("2026-01-31-120000-smal2", "did you mean 2026-01-31-120000-small"),
        ("smalt", "did you mean 2026-01-31-120000-small"),
        ("RUNS/smalt", "did you mean 2026-01-31-120000-small"),
        ("2026-0", "2 runs have names that begin with 2026-0: 2026-01-31-120000-small, 2026-02-01-120000-lr1e-3"),
        ("latest@5", "no valid checkpoint of step 5; it has those of the steps 4, 8"),
        ("small@newest", "newest is no checkpoint of 2026-01-31-120000-small: after @ stands a step, best or latest"),
        ("gpt2-124m", "gpt2-124m is a preset, not a model; train it first: gpt2tui train gpt2-124m"),
        ("gpt2", "write openai-community/gpt2"),
        ("somebody", "models of the Hub are written owner/name"),
        ("RUNS", "holds 2 runs; name one of them"),
        ("RUNS/2026-01-31-120000-small/checkpoints", "holds the checkpoints of a run; name the run"),
    ],
)
def test_a_name_that_means_no_model_is_answered_without_the_hub(trained, reference, words, monkeypatch):
    monkeypatch.setattr(model_files, "_download", lambda hub_id: pytest.fail(f"the Hub was asked for {hub_id}"))
    with pytest.raises(CheckpointError) as caught:
        generation.load(reference.replace("RUNS", str(runs_folder())))
    assert words in str(caught.value)


def test_a_tag_behind_a_run_is_answered_with_how_it_is_written(trained):
    aliases.set_alias("good", trained[0], 4)
    with pytest.raises(UsageError, match="stands a step, best or latest; the tag is written @good"):
        runs.find_with_checkpoint("small@good")


@pytest.mark.slow
@pytest.mark.parametrize(("reference", "step"), [("small@4", 4), ("small@latest", 8), ("small@best", 8), ("@good", 4)])
def test_each_command_that_takes_a_checkpoint_takes_each_of_its_names(trained, tmp_path, capsys, reference, step):
    run = runs.Run(trained[0])
    aliases.set_alias("good", run.folder, 4)
    assert checkpoint.best(run.checkpoints).step == 8
    words, file = str(tmp_path / "words.txt"), str(tmp_path / "model.safetensors")
    settings = tiny_runs.options(tmp_path, "training.num_iterations=4", f"model.init_from={reference}")
    for command in (
        ["sample", reference, "the", "--max-length", "2"],
        ["eval", reference],
        ["export", reference, "--format", "safetensors", "--to", file],
        ["tune", words, "--from", reference, "--dry-run"],
        ["train", "default", *settings, "--run-dir", str(tmp_path / "started")],
        ["train", "--resume", reference, "--run-dir", str(tmp_path / "branch"), "training.num_iterations=9"],
        ["import", reference, "--run-dir", str(tmp_path / "imported")],
        ["runs", "lineage", reference],
        ["runs", "tag", reference, "other"],
    ):
        assert main(command) == 0, (command, capsys.readouterr().err)
    assert f"step-{step:08d}" in capsys.readouterr().out
    assert aliases.find_alias("other").step == step
    for name, key in (("started", "origin"), ("branch", "parent"), ("imported", "origin")):
        assert runs.Run(tmp_path / name).info()[key]["step"] == step
    facts = []
    load_ahead(reference, ChatModels(), facts.append)  # what the Chat screen does with a name that is typed
    assert facts[0].facts.source.endswith(f"step-{step:08d}")


def test_the_hub_is_asked_for_an_owners_model_only(trained, monkeypatch):
    asked = []

    def download(hub_id):
        asked.append(hub_id)
        raise CheckpointError("not there")

    monkeypatch.setattr(model_files, "_download", download)
    with pytest.raises(CheckpointError, match="not there"):
        generation.load("openai-community/gpt2")
    assert asked == ["openai-community/gpt2"]
