"""The driver, as the console and the screen use it, on a model of a few thousand parameters."""

import time

import pytest

from gpt2tui.errors import DataError, DivergedError
from gpt2tui.launch import Launch
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.files import LoadedPreset
from gpt2tui.run import checkpoint
from gpt2tui.run import folder as runs
from gpt2tui.run.events import Event, LearningRateChanged, RunFinished, RunStarted, Step
from gpt2tui.run.events_file import read_events
from gpt2tui.training.controls import Controls
from gpt2tui.training.schedules import learning_rate
from gpt2tui.training.update import Update
from gpt2tui.tui.session import TrainingSession, training_stream
from tests import tiny_runs


def launch(folder, *overrides, **arguments):
    return Launch(LoadedPreset("tiny", tiny_runs.preset(folder, *overrides), ()), **arguments)


def events_of(stream):
    return [emitted for emitted in stream if isinstance(emitted, Event)]


@pytest.mark.slow
def test_the_emitted_events_are_those_in_the_file(tmp_path):
    session = TrainingSession()
    session.start(launch(tmp_path))
    emitted, end = [], time.monotonic() + 60
    while session.active:
        emitted += session.drain().events
        assert time.monotonic() < end
        time.sleep(0.01)
    assert session.state == "finished"
    assert session.progress.step == 12
    assert [e.as_json() for e in read_events(session.run.events_file)] == [e.as_json() for e in emitted]
    assert not runs.is_locked(session.run)


def test_a_resumed_run_continues_at_its_last_step_with_the_given_learning_rate(tmp_path):
    first = launch(tmp_path)
    events_of(training_stream(first, Controls()))
    (run,) = runs.all_runs()
    longer = ("training.num_iterations=14",), ("training.num_iterations=16",)
    for overrides, factor, step in zip(longer, (0.5, 0.25), (12, 14), strict=True):
        again = Launch(first.loaded, resume=run, overrides=overrides, learning_rate_factor=factor)
        events = events_of(training_stream(again, Controls()))
        assert isinstance(events[0], RunStarted)
        assert events[0].step == step
        assert [(e.step, e.factor) for e in events if isinstance(e, LearningRateChanged)] == [(step, factor)]
        assert [e.step for e in events if isinstance(e, Step)] == [step + 1, step + 2]


def test_a_stop_saves_and_emits_the_reason(tmp_path):
    controls, last = Controls(), None
    for emitted in training_stream(launch(tmp_path), controls):
        last = emitted
        if isinstance(emitted, Step) and emitted.step == 5:
            controls.stop()
    assert isinstance(last, RunFinished)
    assert last.reason == "stopped"
    assert checkpoint.newest(runs.all_runs()[0].checkpoints).step == 5


def test_a_run_that_another_process_holds_is_refused(tmp_path):
    first = launch(tmp_path)
    events_of(training_stream(first, Controls()))
    (run,) = runs.all_runs()
    with runs.locked(run):
        session = TrainingSession()
        session.start(Launch(first.loaded, resume=run))
        assert session.join(30)
        session.drain()
    assert session.state == "failed"
    assert "in use by another process" in session.failure.message


def test_a_corpus_that_is_missing_leaves_no_folder_behind(tmp_path):
    missing = launch(tmp_path, f"data.source={tmp_path}/nothing.txt")
    with pytest.raises(DataError):
        events_of(training_stream(missing, Controls()))
    assert runs.all_runs() == []
    assert not list(tmp_path.glob("runs/*"))


def session_events(session):
    """All events of a session until it ends."""
    emitted, end = [], time.monotonic() + 60
    while session.active:
        emitted += session.drain().events
        assert time.monotonic() < end
        time.sleep(0.01)
    return emitted


def diverges_at(monkeypatch, step):
    begin = Update.begin

    def diverging(self, micro_batches, iteration, *rest):
        if iteration == step:
            raise DivergedError("the loss is nan")
        return begin(self, micro_batches, iteration, *rest)

    monkeypatch.setattr(Update, "begin", diverging)


