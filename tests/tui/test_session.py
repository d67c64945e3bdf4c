"""The states of the training, driven by hand: no screen, no torch."""

import time

import pytest

from gpt2tui.errors import DataError, DivergedError, DoesNotFitError, UsageError
from gpt2tui.run.events import CheckpointSaved, Evaluated, LearningRateChanged, Paused, RunFinished, Step
from gpt2tui.tui.session import TrainingSession
from tests.tui.fake_training import FakeTraining, diverged, launch


def until(session, state, seconds=60.0):
    """All events until the session is in a state."""
    events, end = [], time.monotonic() + seconds
    while session.state != state:
        events += session.drain().events
        assert time.monotonic() < end, f"still {session.state}, not {state}"
        time.sleep(0.002)
    return events


@pytest.fixture
def started():
    """Starts a session with a fake training, and ends it after the test."""
    sessions = []

    def start(fake=None, **changes):
        session = TrainingSession(fake or FakeTraining())
        sessions.append(session)
        session.start(launch(**changes))
        return session

    yield start
    for session in sessions:
        session.stop()
        assert session.join(60)


def test_a_short_training_goes_from_idle_to_finished(started):
    session = TrainingSession(FakeTraining(steps=3))
    assert session.state == "idle"
    assert not session.active
    session.start(launch())
    assert session.state == "preparing"
    assert session.active
    events = until(session, "finished")
    assert [e.step for e in events if isinstance(e, Step)] == [1, 2, 3]
    assert isinstance(events[-1], RunFinished)
    assert session.run.name.endswith("small")
    assert not session.active


def test_pause_resume_and_stop_pass_through_their_states(started):
    session = started()
    until(session, "training")
    session.pause()
    assert session.state == "pausing"
    assert isinstance(until(session, "paused")[-1], Paused)
    session.resume()
    assert session.state == "training"
    session.stop()
    assert session.state == "saving"
    events = until(session, "stopped")
    assert isinstance(events[-2], CheckpointSaved)
    assert events[-1].reason == "stopped"


def test_stop_while_paused_saves(started):
    fake = FakeTraining()
    session = started(fake)
    until(session, "training")
    session.pause()
    until(session, "paused")
    session.stop()
    until(session, "stopped")
    assert len(fake.saved) == 1


def test_after_fast_changes_the_last_request_counts(started):
    fake = FakeTraining()
    session = started(fake)
    until(session, "training")
    for _ in range(20):
        session.pause()
        session.resume()
    session.pause()
    until(session, "paused")
    session.request("checkpoint")  # once this is served, so is all that was asked for before it
    end = time.monotonic() + 60
    while not any(isinstance(event, CheckpointSaved) for event in session.drain().events):
        assert time.monotonic() < end
        time.sleep(0.002)
    assert session.state == "paused"


def test_a_second_training_is_refused(started):
    fake = FakeTraining()
    session = started(fake)
    with pytest.raises(UsageError, match="running already"):
        session.start(launch())
    session.stop()
    assert session.join(60)
    assert len(fake.launches) == 1


def test_a_second_training_is_refused_until_the_thread_of_the_first_has_ended(started):
    session = started(FakeTraining(steps=2))
    until(session, "finished")
    assert session.join(60)
    session.start(launch())
    assert session.state == "preparing"


def test_requests_reach_the_training_only_while_there_is_one(started):
    assert TrainingSession(FakeTraining()).request("checkpoint") is False
    fake = FakeTraining()
    session = started(fake)
    until(session, "training")
    session.pause()
    until(session, "paused")
    assert session.request("evaluate")
    assert session.change_learning_rate(0.25)
    events = []
    while not (fake.requests and any(isinstance(e, Evaluated) for e in events)):
        events += session.drain().events
        time.sleep(0.002)
    assert fake.requests == ["evaluate"]
    assert [e.factor for e in events if isinstance(e, LearningRateChanged)] == [0.25]


def test_live_weights_come_at_a_step_boundary_and_not_after_the_end(started):
    session = started()
    until(session, "training")
    assert session.copy_weights().result(60).startswith("weights of step")
    session.stop()
    until(session, "stopped")
    assert session.copy_weights().cancelled()


def test_an_expected_failure_has_its_own_message(started):
    session = started(FakeTraining(fails=DataError("the corpus is empty")))
    until(session, "failed")
    assert session.failure.message == "the corpus is empty"
    assert session.failure.expected
    assert session.retry_at_half_learning_rate() is None


def test_an_unexpected_exception_is_named_by_its_class(started):
    session = started(FakeTraining(fails=ZeroDivisionError("division by zero")))
    until(session, "failed")
    assert session.failure.message == "ZeroDivisionError: division by zero"
    assert not session.failure.expected


def test_after_a_divergence_a_checkpoint_is_offered_at_half_the_learning_rate(started):
    fake = FakeTraining(fails=diverged(), fails_at=None)
    session = started(fake)
    until(session, "training")
    session.request("checkpoint")
    until(session, "failed")
    retry = session.retry_at_half_learning_rate()
    assert retry.resume == session.run
    assert retry.learning_rate_factor == 0.5


def test_without_a_checkpoint_from_before_a_divergence_nothing_is_offered(started):
    session = started(FakeTraining(fails=DivergedError("the loss is nan")))
    until(session, "failed")
    assert session.retry_at_half_learning_rate() is None


def preparing(started):
    fake = FakeTraining(preparation=["reading"] * 100_000)
    session, end = started(fake), time.monotonic() + 10
    while session.drain().preparation is None:
        assert time.monotonic() < end
        time.sleep(0.001)
    return session, fake


def test_a_stop_while_preparing_cancels_and_saves_nothing(started):
    session, fake = preparing(started)
    session.stop()
    assert session.state == "cancelling"
    assert session.active
    events = until(session, "idle")
    assert events == []
    assert fake.saved == []
    assert session.failure is None


def test_a_second_stop_still_cancels(started):
    session, _ = preparing(started)
    session.stop()
    session.stop()
    assert session.state == "cancelling"
    until(session, "idle")


@pytest.mark.parametrize(("close", "fit"), [(True, "close"), (False, "too large")])
def test_a_training_that_does_not_fit_has_not_begun(started, close, fit):
    def refuse(launch, controls):
        raise DoesNotFitError("needs 5.68 TB, 23.1 GB are free", close=close)
        yield

    session = started(refuse)
    assert session.join(10)
    assert session.drain().state_changed  # though it was idle when it was last drained
    assert session.state == "idle"
    assert session.failure.fit == fit


def test_progress_of_the_preparation_is_reported(started):
    session = started(FakeTraining(preparation=["reading", "tokenizing"]))
    stage = None
    while session.state == "preparing":
        stage = latest.stage if (latest := session.drain().preparation) else stage
        time.sleep(0.001)
    assert stage == "tokenizing"
    assert session.preparation is None
