import math

import pytest

from gpt2tui.system.numbers import byte_size, compact, duration, xz_comparison


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
