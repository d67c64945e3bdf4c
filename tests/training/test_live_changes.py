"""What one may do to a training that runs: take a copy of its weights, change its learning rate."""

from concurrent.futures import Future
from types import SimpleNamespace

import psutil
import pytest
import torch

from gpt2tui import generation
from gpt2tui.errors import DivergedError, ResourceError
from gpt2tui.run import checkpoint
from gpt2tui.run.events import CheckpointSaved, LearningRateChanged, Paused, RunFinished, Step
from gpt2tui.training import live_copy
from gpt2tui.training.controls import Controls
from gpt2tui.training.schedules import learning_rate
from gpt2tui.training.update import Update
from tests import tiny_runs
from tests.training.test_resume import facts, final_tensors, resume

HARD = ("model.dropout=0.2", "training.gradient_accumulation=3", "training.checkpoint_frequency=2")


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed_at(step, factor, trainer, pause=True):
    """Trains to the end, with the learning rate changed after a step, while paused or on the way."""
    events = []
    for event in trainer.train():
        events.append(event)
        if isinstance(event, Step) and event.step == step:
            if pause:
                trainer.controls.pause()
            else:
                trainer.controls.change_learning_rate(factor)
        if isinstance(event, Paused):
            trainer.controls.change_learning_rate(factor)
        if isinstance(event, LearningRateChanged):
            trainer.controls.resume()
    return events


# ---- live weights


def test_live_weights_are_those_of_the_step_and_training_leaves_them_alone(tmp_path):
    trainer, wanted, expected = tiny_runs.trainer(tmp_path), None, None
    for event in trainer.train():
        if isinstance(event, Step) and event.step == 5:
            wanted, expected = trainer.controls.copy_weights(), weights(trainer.model)
    live = wanted.result(0)
    assert live.source.endswith("live at step 5")
    assert not live.model.training
    for name, tensor in expected.items():
        assert torch.equal(live.model.state_dict()[name], tensor), name
    assert any(not torch.equal(tensor, expected[name]) for name, tensor in trainer.model.state_dict().items())
    assert live.continuation("the ", live.sampling).tokens > 0


def test_live_weights_and_samples_use_only_the_positions_that_are_trained(tmp_path):
    trainer = tiny_runs.trainer(tmp_path, "training.sequence_length=8", "sampling.max_length=30")
    for event in trainer.train():
        if isinstance(event, Step) and event.step == 5:
            text = trainer._sample().text
            with torch.no_grad():
                trainer.model.wpe.weight[8:] = torch.nan
            assert trainer._sample().text == text
            break
    reply = Future()
    live_copy.copy_weights(reply, trainer.state, trainer.corpus.tokenizer, "tiny")
    assert reply.result(0).context_length == 8
    assert reply.result(0).continuation("the ", trainer.preset.sampling).text


def test_live_weights_are_copied_while_paused(tmp_path):
    trainer, wanted = tiny_runs.trainer(tmp_path), []
    for event in trainer.train():
        if isinstance(event, Step) and event.step == 3:
            trainer.controls.pause()
        if isinstance(event, Paused):
            wanted.append(trainer.controls.copy_weights())
            trainer.controls.request("checkpoint")
        if isinstance(event, CheckpointSaved) and event.step == 3:
            trainer.controls.resume()
    assert wanted[0].result(0).source.endswith("live at step 3")


@pytest.mark.slow
def test_taking_weights_changes_no_step(tmp_path):
    alone = [e.train_loss for e in tiny_runs.trainer(tmp_path, *HARD).train() if isinstance(e, Step)]
    trainer, watched, copies = tiny_runs.trainer(tmp_path, *HARD), [], []
    for event in trainer.train():
        if isinstance(event, Step):
            watched.append(event.train_loss)
            if copies:
                copies[-1].result(0).continuation("the ", trainer.preset.sampling)
            copies.append(trainer.controls.copy_weights())
    assert watched == alone


def test_pending_requests_for_weights_are_cancelled_when_training_ends(tmp_path):
    trainer = tiny_runs.trainer(tmp_path)
    for event in trainer.train():
        if isinstance(event, Step) and event.step == 12:
            late = trainer.controls.copy_weights()
    assert late.cancelled()
    assert trainer.controls.copy_weights().cancelled()


def test_a_request_for_weights_that_was_cancelled_costs_nothing():
    controls = Controls()
    controls.copy_weights().cancel()
    kept = controls.copy_weights()
    assert controls.next_copy() is kept
    assert controls.next_copy() is None


def test_a_step_that_diverged_is_not_handed_out(tmp_path, monkeypatch):
    begin = Update.begin

    def reading_late(self, *arguments):
        self.async_metrics = True  # as on CUDA
        return begin(self, *arguments)

    monkeypatch.setattr(Update, "begin", reading_late)
    trainer, wanted = tiny_runs.trainer(tmp_path, "training.eval_frequency=0", "training.checkpoint_frequency=0"), None
    with pytest.raises(DivergedError):
        for event in trainer.train():
            if isinstance(event, Step) and event.step == 5:
                with torch.no_grad():
                    trainer.model.wte.weight.fill_(float("nan"))
            if isinstance(event, Step) and event.step == 6:
                wanted = (
                    trainer.controls.copy_weights()
                )  # step 7 has been taken with these weights, and is not read yet
    assert wanted.cancelled()


def asked_once(trainer, step=5):
    """Asks for the weights after a step and trains to the end; the future and the last event."""
    wanted = last = None
    for last in trainer.train():
        if isinstance(last, Step) and last.step == step:
            wanted = trainer.controls.copy_weights()
    return wanted, last


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("out of memory")]
)
def test_without_memory_for_a_copy_the_request_fails_and_the_run_continues(tmp_path, monkeypatch, error):
    def failing(*arguments):
        raise error

    monkeypatch.setattr(live_copy, "copied", failing)
    wanted, last = asked_once(tiny_runs.trainer(tmp_path))
    with pytest.raises(ResourceError, match="could not be copied"):
        wanted.result(0)
    assert isinstance(last, RunFinished)


