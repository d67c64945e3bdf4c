import math

import pytest

from gpt2tui.tracking.run_progress import ExponentialAverage


def test_average_of_hand_computed_values():
    average = ExponentialAverage(beta=0.5)
    assert average.value is None
    average = average.add(4.0)
    assert average.value == pytest.approx(4.0)  # 2 / 0.5
    average = average.add(1.0)
    assert average.value == pytest.approx(2.0)  # (1 + 0.5) / 0.75
    average = average.add(9.0)
    assert average.value == pytest.approx(6.0)  # (0.75 + 4.5) / 0.875


def test_a_constant_series_averages_to_itself_from_the_first_value_on():
    average = ExponentialAverage(beta=0.99)
    for _ in range(5):
        average = average.add(7.25)
        assert average.value == pytest.approx(7.25)


def test_without_memory_the_average_is_the_last_value():
    assert ExponentialAverage(beta=0.0).add(1.0).add(5.0).value == 5.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_leaves_no_trace(value):
    average = ExponentialAverage().add(2.0)
    assert average.add(value) == average


def test_adding_does_not_change_the_average_added_to():
    average = ExponentialAverage().add(2.0)
    average.add(100.0)
    assert average.value == pytest.approx(2.0)
