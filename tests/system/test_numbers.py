import math

import pytest

from gpt2tui.system.numbers import (
    byte_size,
    compact,
    counted,
    duration,
    exact_percent,
    gradient_norm,
    learning_rate,
    percent,
    steps_of,
    xz_comparison,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (7.4, "0:07"),
        (59.6, "1:00"),
        (151, "2:31"),
        (3599.7, "1:00:00"),
        (3753, "1:02:33"),
        (86_399.4, "23:59:59"),
        (86_400, "1 d 00 h"),
        (3 * 86_400 + 4 * 3600 + 1800, "3 d 04 h"),
        (-3, "0:00"),
        (999_999_999, "11574 d 01 h"),
        (1e12, "11.6M d"),
        (1e70, "1.16e+65 d"),
        (math.inf, "inf d"),
        (math.nan, "nan d"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (999.4, "999"),
        (999.6, "1k"),
        (1000, "1k"),
        (14_234, "14.2k"),
        (999_499, "999k"),
        (999_500, "1M"),
        (124_439_808, "124M"),
        (1_557_611_200, "1.56B"),
        (2_000_000_000_000, "2000B"),
        (999_000_000_000_000, "999000B"),
        (1e15, "1e+15"),
        (1.234e70, "1.23e+70"),
        (-1e300, "-1e+300"),
        (10**300, "1e+300"),
        (0.05, "0.05"),
        (9.96, "9.96"),
        (-14_234, "-14.2k"),
        (math.inf, "inf"),
        (math.nan, "nan"),
    ],
)
def test_compact(count, text):
    assert compact(count) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (512, "512 B"),
        (48_200_000, "48.2 MB"),
        (1_210_000_000, "1.21 GB"),
        (3e15, "3000 TB"),
        (3e18, "3e+18 B"),
    ],
)
def test_byte_size(count, text):
    assert byte_size(count) == text


def test_xz_and_the_models_share_of_it():
    assert xz_comparison(1.4, 1.75, 1.4) == "xz 1.75, ratio 0.80; after the training text 1.40, ratio 1.00"
    assert xz_comparison(1.4, 1.75, 1.4, short=True) == "xz 1.75/1.40, ratio 0.80/1.00"
    for short in (True, False):
        assert xz_comparison(1.4, 1.75, None, short) == "xz 1.75, ratio 0.80"
        assert xz_comparison(1.4, None, None, short) == ""


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (0, "step", "0 steps"),
        (1, "CPU thread", "1 CPU thread"),
        (1900, "step", "1,900 steps"),
        (1.0, "epoch", "1 epoch"),
        (0.998, "epoch", "1 epoch"),
        (0.2247, "epoch", "0.22 epochs"),
        (390.0, "epoch", "390 epochs"),
        (3.25, "time", "3.2 times"),
        (99.6, "epoch", "100 epochs"),
        (12_345.0, "epoch", "12.3k epochs"),
        (0.0, "epoch", "0 epochs"),
        (math.inf, "epoch", "inf epochs"),
        (math.nan, "epoch", "nan epochs"),
        (3e-7, "epoch", "3e-07 epochs"),
    ],
)
def test_a_number_agrees_with_its_noun(count, noun, text):
    assert counted(count, noun) == text


def test_a_noun_may_have_its_own_plural():
    assert [counted(n, "entry", "entries") for n in (1, 2)] == ["1 entry", "2 entries"]


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (0, "0%"),
        (0.0004, "<1%"),
        (0.006, "1%"),
        (0.02, "2%"),
        (0.343, "34%"),
        (0.9999, "99%"),
        (1, "100%"),
        (1.2, "120%"),
    ],
)
def test_percent_is_0_only_for_nothing_and_100_only_for_all(fraction, text):
    assert percent(fraction) == text


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0.97, "97%"), (0.031, "3.1%"), (0.0002, "0.02%"), (0.00001, "<0.01%"), (0, "0.00%"), (1, "100%")],
)
def test_exact_percent_has_two_digits(fraction, text):
    assert exact_percent(fraction) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (3e-4, "3.00e-4"),
        (1.2649e-5, "1.26e-5"),
        (0.015, "0.015"),
        (8.3, "8.3"),
        (math.nan, "nan"),
        (2e5, "2.00e5"),
    ],
)
def test_learning_rate(value, text):
    assert learning_rate(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.8, "0.80"), (999, "999.00"), (12_382_625.0, "12.4M"), (1e30, "1e+30"), (math.inf, "inf"), (math.nan, "nan")],
)
def test_gradient_norm(value, text):
    assert gradient_norm(value) == text


def test_both_numbers_of_steps_have_one_form():
    assert [steps_of(20_000, 20_000), steps_of(7, None)] == ["20,000/20,000", "7"]