def test_at_half_the_rate_a_run_keeps_its_changes_and_halves_what_it_diverged_at(tmp_path, monkeypatch):
    first = launch(tmp_path)
    events_of(training_stream(first, Controls()))
    (run,) = runs.all_runs()
    session = TrainingSession()
    changes = ("training.num_iterations=20", "training.checkpoint_frequency=0", "optimizer.grad_clip=0.5")
    with monkeypatch.context() as patch:
        diverges_at(patch, 15)
        session.start(Launch(first.loaded, resume=run, overrides=changes, learning_rate_factor=0.4))
        session_events(session)
    assert session.failure.last_good_step == 12
    retry = session.retry_at_half_learning_rate()
    assert (retry.learning_rate_factor, retry.overrides, retry.resume_step) == (0.2, changes, None)
    assert session.join(30)
    session.start(retry)
    emitted = session_events(session)
    assert emitted[0].num_iterations == 20
    frozen = preset_files.load_frozen(run.preset_file)
    assert frozen.optimizer.grad_clip == 0.5
    steps = [e for e in emitted if isinstance(e, Step)]
    assert [e.step for e in steps] == list(range(13, 21))
    for event in steps:
        assert event.learning_rate == pytest.approx(0.2 * learning_rate(frozen, event.step - 1))


def test_at_half_the_rate_a_run_resumes_from_before_the_loss_rose(tmp_path, monkeypatch):
    session = TrainingSession()
    with monkeypatch.context() as patch:
        tiny_runs.exploding_after(patch, last_good=6, diverged=11)
        session.start(launch(tmp_path, "training.checkpoint_frequency=2"))
        session_events(session)
    assert checkpoint.newest(session.run.checkpoints).step == 10  # of exploded weights
    retry = session.retry_at_half_learning_rate()
    assert session.join(30)
    session.start(retry)
    emitted = session_events(session)
    assert emitted[0].step == 6
    steps = {event.step: event for event in emitted if isinstance(event, Step)}
    assert [*steps] == list(range(7, 13))
    frozen = preset_files.load_frozen(session.run.preset_file)
    assert steps[7].learning_rate == pytest.approx(0.5 * learning_rate(frozen, 6))


def test_changes_since_the_checkpoint_survive_a_crash(tmp_path, monkeypatch):
    first = launch(tmp_path)
    events_of(training_stream(first, Controls()))
    (run,) = runs.all_runs()
    longer = ("training.num_iterations=20", "training.checkpoint_frequency=0", "optimizer.grad_clip=0.5")
    controls = Controls()
    with monkeypatch.context() as patch, pytest.raises(DivergedError):
        diverges_at(patch, 15)
        for emitted in training_stream(Launch(first.loaded, resume=run, overrides=longer), controls):
            if isinstance(emitted, Step) and emitted.step == 13:
                controls.change_learning_rate(0.25)
    assert checkpoint.newest(run.checkpoints).step == 12
    emitted = events_of(training_stream(Launch(first.loaded, resume=run), Controls()))
    assert emitted[0].num_iterations == 20
    assert [(e.step, e.factor) for e in emitted if isinstance(e, LearningRateChanged)] == [(12, 0.25)]
    assert (
        preset_files.load_frozen(checkpoint.newest(run.checkpoints).folder / "preset.toml").optimizer.grad_clip == 0.5
    )


def test_a_change_that_the_checkpoint_contains_has_no_second_event(tmp_path):
    controls = Controls()
    first = launch(tmp_path)
    for emitted in training_stream(first, controls):
        if isinstance(emitted, Step) and emitted.step == 5:
            controls.change_learning_rate(0.25)
        if isinstance(emitted, Step) and emitted.step == 9:
            controls.change_learning_rate(0.5)
    (run,) = runs.all_runs()
    longer = Launch(first.loaded, resume=run, overrides=("training.num_iterations=13",))
    emitted = events_of(training_stream(longer, Controls()))
    assert emitted[0].learning_rate_factor == 0.5
    assert not [e for e in emitted if isinstance(e, LearningRateChanged)]
