"""A resumed run is bit for bit the run that was never interrupted."""

import pytest
import torch

from gpt2tui.errors import CheckpointError, DataError
from gpt2tui.run import checkpoint
from gpt2tui.run.events import CheckpointSaved, Evaluated, RunFinished, RunStarted, Sampled, Step, Warned
from gpt2tui.training import update
from tests import tiny_runs

HARD = ("model.dropout=0.2", "training.gradient_accumulation=3")


def facts(events):
    """What must not differ: everything that is not a time or a memory reading.

    Checkpoints come last: a thread writes them, and when one is done is a question of time.
    """
    kept, saved = [], []
    for event in events:
        if isinstance(event, Step):
            kept.append(("step", event.step, event.train_loss, event.grad_norm, event.learning_rate))
        elif isinstance(event, Evaluated):
            kept.append(("evaluated", event.step, event.val_loss, event.bits_per_byte, event.whole))
        elif isinstance(event, Sampled):
            kept.append(("sampled", event.step, event.text))
        elif isinstance(event, CheckpointSaved):
            saved.append(("saved", event.step))
    return kept + saved


def final_tensors(trainer):
    folder = trainer.run.checkpoints / checkpoint.folder_name(trainer.preset.training.num_iterations)
    return {
        f"{name}:{key}": tensor
        for name in ("model", "training_state")
        for key, tensor in checkpoint.load_tensors(folder / f"{name}.safetensors").items()
    }


def resume(tmp_path, first, step, *overrides):
    saved = checkpoint.verify(first.run.checkpoints / checkpoint.folder_name(step))
    trainer = tiny_runs.trainer(tmp_path, *overrides, run=first.run, resume_from=saved)
    torch.manual_seed(999)  # whatever else the process drew
    return trainer, list(trainer.train())


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("step", [4, 8])
def test_resumed_run_is_bit_identical_to_uninterrupted_run(tmp_path, optimizer, step):
    settings = (*HARD, f"optimizer.name={optimizer}")
    whole = tiny_runs.trainer(tmp_path, *settings)
    uninterrupted = list(whole.train())
    expected = final_tensors(whole)
    trainer, events = resume(tmp_path, whole, step, *settings)
    after = [fact for fact in facts(uninterrupted) if fact[1] > step]
    assert facts(events) == after
    resumed = final_tensors(trainer)
    assert resumed.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(resumed[name], tensor), name


def test_a_resumed_stream_is_bit_identical_to_the_uninterrupted_one(tmp_path):
    settings = (*HARD, "data.streaming=true")
    whole = tiny_runs.trainer(tmp_path, *settings)
    uninterrupted = list(whole.train())
    expected = final_tensors(whole)
    trainer, events = resume(tmp_path, whole, 8, *settings)
    assert facts(events) == [fact for fact in facts(uninterrupted) if fact[1] > 8]
    for name, tensor in final_tensors(trainer).items():
        assert torch.equal(tensor, expected[name]), name


def test_with_dropout_that_is_not_seeded_the_resumed_run_differs(tmp_path, monkeypatch):
    monkeypatch.setattr(update, "seed_generator", lambda device, seed: None)
    whole = tiny_runs.trainer(tmp_path, *HARD)
    uninterrupted = list(whole.train())
    _, events = resume(tmp_path, whole, 4, *HARD)
    after = [fact for fact in facts(uninterrupted) if fact[1] > 4]
    assert facts(events) != after


def test_evaluating_sampling_and_saving_more_often_changes_no_step(tmp_path):
    settings = ("model.dropout=0.2",)
    rare = tiny_runs.trainer(tmp_path, *settings, "training.eval_frequency=0", "training.checkpoint_frequency=0")
    often = tiny_runs.trainer(tmp_path, *settings, "training.eval_frequency=1", "training.checkpoint_frequency=1")
    steps = [[(e.step, e.train_loss) for e in t.train() if isinstance(e, Step)] for t in (rare, often)]
    assert steps[0] == steps[1]


def test_a_stopped_run_saves_its_last_step_and_resumes_from_there(tmp_path):
    trainer = tiny_runs.trainer(tmp_path)
    events = []
    for event in trainer.train():
        events.append(event)
        if isinstance(event, Step) and event.step == 6:
            trainer.controls.stop()
    assert isinstance(events[-1], RunFinished)
    assert events[-1].reason == "stopped"
    _, rest = resume(tmp_path, trainer, 6)
    assert isinstance(rest[0], RunStarted)
    assert rest[0].step == 6
    assert [e.step for e in rest if isinstance(e, Step)] == list(range(7, 13))


def test_a_longer_run_resumes_from_the_end_of_a_finished_one(tmp_path):
    trainer = tiny_runs.trainer(tmp_path)
    list(trainer.train())
    _, events = resume(tmp_path, trainer, 12, "training.num_iterations=14")
    assert [e.step for e in events if isinstance(e, Step)] == [13, 14]


@pytest.mark.parametrize("tokens", [64, 96])
def test_after_another_validation_sample_the_best_is_found_anew(tmp_path, tokens):
    first = tiny_runs.trainer(tmp_path)
    list(first.train())
    last = checkpoint.newest(first.run.checkpoints)
    longer = (
        "training.num_iterations=16",
        "optimizer.lr=1.0",
        "schedule.name=constant",
        f"training.eval_tokens={tokens}",
    )
    _, events = resume(tmp_path, first, 12, *longer)  # the rate is so high that the loss rises
    same = tokens == 64
    notices = [event.message for event in events if isinstance(event, Warned)]
    assert ["validation sample" in notice for notice in notices] == ([] if same else [True])
    assert events[0].best_val_loss == (last.val_loss if same else None)
    (measured,) = [event for event in events if isinstance(event, Evaluated) and not event.whole]
    assert measured.val_loss > last.val_loss
    assert measured.best is not same
    assert measured.best_val_loss == (last.val_loss if same else measured.val_loss)
    assert checkpoint.best(first.run.checkpoints).step == (12 if same else 16)
    assert checkpoint.best_of(checkpoint.saved_in(first.run.checkpoints)).step == (12 if same else 16)


def test_another_model_does_not_fit(tmp_path):
    trainer = tiny_runs.trainer(tmp_path)
    list(trainer.train())
    with pytest.raises(CheckpointError, match="another \\[model\\]"):
        resume(tmp_path, trainer, 4, "model.n_layer=3")


def test_a_changed_corpus_is_noticed(tmp_path, monkeypatch):
    trainer = tiny_runs.trainer(tmp_path)
    list(trainer.train())
    write = tiny_runs.corpus_file

    def changed(folder):
        path = write(folder)
        path.write_text(path.read_text() + "\nand more")
        return path

    monkeypatch.setattr(tiny_runs, "corpus_file", changed)
    with pytest.raises(DataError, match="has changed since the run"):
        resume(tmp_path, trainer, 4)
