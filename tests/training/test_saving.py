"""Checkpoints are written beside the training, and hold what was at the step that they name."""

import shutil
import threading

import pytest
import torch

from gpt2tui.data.token_store import prepare
from gpt2tui.errors import ResourceError
from gpt2tui.launch import make_trainer, new_run, resumed_run
from gpt2tui.preset import files as preset_files
from gpt2tui.run import checkpoint
from gpt2tui.run import folder as runs
from gpt2tui.run.events import CheckpointSaved, Evaluated, RunFailed, RunFinished, Step, Warned
from gpt2tui.system.files import cache_folder
from gpt2tui.training import saving
from gpt2tui.training.controls import Controls
from gpt2tui.training.saving import Buffers
from gpt2tui.training.state import tensors_to_save
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


def test_training_continues_while_a_checkpoint_of_an_earlier_step_is_written(tmp_path, slow_disk):
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


def test_a_failure_to_write_is_a_warning_and_the_next_checkpoint_tries_again(tmp_path, monkeypatch):
    write = checkpoint.write

    def full(*arguments, step, **named):
        if step == 4:
            raise ResourceError("the disk is full")
        return write(*arguments, step=step, **named)

    monkeypatch.setattr(checkpoint, "write", full)
    events = list(tiny_runs.trainer(tmp_path, "training.checkpoint_frequency=4").train())
    assert [e.message for e in events if isinstance(e, Warned)] == [
        "the disk is full; training continues and tries again at the next checkpoint"
    ]
    assert [e.step for e in events if isinstance(e, CheckpointSaved)] == [8, 12]


def disk_full_at(monkeypatch, steps):
    write = checkpoint.write

    def full(*arguments, step, **named):
        if step in steps:
            raise ResourceError("the disk is full")
        return write(*arguments, step=step, **named)

    monkeypatch.setattr(checkpoint, "write", full)


def test_three_failed_checkpoints_in_a_row_end_the_run_after_one_warning(tmp_path, monkeypatch):
    disk_full_at(monkeypatch, range(2, 100))
    events = []
    with pytest.raises(ResourceError, match="3 checkpoints in a row could not be saved: the disk is full") as failure:
        for event in tiny_runs.trainer(tmp_path, "training.checkpoint_frequency=1").train():
            events.append(event)
    assert failure.value.exit_code == 6
    assert [e.step for e in events if isinstance(e, CheckpointSaved)] == [1]
    assert len([e for e in events if isinstance(e, Warned)]) == 1
    assert isinstance(events[-1], RunFailed)
    assert events[-1].step < 8


def test_when_there_is_space_again_the_failures_are_counted_anew(tmp_path, monkeypatch):
    disk_full_at(monkeypatch, {1, 2, 4, 5, 7, 8})
    events = list(tiny_runs.trainer(tmp_path, "training.checkpoint_frequency=1").train())
    assert [e.step for e in events if isinstance(e, CheckpointSaved)] == [3, 6, 9, 10, 11, 12]
    assert len([e for e in events if isinstance(e, Warned)]) == 3
    assert isinstance(events[-1], RunFinished)


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


def moved(run):
    run.folder.rename(run.folder.with_name("elsewhere"))
    return run.folder.with_name("elsewhere")


def replaced(run):
    elsewhere = moved(run)
    other = runs.Run(run.folder)
    other.checkpoints.mkdir(parents=True)
    other.info_file.write_text('{"run_id": "other"}')
    return elsewhere


def without_run_json(run):
    run.info_file.unlink()
    return run.folder


@pytest.mark.parametrize("take_away", [moved, replaced, without_run_json])
def test_a_run_whose_folder_is_taken_away_ends_and_nothing_that_was_saved_is_deleted(tmp_path, take_away):
    events, folder = [], None
    loaded = preset_files.load(["default"], tiny_runs.options(tmp_path))
    corpus = tiny_runs.finish(prepare(loaded.preset, cache_folder()))
    with pytest.raises(ResourceError, match="no longer the folder of this run"), new_run(loaded) as opened:
        for event in make_trainer(opened, corpus, Controls()).train():
            events.append(event)
            if isinstance(event, CheckpointSaved) and folder is None:
                folder = take_away(opened.run)
                there = {path: path.read_bytes() for path in tmp_path.rglob("*/checkpoints/step-*/*")}
    assert isinstance(events[-1], RunFailed)
    assert "no longer the folder of this run" in events[-1].message
    assert {path: path.read_bytes() for path in there} == there
    for event in events:
        if isinstance(event, CheckpointSaved):
            checkpoint.verify(folder / event.path)
    if take_away is replaced:
        assert list(opened.run.checkpoints.iterdir()) == []
    elif take_away is moved:
        assert not opened.run.folder.exists()


