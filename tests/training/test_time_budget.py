import json

import pytest

from gpt2tui.errors import CheckpointError
from gpt2tui.preset import files as preset_files
from gpt2tui.run import checkpoint
from gpt2tui.run.events import NumIterationsChanged, RunFinished, Step
from gpt2tui.run.events_file import JsonLines
from gpt2tui.run.summary import summarize
from gpt2tui.tracking.narration import num_iterations_changed
from gpt2tui.training import schedules
from gpt2tui.training.time_budget import UNTYPICAL_STEPS, TimeBudget
from tests import tiny_runs

WSD = ("schedule.name=wsd", "schedule.decay_fraction=0.4", "schedule.warmup_iterations=3")
COSINE = ("schedule.name=cosine", "schedule.warmup_iterations=3")


def preset_of(*overrides, planned=80):
    return preset_files.load(["default"], [*WSD, *overrides]).preset.with_training(num_iterations=planned)


def budget_after(step_seconds, seconds=100.0, most=1000):
    budget = TimeBudget(seconds, most)
    for taken in step_seconds:
        budget.add_step(taken)
    return budget


def wanted(step, step_seconds, *overrides, seconds=100.0, most=1000, planned=80):
    """What a budget says after `step` steps of a run that was to have 80."""
    return budget_after(step_seconds, seconds, most).num_iterations(preset_of(*overrides, planned=planned), step)


def test_what_steps_took_decides():
    assert wanted(20, [0.5] * 20) == 200
    assert wanted(20, [2.0] * 20) == 50


def test_the_first_steps_of_a_process_are_spent_but_not_typical():
    slow = [5.0] * UNTYPICAL_STEPS
    assert wanted(20, [*slow, *[0.5] * 18]) == 20 + int((100 - 10 - 9) / 0.5)


def test_the_first_estimate_is_made_after_twelve_steps_however_many_were_planned():
    assert wanted(11, [0.5] * 11, planned=10**6, most=10**6) == 10**6
    assert wanted(12, [0.5] * 12, planned=10**6, most=10**6) == 200


def test_preparation_evaluations_and_the_end_count():
    budget = budget_after([0.5] * 20)
    budget.add_preparation(10.0)
    budget.add_between_steps(2.0)  # 0.1 s a step
    budget.ending_seconds = 6.0
    assert budget.num_iterations(preset_of(), 20) == 20 + int((100 - 10 - 10 - 2 - 6) / 0.6)


def test_a_validation_text_that_takes_longer_than_the_budget_leaves_half_of_it():
    budget = budget_after([0.5] * 20)
    budget.ending_seconds = 3600.0
    assert budget.num_iterations(preset_of(), 20) == 100


def test_never_more_than_asked_for_and_never_into_a_decay_that_should_have_begun():
    assert wanted(20, [0.001] * 20) == 1000
    assert wanted(40, [50.0] * 40) == 67  # whose last 40 % begin after step 40


def test_the_warm_up_always_fits():
    assert wanted(20, [50.0] * 20, "schedule.warmup_iterations=30", seconds=1.0) == 34  # 20 of 34 before the decay


def test_when_the_warm_up_takes_longer_than_the_budget_the_run_says_so(tmp_path):
    """Of a tiny budget, the steps are the fewest that the schedule allows."""
    changes = ("training.num_iterations=60", "training.time_budget=0.001", "schedule.warmup_iterations=20")
    trainer = tiny_runs.trainer(tmp_path, *WSD, *changes)
    (change,) = [event for event in trainer.train() if isinstance(event, NumIterationsChanged)]
    assert change.fewest
    assert change.num_iterations == 21
    assert "take longer than the time budget" in num_iterations_changed(change).plain


def test_between_estimates_and_for_a_small_difference_nothing_changes():
    assert wanted(21, [0.5] * 21) == 80
    assert wanted(20, [1.26] * 20) == 80


def test_once_a_decay_that_lasts_a_share_of_the_run_has_begun_the_end_stays():
    assert wanted(50, [0.5] * 50) == 80
    assert wanted(70, [0.5] * 70, "schedule.name=constant") == 200


def test_a_decay_over_the_whole_run_follows_the_latest_estimate():
    assert wanted(20, [0.5] * 20, "schedule.name=cosine") == 200
    assert wanted(50, [0.5] * 50, "schedule.name=linear") == 200


