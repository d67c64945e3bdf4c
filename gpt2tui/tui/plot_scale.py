"""What a plot needs to know about numbers: round ticks, and no more points than it has columns for. Pure functions."""

import math
from collections.abc import Sequence

from gpt2tui.system.numbers import compact

Points = Sequence[tuple[float, float]]


def decimated(points: Points, left: float, right: float, columns: int) -> list[tuple[float, float]]:
    """The points between left and right, at most two for each column: its lowest and its highest, in order.

    Points whose x or y is not finite are left out. The x of `points` must rise.
    """
    if right <= left or columns < 1:
        return [point for point in points[-1:] if math.isfinite(point[1])]
    scale = columns / (right - left)
    kept: list[tuple[float, float]] = []
    column = -1
    low = high = (0.0, 0.0)
    for point in points:
        x, y = point
        if not (left <= x <= right and math.isfinite(y)):
            continue
        this = min(int((x - left) * scale), columns - 1)
        if this != column:
            if column >= 0:
                kept.extend(sorted({low, high}))
            column, low, high = this, point, point
        elif y < low[1]:
            low = point
        elif y > high[1]:
            high = point
    if column >= 0:
        kept.extend(sorted({low, high}))
    return kept


def round_ticks(low: float, high: float, most: int) -> list[float]:
    """At most about `most` multiples of 1, 2 or 5 times a power of ten, between low and high."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low or most < 1:
        return [low] if math.isfinite(low) else []
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` round numbers between low and high, which must be positive, for an axis of logarithms.

    Powers of ten where there are enough of them, else their 1-2-5 multiples, else round numbers at equal distances.
    """
    if not 0 < low < high < math.inf or most < 1:
        return [low] if 0 < low < math.inf else []
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 3, 4, 6, 8), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        ticks = [
            tick
            for power in powers
            for factor in factors
            if low * (1 - 1e-9) <= (tick := float(f"{factor * 10.0**power:.12g}")) <= high * (1 + 1e-9)
        ]
        if 2 <= len(ticks) <= most:
            return ticks
        if len(ticks) < 2:
            return round_ticks(low, high, most) or ticks
    return ticks[:: math.ceil(len(ticks) / most)]


def tick_label(value: float) -> str:
    """A round number in few characters: `0`, `250`, `1.2k`, `0.05`, `4e-4`."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    size = abs(value)
    if size < 0.01:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return compact(value) if size >= 1000 else f"{value:.4g}"
