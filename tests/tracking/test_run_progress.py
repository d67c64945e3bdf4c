import pytest

from gpt2tui.run.events import LearningRateChanged, NumIterationsChanged, Paused, Resumed
from gpt2tui.tracking.run_progress import RunProgress
from tests.tracking import event_samples as sample


def after(*events):
    progress = RunProgress()
    for event in events:
        progress = progress.after(event)
    return progress


def test_nothing_is_known_before_the_first_step():
    progress = after(sample.run_started())
    assert progress.train_loss.value is None
    assert progress.seconds_left is None
    assert progress.tokens_per_second is None
    assert progress.memory_bytes is None
    assert progress.fraction == 0.0


def test_time_left_is_the_median_step_times_the_steps_to_go():
    # The first step compiles for 30 s: the median does not care.
    events = [
        sample.step(1, step_seconds=30.0),
        sample.step(2, step_seconds=0.5),
        sample.step(3, step_seconds=0.4),
    ]
    progress = after(sample.run_started(num_iterations=100), *events)
    assert progress.seconds_left == pytest.approx(0.5 * 97)
    assert progress.tokens_per_second == pytest.approx(2048 / 0.5)


def test_time_between_steps_does_not_count():
    slow = [sample.step(n, step_seconds=0.1, time=1000.0 * n) for n in (1, 2, 3)]
    assert after(sample.run_started(num_iterations=13), *slow).seconds_left == pytest.approx(1.0)


def test_speed_forgets_what_is_more_than_fifty_steps_ago():
    events = [sample.step(n, step_seconds=9.0) for n in range(1, 61)]
    events += [sample.step(n, step_seconds=0.2) for n in range(61, 111)]
    assert after(sample.run_started(), *events).seconds_per_step == pytest.approx(0.2)


def test_the_best_loss_is_the_one_in_the_events():
    begun = after(sample.run_started(step=4, best_val_loss=1.5))
    assert begun.best_val_loss == 1.5
    assert begun.after(sample.evaluated(5, 2.5, best_val_loss=1.5)).best_val_loss == 1.5
    assert begun.after(sample.evaluated(5, 1.2, best=True, best_val_loss=1.2)).best_val_loss == 1.2


def test_the_learning_rate_factor_is_that_of_the_start_then_of_the_last_change():
    begun = after(sample.run_started(step=4, learning_rate_factor=0.5))
    assert begun.learning_rate_factor == 0.5
    assert begun.after(LearningRateChanged(step=5, factor=0.1)).learning_rate_factor == 0.1


def test_a_device_with_memory_of_its_own_is_shown_instead_of_the_host():
    assert after(sample.step(1, device_memory_bytes=5)).memory_bytes == 5
    assert after(sample.step(1)).memory_bytes == 1_210_000_000


def test_pause_and_resume():
    assert after(Paused(step=3)).paused
    assert not after(Paused(step=3), Resumed(step=3)).paused


def test_a_resumed_run_starts_at_its_step_with_nothing_left_of_the_former_speed():
    progress = after(sample.run_started(), sample.step(1), sample.run_started(step=500))
    assert progress.step == 500
    assert progress.fraction == 0.25
    assert progress.seconds_per_step is None


def test_a_moved_end_moves_the_fraction_and_the_time_left():
    progress = after(sample.run_started(num_iterations=200), sample.step(50, step_seconds=2.0))
    assert (progress.fraction, progress.seconds_left) == (0.25, 300.0)
    progress = progress.after(NumIterationsChanged(step=50, num_iterations=100))
    assert (progress.fraction, progress.seconds_left) == (0.5, 100.0)


def test_before_its_first_estimate_a_time_budget_bounds_the_time_left():
    started = sample.run_started(num_iterations=4000, time_budget_left=160.0)
    steps = [sample.step(n, step_seconds=0.5) for n in (1, 2)]
    assert after(started, *steps).seconds_left == 160.0
    changed = NumIterationsChanged(step=2, num_iterations=302)
    assert after(started, *steps, changed).seconds_left == pytest.approx(150.0)
    assert after(sample.run_started(num_iterations=10, time_budget_left=160.0), *steps).seconds_left == pytest.approx(4)
