"""FSDP: two ranks with a share of the weights each train the run of one."""

import pytest
import torch

from gpt2tui.errors import PresetError
from gpt2tui.generation import load
from gpt2tui.preset import files as preset_files
from gpt2tui.run import checkpoint
from tests.training.rank_processes import trained_by
from tests.training.test_ranks import folder, furthest, job, of_run, references  # noqa: F401

SHARDED = "distributed.strategy=fsdp"
MUON = "optimizer.name=muon"


@pytest.fixture(scope="module")
def two(folder, references):  # noqa: F811
    """What two ranks say of each job; their runs are in the folder by the jobs' names."""
    jobs = {
        "adamw": job(folder, "adamw", SHARDED),
        "muon": job(folder, "muon", SHARDED, MUON),
        "checkpointed": job(folder, "checkpointed", SHARDED, "training.activation_checkpointing=true"),
        "late": job(folder, "late", SHARDED, MUON, spoil="late metrics"),
        "shards": job(folder, "shards", SHARDED, MUON, spoil="sharded muon"),
        "untied": job(folder, "untied", SHARDED, spoil="untied head"),
        "half": job(folder, "half", "training.num_iterations=25", "schedule.name=constant", SHARDED),
        "rest": {"run": str(folder / "half"), "resume": ["training.num_iterations=50"]},
        "whole": job(folder, "whole", "schedule.name=constant", SHARDED),
    }
    return dict(zip(jobs, trained_by(2, list(jobs.values()), folder / "two"), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["adamw", "muon", "late"])
def test_two_ranks_with_shares_of_the_weights_train_the_run_of_one(folder, references, two, name):  # noqa: F811
    expected, batches = references["adamw" if name == "adamw" else "muon"]
    assert furthest(of_run(folder, name), expected) < 1e-5
    first, second = two[name]
    assert [a + b for a, b in zip(first["batches"], second["batches"], strict=True)] == batches
    assert first["weights"] == second["weights"]


@pytest.mark.slow
def test_with_activation_checkpointing_the_run_is_bit_for_bit_the_same(folder, two):  # noqa: F811
    assert of_run(folder, "checkpointed") == of_run(folder, "adamw")
    assert two["checkpointed"][0]["weights"] == two["adamw"][0]["weights"]


@pytest.mark.slow
def test_the_checkpoint_is_that_of_one_rank(folder, two):  # noqa: F811
    ours, theirs = (folder / name / "checkpoints" / "step-00000050" for name in ("adamw", "alone-adamw"))
    assert checkpoint.verify(ours).files.keys() == checkpoint.verify(theirs).files.keys()
    for name in ("model", "training_state"):
        tensors, expected = (checkpoint.load_tensors(saved / f"{name}.safetensors") for saved in (ours, theirs))
        assert tensors.keys() == expected.keys()
        for key, tensor in expected.items():
            torch.testing.assert_close(tensors[key], tensor, rtol=1e-3, atol=1e-4, msg=key)
    assert load(str(folder / "adamw")).model.config.n_layer == 2


@pytest.mark.slow
@pytest.mark.parametrize(("name", "optimizer"), [("shards", "muon"), ("untied", "adamw")])
def test_what_is_wrong_gives_another_run(folder, references, two, name, optimizer):  # noqa: F811
    assert furthest(of_run(folder, name), references[optimizer][0]) > 1e-3


@pytest.mark.slow
def test_two_ranks_resume_bit_for_bit(folder, two):  # noqa: F811
    whole, resumed = of_run(folder, "whole"), of_run(folder, "half")
    assert [loss for loss in whole if loss[0] > 26] == [loss for loss in resumed if loss[0] > 26]
    assert {rank["weights"] for name in ("whole", "rest") for rank in two[name]} == {two["whole"][0]["weights"]}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["training.precision=fp16", "training.device=cuda"], "fsdp cannot scale the loss"),
        (["lora.rank=8", "model.init_from=gpt2"], "adapters are small"),
    ],
)
def test_what_sharding_cannot_do_is_refused(settings, message):
    with pytest.raises(PresetError, match=message):
        preset_files.load(["default"], [SHARDED, *settings])