def test_a_copy_for_which_there_is_no_room_is_not_tried(tmp_path, monkeypatch):
    memory = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory._replace(available=1000))
    wanted, last = asked_once(tiny_runs.trainer(tmp_path))
    with pytest.raises(ResourceError, match="no room beside the training"):
        wanted.result(0)
    assert isinstance(last, RunFinished)


@pytest.mark.parametrize(("free", "place"), [(0.5, "cpu"), (4.0, "cuda")])
@pytest.mark.parametrize("trained", [True, False])
def test_a_gpu_without_room_leaves_the_copy_to_the_cpu(monkeypatch, free, place, trained):
    monkeypatch.setattr(generation, "bytes_needed", lambda model, texts=1: 1000)
    monkeypatch.setattr(live_copy, "bytes_needed", lambda model, texts=1: 1000)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000 * free, 10**9))
    on_gpu = SimpleNamespace(wte=SimpleNamespace(weight=SimpleNamespace(device=torch.device("cuda"))))
    state = SimpleNamespace(model=on_gpu, step=3 + trained, first_step=3)
    assert live_copy._device_with_room(state).type == (place if trained else "cpu")


def test_a_copy_needs_its_weights_and_the_cache_of_a_whole_context(tmp_path):
    trainer = tiny_runs.trainer(tmp_path)
    next(trainer.train())
    config = trainer.model.config
    weights = sum(parameter.numel() for parameter in trainer.model.parameters()) * 4
    cache = 2 * config.n_layer * config.n_positions * config.n_embd * 4
    assert generation.bytes_needed(trainer.model) > weights + cache


# ---- the learning rate


@pytest.mark.parametrize("pause", [True, False])
def test_a_changed_learning_rate_holds_from_the_next_step_on(tmp_path, pause):
    trainer = tiny_runs.trainer(tmp_path)
    events = changed_at(5, 0.25, trainer, pause)
    assert [(e.step, e.factor) for e in events if isinstance(e, LearningRateChanged)] == [(5, 0.25)]
    for event in events:
        if isinstance(event, Step):
            factor = 0.25 if event.step > 5 else 1
            assert event.learning_rate == pytest.approx(factor * learning_rate(trainer.preset, event.step - 1))


def test_both_optimizers_follow_the_change(tmp_path):
    trainer = tiny_runs.trainer(tmp_path, "optimizer.name=muon")
    changed_at(5, 0.5, trainer)
    rates = [group["lr"] for optimizer, _ in trainer.state.update.optimizers.all for group in optimizer.param_groups]
    share = learning_rate(trainer.preset, 11) / trainer.preset.optimizer.lr
    lr, muon_lr = trainer.preset.optimizer.lr, trainer.preset.optimizer.muon_lr
    assert rates == pytest.approx([0.5 * share * lr, 0.5 * share * lr, 0.5 * share * muon_lr])


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("step", [6, 8])
def test_a_run_resumed_after_a_change_is_bit_identical_to_the_uninterrupted_one(tmp_path, optimizer, step):
    settings = (*HARD, f"optimizer.name={optimizer}")
    whole = tiny_runs.trainer(tmp_path, *settings)
    uninterrupted = changed_at(5, 0.25, whole)
    expected = final_tensors(whole)
    trainer, events = resume(tmp_path, whole, step, *settings)
    assert facts(events) == [fact for fact in facts(uninterrupted) if fact[1] > step]
    resumed = final_tensors(trainer)
    for name, tensor in expected.items():
        assert torch.equal(resumed[name], tensor), name


def test_without_the_saved_change_the_resumed_run_differs(tmp_path, monkeypatch):
    whole = tiny_runs.trainer(tmp_path, *HARD)
    uninterrupted = changed_at(5, 0.25, whole)
    read = checkpoint.read_json

    def forgetful(path):
        return {key: value for key, value in read(path).items() if key != "learning_rate_factor"}

    monkeypatch.setattr(checkpoint, "read_json", forgetful)
    _, events = resume(tmp_path, whole, 6, *HARD)
    assert facts(events) != [fact for fact in facts(uninterrupted) if fact[1] > 6]


def test_a_change_after_the_checkpoint_of_the_same_step_is_saved_when_the_run_stops_there(tmp_path):
    trainer = tiny_runs.trainer(tmp_path)
    for event in trainer.train():
        if isinstance(event, Step) and event.step == 4:  # at which a checkpoint is due
            trainer.controls.pause()
        if isinstance(event, Paused):
            trainer.controls.change_learning_rate(0.5)
        if isinstance(event, LearningRateChanged):
            trainer.controls.stop()
    saved = checkpoint.newest(trainer.run.checkpoints)
    assert saved.step == 4
    assert checkpoint.read_json(saved.folder / "trainer.json")["learning_rate_factor"] == 0.5


def test_a_checkpoint_from_before_there_were_changes_resumes_at_the_schedules_own(tmp_path, monkeypatch):
    whole = tiny_runs.trainer(tmp_path)
    uninterrupted = list(whole.train())
    read = checkpoint.read_json
    monkeypatch.setattr(
        checkpoint, "read_json", lambda path: {k: v for k, v in read(path).items() if k != "learning_rate_factor"}
    )
    _, events = resume(tmp_path, whole, 8)
    assert facts(events) == [fact for fact in facts(uninterrupted) if fact[1] > 8]
