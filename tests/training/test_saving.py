"""Checkpoints are written beside the training, and hold what was at the step that they name."""

import threading

import pytest
import torch

from gpt2tui import checkpoint
from gpt2tui.errors import ResourceError
from gpt2tui.training import saving
from gpt2tui.training.events import CheckpointSaved, RunFinished, Step, Warned
from gpt2tui.training.saving import Buffers
from tests import tiny_runs


@pytest.fixture
def slow_disk(monkeypatch):
    """Writing waits until the returned event is set."""
    may_write, write = threading.Event(), checkpoint.write

    def waiting(*arguments, **named):
        assert may_write.wait(60)
        return write(*arguments, **named)

    monkeypatch.setattr(checkpoint, "write", waiting)
    return may_write


def weights(trainer, step):
    return checkpoint.load_tensors(trainer.run.checkpoints / checkpoint.folder_name(step) / "model.safetensors")


def test_training_goes_on_while_a_checkpoint_of_an_earlier_step_is_written(tmp_path, slow_disk):
    trainer = tiny_runs.trainer(tmp_path, "training.checkpoint_frequency=5")
    events, bias = [], None
    for event in trainer.train():
        events.append(event)
        if isinstance(event, Step) and event.step == 5:
            bias = trainer.model.ln_f.bias.detach().clone()
        elif isinstance(event, Step) and event.step == 8:
            assert not any(isinstance(e, CheckpointSaved) for e in events)  # it is not said before it is so
            assert not trainer.run.checkpoints.exists() or not checkpoint.saved_in(trainer.run.checkpoints)
            slow_disk.set()
    assert [e.step for e in events if isinstance(e, CheckpointSaved)] == [5, 10, 12]
    assert isinstance(events[-1], RunFinished)
    assert torch.equal(weights(trainer, 5)["transformer.ln_f.bias"], bias)
    assert not torch.equal(weights(trainer, 12)["transformer.ln_f.bias"], bias)


def test_stopping_waits_for_the_checkpoint_that_is_being_written(tmp_path, slow_disk):
    trainer = tiny_runs.trainer(tmp_path, "training.checkpoint_frequency=5")
    events = []
    for event in trainer.train():
        events.append(event)
        if isinstance(event, Step) and event.step == 6:
            trainer.controls.stop()
            threading.Timer(0.2, slow_disk.set).start()
    assert [e.step for e in events if isinstance(e, CheckpointSaved)] == [5, 6]
    assert isinstance(events[-1], RunFinished)


def test_a_failure_to_write_is_told_and_the_next_checkpoint_tries_again(tmp_path, monkeypatch):
    write = checkpoint.write

    def full(*arguments, step, **named):
        if step == 4:
            raise ResourceError("the disk is full")
        return write(*arguments, step=step, **named)

    monkeypatch.setattr(checkpoint, "write", full)
    events = list(tiny_runs.trainer(tmp_path, "training.checkpoint_frequency=4").train())
    assert [e.message for e in events if isinstance(e, Warned)] == [
        "the disk is full; training goes on and tries again at the next checkpoint"
    ]
    assert [e.step for e in events if isinstance(e, CheckpointSaved)] == [8, 12]


def test_a_bug_in_the_writing_thread_is_not_swallowed(tmp_path, monkeypatch):
    def broken(*arguments, **named):
        raise KeyError("a bug")

    monkeypatch.setattr(checkpoint, "write", broken)
    with pytest.raises(KeyError, match="a bug"):
        list(tiny_runs.trainer(tmp_path).train())


def test_without_room_for_a_copy_the_checkpoint_is_written_before_the_next_step(tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "SHARE_OF_FREE_MEMORY", 0.0)
    events = list(tiny_runs.trainer(tmp_path, "training.checkpoint_frequency=4").train())
    kinds = [(type(e), e.step) for e in events if isinstance(e, Step | CheckpointSaved)]
    assert kinds.index((CheckpointSaved, 4)) == kinds.index((Step, 4)) + 1


def test_a_copy_does_not_follow_its_tensor_and_its_memory_is_used_again():
    buffers, tensor = Buffers(), torch.zeros(3)
    first = buffers.copy({"a": tensor})
    tensor += 1
    assert first["a"].tolist() == [0, 0, 0]
    second = buffers.copy({"a": tensor})
    assert second["a"].tolist() == [1, 1, 1]
    assert second["a"].data_ptr() == first["a"].data_ptr()


def test_memory_that_was_made_ready_takes_the_copies():
    weight = torch.arange(6.0).reshape(2, 3)
    tensors = {"transposed": weight.t(), "half": weight.bfloat16(), "number": torch.tensor(7)}
    buffers = Buffers()
    buffers.reserve(tensors)
    copies = buffers.copy(tensors)
    ready = {name: tensor.data_ptr() for name, tensor in buffers._tensors.items()}
    assert {name: copy.data_ptr() for name, copy in copies.items()} == ready
    assert all(copy.is_contiguous() and copy.equal(tensors[name]) for name, copy in copies.items())
    assert {name: copy.data_ptr() for name, copy in buffers.copy(tensors).items()} == ready