def test_a_step_that_was_held_up_is_spent_but_counts_four_typical_ones_in_the_mean():
    mean = 0.5 + (4 * 0.5 - 0.5) / 18
    assert wanted(20, [0.5] * 19 + [40.0]) == 20 + int((100 - 9.5 - 40) / mean)


def test_what_is_spent_is_spent_however_fast_it_has_become():
    taken = [0.1] * 600 + [0.04] * 600  # 84 s of 200; the rest is enough for 2,900 of the faster steps
    assert abs(wanted(1200, taken, seconds=200.0, planned=4800, most=9999) - (1200 + 2900)) <= 15


SETTINGS = (*WSD, "training.num_iterations=60", "training.time_budget=10", "training.sample_frequency=0")


@pytest.fixture
def clock(monkeypatch):
    """Each step takes a quarter of a second, and nothing else takes time: of 60 steps 40 fit, known after step 12."""
    add = TimeBudget.add_step
    monkeypatch.setattr(TimeBudget, "add_step", lambda self, seconds: add(self, 0.25))
    monkeypatch.setattr(TimeBudget, "add_preparation", lambda self, seconds: None)
    monkeypatch.setattr(TimeBudget, "add_between_steps", lambda self, seconds: None)
    monkeypatch.setattr(TimeBudget, "ending_seconds", property(lambda self: 0.0, lambda self, seconds: None))


def train(trainer):
    """Trains; returns the events and the loss of each step."""
    jsonl = JsonLines(trainer.run.events_file, print)
    events = []
    for event in trainer.train():
        jsonl.handle(event)
        events.append(event)
    jsonl.close()
    return events, {event.step: event.train_loss for event in events if isinstance(event, Step)}


@pytest.mark.slow
def test_the_end_moves_and_the_frozen_preset_repeats_the_run(tmp_path, clock):
    trainer = tiny_runs.trainer(tmp_path, *SETTINGS)
    events, losses = train(trainer)
    assert events[0].num_iterations == 60
    assert [(e.step, e.num_iterations) for e in events if isinstance(e, NumIterationsChanged)] == [(12, 40)]
    assert isinstance(events[-1], RunFinished)
    assert events[-1].step == 40
    assert summarize(trainer.run).num_iterations == 40
    frozen = preset_files.load_frozen(trainer.run.preset_file)
    assert (frozen.training.num_iterations, frozen.training.time_budget) == (40, 0.0)
    last = checkpoint.newest(trainer.run.checkpoints)
    assert preset_files.load_frozen(last.folder / "preset.toml") == frozen

    _, again = train(tiny_runs.trainer(tmp_path, *SETTINGS, "training.num_iterations=40", "training.time_budget=0"))
    assert again == losses


@pytest.mark.slow
@pytest.mark.parametrize("decay", [WSD, COSINE])
@pytest.mark.parametrize("step", [8, 12, 32])
def test_a_resumed_run_ends_where_the_uninterrupted_one_did(tmp_path, clock, step, decay):
    settings = (*SETTINGS, *decay)
    trainer = tiny_runs.trainer(tmp_path, *settings, "training.keep_checkpoints=100")
    _, losses = train(trainer)
    saved = checkpoint.verify(trainer.run.checkpoints / f"step-{step:08}")
    num_iterations = preset_files.load_frozen(saved.folder / "preset.toml").training.num_iterations
    resume = ("training.time_budget=0", f"training.num_iterations={num_iterations}")
    again = tiny_runs.trainer(tmp_path, *settings, *resume, run=trainer.run, resume_from=saved)
    events, resumed = train(again)
    assert events[0].time_budget_left is None  # its number of steps is an estimate already
    assert resumed == {number: loss for number, loss in losses.items() if number > step}
    assert preset_files.load_frozen(trainer.run.preset_file).training.num_iterations == 40


def test_with_a_cosine_each_step_has_the_rate_of_the_newest_recorded_estimate(tmp_path, clock):
    trainer = tiny_runs.trainer(tmp_path, *SETTINGS, *COSINE)
    events, _ = train(trainer)
    preset, changes = trainer.preset.with_training(num_iterations=60), 0
    for event in events:
        if isinstance(event, NumIterationsChanged):
            preset, changes = preset.with_training(num_iterations=event.num_iterations), changes + 1
        elif isinstance(event, Step):
            assert event.learning_rate == pytest.approx(schedules.learning_rate(preset, event.step - 1), rel=1e-12)
    assert changes == 1
    assert events[-1].step == 40


