import itertools
import math

import pytest

from gpt2tui.preset import files as preset_files
from gpt2tui.training.schedules import decay_start, fewest_iterations, learning_rate

PEAK, LAST = 1e-3, 99


def rates(*overrides):
    base = ["optimizer.lr=1e-3", "training.num_iterations=100", "schedule.warmup_iterations=10"]
    preset = preset_files.load(["default"], [*base, *overrides]).preset
    return [learning_rate(preset, iteration) for iteration in range(100)]


@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "wsd"])
def test_warmup_rises_in_a_line_and_reaches_the_peak_with_its_last_update(name):
    values = rates(f"schedule.name={name}")
    assert values[:10] == pytest.approx([PEAK * (i + 1) / 10 for i in range(10)])


@pytest.mark.parametrize("name", ["linear", "cosine", "wsd"])
def test_the_last_update_has_the_lowest_rate(name):
    assert rates(f"schedule.name={name}", "schedule.min_lr=1e-4")[LAST] == pytest.approx(1e-4)


def test_constant_stays():
    assert set(rates("schedule.name=constant")[10:]) == {PEAK}


def test_linear_is_halfway_down_halfway_through():
    values = rates("schedule.name=linear", "schedule.warmup_iterations=1")
    assert values[0] == PEAK
    assert values[50] == pytest.approx(PEAK * (1 - 49 / 98))


def test_cosine_follows_half_a_cosine():
    values = rates("schedule.name=cosine", "schedule.min_lr=1e-4")
    progress = (40 - 10) / (LAST - 10)
    assert values[40] == pytest.approx(1e-4 + 9e-4 * (1 + math.cos(math.pi * progress)) / 2)


def test_wsd_stays_until_its_decay_and_then_falls_in_a_line():
    values = rates("schedule.name=wsd", "schedule.decay_fraction=0.2")
    assert set(values[10:80]) == {PEAK}
    falls = [a - b for a, b in itertools.pairwise(values[80:])]
    assert falls == pytest.approx([PEAK / 20] * 19)


def test_one_iteration_has_a_rate():
    preset = preset_files.load(["default"], ["training.num_iterations=1", "schedule.name=cosine"]).preset
    assert learning_rate(preset, 0) == preset.optimizer.lr


@pytest.mark.parametrize("name", ["constant", "wsd"])
@pytest.mark.parametrize("decay", [0.1, 0.4, 0.9])
def test_a_run_can_be_shortened_and_lengthened_without_changing_what_was(name, decay):
    settings = [f"schedule.name={name}", f"schedule.decay_fraction={decay}", "schedule.warmup_iterations=3"]
    loaded = preset_files.load(["default"], settings).preset
    planned = loaded.with_training(num_iterations=60)
    taken = [learning_rate(planned, iteration) for iteration in range(60)]
    for step in range(4, decay_start(planned) + 1):
        fewest = fewest_iterations(planned, step)
        assert step < fewest <= 60
        for other in (fewest, 61, 200):
            changed = loaded.with_training(num_iterations=other)
            assert [learning_rate(changed, iteration) for iteration in range(step)] == taken[:step]
        if fewest > step + 1:
            assert decay_start(loaded.with_training(num_iterations=fewest - 1)) < step
