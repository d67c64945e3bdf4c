"""Trying the first steps changes nothing of the run, and memory that runs out does so before the run begins."""

import pytest
import torch

from gpt2tui.errors import ResourceError
from gpt2tui.launch import drive, new_run
from gpt2tui.preset.files import LoadedPreset
from gpt2tui.run import checkpoint
from gpt2tui.run import folder as runs
from gpt2tui.run.events import RunStarted, Step
from gpt2tui.training import preparation
from gpt2tui.training.controls import Controls
from gpt2tui.training.preflight import TRIED_STEPS
from gpt2tui.training.update import Update
from tests import tiny_runs

VARIANTS = {
    "adamw": ("optimizer.name=adamw", "optimizer.weight_decay=0.1"),
    "muon": ("optimizer.name=muon", "training.gradient_accumulation=3"),
    "bf16": ("training.precision=bf16", "schedule.name=wsd"),
}
SETTINGS = ("model.dropout=0.2", "training.num_iterations=6", "training.checkpoint_frequency=3")


@pytest.fixture
def tried(monkeypatch):
    """The steps of trials: updates at a learning rate of 0."""
    taken = []
    run = Update.run

    def counted(self, micro_batches, iteration, learning_rate_factor=1.0):
        if learning_rate_factor == 0.0:
            taken.append([tuple(inputs.shape) for inputs, _ in micro_batches])
        return run(self, micro_batches, iteration, learning_rate_factor)

    monkeypatch.setattr(Update, "run", counted)
    return taken


def result(trainer):
    """The losses and all tensors of the last checkpoint."""
    losses = [event.train_loss for event in trainer.train() if isinstance(event, Step)]
    folder = checkpoint.newest(trainer.run.checkpoints).folder
    names = ("model.safetensors", "training_state.safetensors")
    return losses, {name: tensor for file in names for name, tensor in checkpoint.load_tensors(folder / file).items()}


def assert_equal(one, other):
    assert one[0] == other[0]
    assert one[1].keys() == other[1].keys()
    for name, tensor in one[1].items():
        assert torch.equal(tensor, other[1][name]), name


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_run_is_bit_for_bit_the_same_with_and_without_it(tmp_path, monkeypatch, tried, variant):
    settings = (*SETTINGS, *VARIANTS[variant])
    without = tiny_runs.trainer(tmp_path, *settings)
    expected = result(without)
    assert not tried
    monkeypatch.setattr(preparation, "WORTH_A_TRIAL", 0.0)
    assert_equal(result(tiny_runs.trainer(tmp_path, *settings)), expected)
    assert tried == [[(2, 16)] * (2 if variant == "muon" else 1)] * TRIED_STEPS

    middle = checkpoint.verify(without.run.checkpoints / "step-00000003")
    branch = runs.create("branch")
    resumed = result(tiny_runs.trainer(tmp_path, *settings, run=branch, resume_from=middle))
    assert_equal(resumed, (expected[0][3:], expected[1]))
    assert len(tried) == 2 * TRIED_STEPS


def test_the_comparison_sees_one_weight(tmp_path, monkeypatch):
    expected = result(tiny_runs.trainer(tmp_path, *SETTINGS))
    prepare_new = preparation._new

    def disturbed(*arguments):
        state = yield from prepare_new(*arguments)
        with torch.no_grad():
            next(state.model.parameters()).view(-1)[0] += 1e-6
        return state

    monkeypatch.setattr(preparation, "_new", disturbed)
    with pytest.raises(AssertionError):
        assert_equal(result(tiny_runs.trainer(tmp_path, *SETTINGS)), expected)


def test_memory_that_runs_out_does_so_before_the_run_begins(tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "WORTH_A_TRIAL", 0.0)

    def full(*arguments, **named):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(Update, "run", full)
    emitted = []
    with pytest.raises(ResourceError, match="out of memory on cpu at step 0: the model with its gradients"):
        emitted.extend(drive(new_run(LoadedPreset("tiny", tiny_runs.preset(tmp_path), ())), Controls()))
    assert not any(isinstance(item, RunStarted) for item in emitted)
    assert runs.all_runs() == []


def test_a_stop_while_it_is_tried_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "WORTH_A_TRIAL", 0.0)
    controls, stages = Controls(), []
    for item in drive(new_run(LoadedPreset("tiny", tiny_runs.preset(tmp_path), ())), controls):
        stages.append(getattr(item, "stage", ""))
        if stages[-1].startswith("trying an evaluation"):
            controls.stop()
    assert stages[-1].startswith("trying an evaluation")
    assert runs.all_runs() == []


def test_a_small_run_takes_no_trial_steps(tmp_path, tried):
    list(tiny_runs.trainer(tmp_path, *SETTINGS).train())
    assert not tried