def test_a_crash_between_a_move_and_a_checkpoint_leaves_no_end_that_the_run_does_not_have(tmp_path, clock):
    trainer = tiny_runs.trainer(tmp_path, *SETTINGS, "training.checkpoint_frequency=2")
    for event in trainer.train():
        if isinstance(event, Step) and event.step == 11:
            trainer.saver.wait()  # for the checkpoint of step 10
        if isinstance(event, NumIterationsChanged):
            break  # at step 12, and that is the end of this process
    assert preset_files.load_frozen(trainer.run.preset_file).training.num_iterations == 40
    saved = checkpoint.verify(trainer.run.checkpoints / "step-00000010")
    user = ("training.time_budget=0", "training.num_iterations=30")
    events, _ = train(tiny_runs.trainer(tmp_path, *SETTINGS, *user, run=trainer.run, resume_from=saved))
    assert events[-1].step == 30
    assert preset_files.load_frozen(trainer.run.preset_file).training.num_iterations == 30


def test_a_budget_set_at_a_resume_holds_and_is_not_frozen(tmp_path, clock):
    trainer = tiny_runs.trainer(tmp_path, *WSD, "training.num_iterations=24", "training.time_budget=0")
    for event in trainer.train():
        if isinstance(event, Step) and event.step == 4:
            trainer.controls.stop()
    saved = checkpoint.newest(trainer.run.checkpoints)
    more = ("training.num_iterations=60", "training.time_budget=10")
    events, _ = train(tiny_runs.trainer(tmp_path, *WSD, *more, run=trainer.run, resume_from=saved))
    assert 0 < events[0].time_budget_left <= 10
    assert 36 <= events[-1].step <= 44  # 0.25 s each, and what the first four really took
    frozen = preset_files.load_frozen(trainer.run.preset_file).training
    assert (frozen.num_iterations, frozen.time_budget) == (events[-1].step, 0.0)


def test_a_run_stopped_before_the_budget_was_checked_checks_it_once_resumed(tmp_path, clock):
    assert [e.num_iterations for e in changes_after_a_stop(tmp_path, num_iterations=60)] == [40]


def test_a_number_of_iterations_set_at_a_resume_overrides_the_budget(tmp_path, clock):
    assert changes_after_a_stop(tmp_path, num_iterations=24) == []


def changes_after_a_stop(tmp_path, num_iterations):
    """A run that was stopped after step 3 is resumed with `num_iterations`."""
    trainer = tiny_runs.trainer(tmp_path, *SETTINGS)
    for event in trainer.train():
        if isinstance(event, Step) and event.step == 3:
            trainer.controls.stop()
    saved = checkpoint.newest(trainer.run.checkpoints)
    settings = ("training.time_budget=0", f"training.num_iterations={num_iterations}")
    events, _ = train(tiny_runs.trainer(tmp_path, *SETTINGS, *settings, run=trainer.run, resume_from=saved))
    moved = [event for event in events if isinstance(event, NumIterationsChanged)]
    assert events[-1].step == (moved[-1].num_iterations if moved else num_iterations)
    return moved


def test_a_preset_that_cannot_be_rewritten_is_a_warning(tmp_path, clock, monkeypatch):
    trainer = tiny_runs.trainer(tmp_path, *SETTINGS)
    events = trainer.train()
    next(events)

    def full(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gpt2tui.training.preparation.replace_text", full)
    rest = list(events)
    assert any("No space left on device" in getattr(event, "message", "") for event in rest)
    assert rest[-1].step == 40


SOUND = {"seconds": 1, "spent": 0, "most_iterations": 9, "num_iterations": 9}


@pytest.mark.parametrize("budget", [7, {}, {"seconds": 1}, {**SOUND, "seconds": -1}, {**SOUND, "most_iterations": 0.5}])
def test_a_budget_that_is_none_is_a_checkpoint_error(tmp_path, clock, budget):
    trainer = tiny_runs.trainer(tmp_path, *SETTINGS)
    list(trainer.train())
    saved = checkpoint.newest(trainer.run.checkpoints)
    path = saved.folder / "trainer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "time_budget": budget}))
    again = tiny_runs.trainer(tmp_path, *SETTINGS, run=trainer.run, resume_from=saved)
    with pytest.raises(CheckpointError, match="does not hold the numbers of a run"):
        list(again.train())
