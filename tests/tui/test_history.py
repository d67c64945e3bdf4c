import math
import random

import pytest

from gpt2tui.run import events
from gpt2tui.tui.history import RunHistory, Series, converted
from tests.tracking import event_samples


def steps(first, last, **changes):
    return [event_samples.step(number, **changes) for number in range(first, last + 1)]


def test_a_short_series_keeps_every_point():
    series = Series()
    for x in range(100):
        series.add(x, x * x)
    assert series.points() == [(x, x * x) for x in range(100)]


def test_a_long_series_stays_small_and_keeps_peaks_dips_and_the_last_point():
    series = Series(capacity=64)
    values = random.Random(0)
    for x in range(100_000):
        series.add(x, values.random())
    series.add(100_000, 50.0)
    series.add(100_001, -50.0)
    series.add(100_002, 0.5)
    points = series.points()
    assert len(points) <= 2 * 64 + 1
    assert points == sorted(points)
    assert (100_000, 50.0) in points
    assert (100_001, -50.0) in points
    assert points[-1] == (100_002, 0.5)


def test_numbers_that_are_not_finite_leave_no_point():
    series = Series()
    for x, y in enumerate((1.0, math.nan, math.inf, -math.inf, 2.0)):
        series.add(x, y)
    assert series.points() == [(0, 1.0), (4, 2.0)]


def test_a_truncated_series_goes_on_from_there():
    series = Series(capacity=8)
    for x in range(100):
        series.add(x, x)
    series.truncate(50)
    assert series.points()[-1][0] <= 50
    series.add(51, 7.0)
    assert series.last == series.points()[-1] == (51, 7.0)


@pytest.mark.slow
def test_memory_is_flat_after_100_000_steps():
    history = RunHistory(grad_clip=1.0)
    sizes = []
    history.add(event_samples.run_started())
    for number in range(1, 100_001):
        history.add(event_samples.step(number, train_loss=1 + 1 / number))
        if number % 50_000 == 0:
            history.add(event_samples.evaluated(number))
            history.add(event_samples.sampled(number))
            sizes.append(sum(len(curve.points()) for curve in history.curves))
    assert sizes[1] <= 10 * 2049
    assert history.progress.step == 100_000


def test_the_means_of_a_long_series_are_over_every_point():
    series, values, drawn = Series(capacity=64), random.Random(1), []
    for x in range(10_000):
        drawn.append(values.random())
        series.add(x, drawn[-1])
    means = series.means()
    stride = 10_000 / len(means)
    assert len(means) <= 64
    first = round(means[1][0] * 2 / 3 + 0.5)  # the second bucket begins where the first ends
    assert means[0][1] == pytest.approx(sum(drawn[:first]) / first)
    assert sum(y for _, y in means) / len(means) == pytest.approx(sum(drawn) / 10_000, abs=0.5 / stride)


def test_steps_become_tokens_and_seconds_of_training():
    begin = 1_000.0
    history = RunHistory.of(
        [
            event_samples.run_started(time=begin),
            *(event_samples.step(n, tokens_seen=n * 512, time=begin + 2 * n) for n in range(1, 11)),
            event_samples.run_started(step=6, time=begin + 5_000),  # hours between two sessions do not count
            *(event_samples.step(n, tokens_seen=n * 512, time=begin + 5_000 + 3 * (n - 6)) for n in range(7, 11)),
        ]
    )
    points = history.train_loss.points()
    assert [x for x, _ in converted(points, history.tokens_seen.points())] == [n * 512 for n in range(1, 11)]
    seconds = [x for x, _ in converted(points, history.seconds.points())]
    assert seconds == [2, 4, 6, 8, 10, 12, 15, 18, 21, 24]
    assert converted(points, [(1, 5.0)]) == []


def test_a_learning_rate_changed_at_a_resume_is_a_mark():
    change = {"key": "optimizer.lr", "before": 0.01, "after": 0.001, "effect": "from step 4 on"}
    other = {"key": "training.eval_frequency", "before": 1, "after": 2, "effect": "from step 4 on"}
    history = RunHistory.of(
        [*steps(1, 3), event_samples.run_started(step=3), events.SettingsChanged(step=3, changes=[change, other])]
    )
    assert [(mark.step, mark.text) for mark in history.marks] == [(3, "resumed"), (3, "lr 0.01 → 0.001")]


