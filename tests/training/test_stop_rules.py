"""`training.target_loss` and `training.patience` end a run at an evaluation, and after a resume at the same one."""

import pytest

from gpt2tui.errors import PresetError
from gpt2tui.run import checkpoint
from gpt2tui.run.events import CheckpointSaved, Evaluated, RunFinished, Sampled, Step, Warned
from gpt2tui.run.summary import summarize
from gpt2tui.training.trainer import Trainer
from tests import tiny_runs

EVERY = ("training.eval_frequency=2", "training.checkpoint_frequency=1", "training.num_iterations=40")


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def with_losses(monkeypatch, losses):
    """Evaluations over the validation sample find these losses, in the order of the steps; the last one repeats."""
    measure = Trainer._evaluate

    def measured(self, whole=False, scheduled=True):
        if not whole:
            loss = losses[min(self.step // 2, len(losses)) - 1]
            record = type(self.state).record_validation
            self.state.record_validation = lambda _, bits, counts: record(self.state, loss, bits, counts)
        return measure(self, whole, scheduled)

    monkeypatch.setattr(Trainer, "_evaluate", measured)


def resumed(folder, run, *overrides):
    newest = checkpoint.newest(run.checkpoints)
    return tiny_runs.trainer(folder, *EVERY, *overrides, run=run, resume_from=newest)


@pytest.mark.parametrize(
    ("rules", "step", "reason"),
    [
        (["target_loss=3.5"], 4, "target_loss"),
        (["target_loss=3.4"], 6, "target_loss"),
        (["target_loss=1"], 40, "done"),
        (["patience=1"], 8, "patience"),
        (["patience=2"], 14, "patience"),
        (["patience=2", "target_loss=3.3"], 10, "target_loss"),
        (["patience=100"], 40, "done"),
    ],
)
def test_a_run_ends_at_the_first_evaluation_that_a_rule_names(tmp_path, monkeypatch, rules, step, reason):
    with_losses(monkeypatch, [4.0, 3.5, 3.4, 3.4, 3.3, 3.31, 3.3, 3.5])
    trainer = tiny_runs.trainer(tmp_path, *EVERY, *(f"training.{rule}" for rule in rules))
    events = list(trainer.train())
    assert of(Step, events)[-1].step == step
    assert of(RunFinished, events)[0].reason == reason
    assert [(e.step, e.whole) for e in of(Evaluated, events)[-2:]] == [(step, False), (step, True)]
    assert [e.step for e in of(Sampled, events)].count(step) == 1
    assert [e.step for e in of(CheckpointSaved, events)].count(step) == 1
    assert checkpoint.newest(trainer.run.checkpoints).step == step
    trainer.run.events_file.write_text("".join(f"{event.as_json()}\n" for event in events))
    assert summarize(trainer.run).state == "finished"
    assert summarize(trainer.run).reason == reason


@pytest.mark.parametrize("cut", [1, 4, 10, 13])
def test_a_resumed_run_ends_at_the_same_step(tmp_path, monkeypatch, cut):
    with_losses(monkeypatch, [4.0, 3.5, 3.4, 3.4, 3.3, 3.31, 3.3, 3.5])
    first = tiny_runs.trainer(tmp_path, *EVERY, "training.patience=2", "training.sample_frequency=0")
    for event in first.train():
        if isinstance(event, Step) and event.step == cut:
            first.controls.stop()
    events = list(resumed(tmp_path, first.run, "training.patience=2", "training.sample_frequency=0").train())
    assert of(RunFinished, events)[0].reason == "patience"
    assert of(RunFinished, events)[0].step == 14


def test_evaluations_that_the_user_asks_for_use_up_no_patience(tmp_path, monkeypatch):
    with_losses(monkeypatch, [4.0])
    trainer = tiny_runs.trainer(tmp_path, *EVERY, "training.patience=3", "training.sample_frequency=0")
    events = []
    for event in trainer.train():
        events.append(event)
        if isinstance(event, Step):
            trainer.controls.request("evaluate")
    assert of(RunFinished, events)[0].step == 6  # the lowest loss is of step 1; those of 2, 4 and 6 count


def test_a_run_that_a_rule_has_ended_says_how_to_train_further(tmp_path, monkeypatch):
    with_losses(monkeypatch, [4.0])
    first = tiny_runs.trainer(tmp_path, *EVERY, "training.target_loss=4")
    list(first.train())
    events = list(resumed(tmp_path, first.run, "training.target_loss=4").train())
    assert of(Step, events) == []
    assert "change training.target_loss" in of(Warned, events)[0].message
    further = resumed(tmp_path, first.run, "training.num_iterations=4")
    assert [e.step for e in of(Step, list(further.train()))] == [3, 4]


def test_a_rule_needs_evaluations_during_the_run(tmp_path):
    for rule in ("target_loss=3", "patience=2"):
        with pytest.raises(PresetError, match=r"training.eval_frequency = 0 makes none"):
            tiny_runs.preset(tmp_path, "training.eval_frequency=0", f"training.{rule}")