def test_a_manifest_has_what_was_measured_and_what_it_was_resumed_from(tmp_path):
    first = tiny_runs.trainer(tmp_path)
    measured = {e.step: e for e in first.train() if isinstance(e, Evaluated) and not e.whole}
    saved = checkpoint.saved_in(first.run.checkpoints)
    assert [c.step for c in saved] == [4, 8, 12]
    for one in saved:
        event = measured[one.step]
        expected = {name: getattr(event, name) for name in ("val_loss", "perplexity", "bits_per_byte")}
        assert one.metrics == expected
        assert (one.parent, one.data_fingerprint) == (None, first.corpus.fingerprint)
    again = tiny_runs.trainer(
        tmp_path, "training.num_iterations=14", "training.eval_frequency=0", run=first.run, resume_from=saved[1]
    )
    list(again.train())
    last = checkpoint.newest(first.run.checkpoints)
    assert (last.step, last.parent) == (14, checkpoint.Parent(first.state.run_id, 8))
    assert last.run_id == first.state.run_id


def test_a_checkpoint_of_another_run_in_the_way_is_moved_aside_and_that_is_said(tmp_path):
    other = tiny_runs.trainer(tmp_path)
    list(other.train())
    trainer, events = tiny_runs.trainer(tmp_path), []
    for event in trainer.train():
        events.append(event)
        if isinstance(event, Step) and event.step == 6:
            theirs = other.run.checkpoints / checkpoint.folder_name(8)
            shutil.copytree(theirs, trainer.run.checkpoints / theirs.name)
    (warning,) = [e.message for e in events if isinstance(e, Warned)]
    assert "was a checkpoint of another run; it is now" in warning
    assert [c.step for c in checkpoint.saved_in(trainer.run.checkpoints)] == [4, 8, 12]
    assert checkpoint.verify(trainer.run.checkpoints / "other-run-step-00000008").run_id == other.state.run_id


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_at_step_0(tmp_path):
    loaded = preset_files.load(["default"], tiny_runs.options(tmp_path, "training.checkpoint_frequency=0"))
    corpus = tiny_runs.finish(prepare(loaded.preset, cache_folder()))
    killed = runs.Run(tmp_path / "killed")
    with new_run(loaded) as opened:
        whole = []
        for event in make_trainer(opened, corpus, Controls()).train():
            whole.append(event)
            if isinstance(event, Step) and event.step == 2:
                shutil.copytree(opened.run.folder, killed.folder)
    with resumed_run(killed, overrides=["optimizer.grad_clip=1.0"]) as resumed:
        assert resumed.resume_from is None
        events = list(make_trainer(resumed, corpus, Controls()).train())
    losses = [[e.train_loss for e in story if isinstance(e, Step)] for story in (whole, events)]
    assert losses[0] == losses[1]
    assert checkpoint.newest(killed.checkpoints).run_id == killed.info()["run_id"]


def test_what_ranks_with_shares_save_does_not_follow_the_training(tmp_path):
    trainer = tiny_runs.trainer(tmp_path)
    training = trainer.train()
    next(event for event in training if isinstance(event, Step) and event.step == 2)
    trainer.state.update.is_sharded = True  # on one device nothing is divided, as the counters of steps never are
    saved = tensors_to_save(trainer.state)
    before = {name: tensor.clone() for name, tensor in saved.items()}
    trainer.state.update.is_sharded = False
    next(event for event in training if isinstance(event, Step) and event.step == 3)
    assert before.keys() == saved.keys()
    assert any(name.endswith(".step") for name in saved)
    assert all(torch.equal(tensor, before[name]) for name, tensor in saved.items())
    training.close()


def test_a_run_that_is_left_while_its_end_is_told_has_ended(tmp_path, monkeypatch, slow_disk):
    trainer = tiny_runs.trainer(tmp_path, "training.checkpoint_frequency=5")
    with pytest.MonkeyPatch.context() as patch:
        tiny_runs.exploding_after(patch, last_good=100, diverged=6)
        training = trainer.train()
        for event in training:
            if isinstance(event, Step) and event.step == 6:
                slow_disk.set()
            if isinstance(event, CheckpointSaved):
                break
        training.close()  # a generator that yields once more raises here


def test_memory_that_cannot_be_made_ready_is_asked_for_again_by_the_copy(monkeypatch):
    def none(tensor):
        raise MemoryError

    failures = []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    buffers, tensors = Buffers(), {"a": torch.ones(3)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saving, "_memory_for", none)
        buffers.reserve(tensors)
        assert buffers.copy(tensors) is None
    assert not failures
    assert torch.equal(buffers.copy(tensors)["a"], torch.ones(3))


def test_a_folder_of_checkpoints_that_was_deleted_is_made_again(tmp_path):
    trainer, deleted = tiny_runs.trainer(tmp_path), False
    events = []
    for event in trainer.train():
        events.append(event)
        if isinstance(event, CheckpointSaved) and not deleted:
            shutil.rmtree(trainer.run.checkpoints)
            deleted = True
    assert not [event for event in events if isinstance(event, Warned)]
    assert [saved.step for saved in checkpoint.saved_in(trainer.run.checkpoints)] == [8, 12]