def test_what_a_resumed_run_does_again_replaces_what_was_done_before():
    history = RunHistory.of(
        [
            event_samples.run_started(),
            *steps(1, 10, train_loss=5.0),
            event_samples.evaluated(10, val_loss=1.0),
            event_samples.sampled(10),
            event_samples.checkpoint_saved(5),
            event_samples.run_started(step=5),
            *steps(6, 7, train_loss=2.0),
        ]
    )
    assert history.train_loss.points() == [(step, 5.0) for step in range(1, 6)] + [(6, 2.0), (7, 2.0)]
    assert history.val_loss.points() == []
    assert history.best is None
    assert not history.samples
    assert history.checkpoint.step == 5
    assert [(mark.step, mark.kind) for mark in history.marks] == [(5, "resumed")]


def test_the_best_evaluation_before_the_point_of_resumption_stays_the_best():
    first = event_samples.evaluated(4, 3.0, best=True, best_val_loss=3.0)
    later = event_samples.evaluated(8, 2.0, best=True, best_val_loss=2.0)
    history = RunHistory.of([event_samples.run_started(), first, later])
    assert history.best == later
    history.add(event_samples.run_started(step=6, best_val_loss=3.0, learning_rate_factor=0.5))
    assert history.best == first
    assert history.learning_rate_factor == 0.5
    history.add(event_samples.evaluated(8, 3.5, best_val_loss=3.0))
    assert history.best == first


def test_an_evaluation_that_the_resumed_checkpoint_does_not_know_is_not_the_best():
    known = event_samples.evaluated(4, 3.0, best=True, best_val_loss=3.0)
    late = event_samples.evaluated(8, 2.0, best=True, best_val_loss=2.0)  # asked for after the checkpoint of step 8
    history = RunHistory.of([event_samples.run_started(), known, late])
    history.add(event_samples.run_started(step=8, best_val_loss=3.0))
    assert history.best == known


def test_a_run_that_starts_over_forgets_everything():
    history = RunHistory.of([event_samples.run_started(), *steps(1, 9), event_samples.run_started()])
    assert history.train_loss.points() == []
    assert not history.marks


def test_a_changed_learning_rate_is_a_mark():
    history = RunHistory.of([*steps(1, 3), events.LearningRateChanged(step=3, factor=0.5)])
    assert [(mark.step, mark.text) for mark in history.marks] == [(3, "lr × 0.5")]
    assert history.learning_rate_factor == 0.5


def test_the_share_of_clipped_steps():
    history = RunHistory(grad_clip=1.0)
    assert history.clipped_fraction is None
    for number, norm in enumerate((0.5, 1.0, 1.5, 3.0), start=1):
        history.add(event_samples.step(number, grad_norm=norm))
    assert history.clipped_fraction == 0.5
    assert RunHistory.of(steps(1, 3)).clipped_fraction is None  # not known without the preset's limit


def test_memory_is_the_device_s_where_it_has_its_own():
    history = RunHistory.of(steps(1, 2, device_memory_bytes=6, device_memory_reserved_bytes=8, host_memory_bytes=99))
    assert history.device_memory.last == (2, 6)
    assert history.device_memory_reserved.last == (2, 8)
    assert history.peak_memory_bytes == 8
    assert RunHistory.of(steps(1, 2, host_memory_bytes=99)).peak_memory_bytes == 99


def test_the_evaluation_of_all_text_does_not_bend_the_curve():
    first = event_samples.evaluated(5, 2.0, best=True, best_val_loss=2.0)
    history = RunHistory.of([first, event_samples.evaluated(9, 1.0, whole=True)])
    assert history.val_loss.points() == [(5, 2.0)]
    assert history.best.step == 5
    assert history.evaluation.step == 9


def test_bytes_per_token_follow_from_loss_and_bits_per_byte():
    # 2 bits a token at 0.5 bits per byte: 4 bytes per token.
    history = RunHistory.of([event_samples.evaluated(1, val_loss=2 * math.log(2), bits_per_byte=0.5)])
    assert history.bytes_per_token == pytest.approx(4.0)
