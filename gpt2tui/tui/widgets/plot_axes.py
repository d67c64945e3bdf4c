"""Axes on the grid of the dots: each tick is the middle of a row or a column, and its label is exact.

A curve's dots, its markers and the ticks are placed by the same function, `Axis.position`, so that what a reader reads
off between two ticks is the value that was drawn.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

LARGEST = 1e300  # beyond it, differences of two values overflow

_STEP_FACTORS = ((1, 0.0), (2, 0.0), (5, 0.0), (2.5, 0.04), (4, 0.08), (3, 0.08))  # with how much each is disliked
_RATIOS = (4.0, 3.0, 2.0, 1.5, 1.25, 1.2, 1.1, 1.05, 1.02, 1.01, 1.005, 1.002, 1.001)
_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200)
_DAY = 86_400
_DIGITS = 5  # of the labels of an axis of values
_STEP_DIGITS = 7  # of the labels of an axis of steps


@dataclass(frozen=True)
class Axis:
    """`cells` rows or columns of `per_cell` dots. Dot 0 is the lowest, or the leftmost; `ticks` are (cell, value).

    On a logarithmic axis `origin` and `per_dot` are log10 of values.
    """

    cells: int
    per_cell: int
    origin: float
    per_dot: float
    ticks: tuple[tuple[int, float], ...]
    log: bool = False

    @property
    def dots(self) -> int:
        """The number of dots."""
        return self.cells * self.per_cell

    def position(self, value: float) -> float:
        """Where a value is, in dots; on a logarithmic axis the value must be positive."""
        return ((math.log10(value) if self.log else value) - self.origin) / self.per_dot

    def positions(self, points: Iterable[tuple[float, float]], part: int) -> list[float]:
        """The positions of the x (part 0) or the y (part 1) of points."""
        origin, per_dot = self.origin, self.per_dot
        if self.log:
            return [(math.log10(point[part]) - origin) / per_dot for point in points]
        return [(point[part] - origin) / per_dot for point in points]

    def value(self, position: float) -> float:
        """The value at a position in dots."""
        value = self.origin + position * self.per_dot
        return float(10.0 ** min(max(value, -LARGEST), 300)) if self.log else value


@dataclass(frozen=True)
class Layout:
    """How an axis is divided: the room between two ticks that is best, and the dots to leave free at its two ends."""

    cells: int
    per_cell: int
    best_gap: float
    least_gap: int = 1
    free_below: int = 1
    free_above: int = 1
    centred: bool = True


@lru_cache(64)
def value_axis(low: float, high: float, layout: Layout, log: bool) -> Axis:
    """The axis of values from low to high; for a logarithmic one both must be positive."""
    return _log_axis(low, high, layout) if log else _linear_axis(low, high, layout, _DIGITS)


@lru_cache(64)
def step_axis(low: float, high: float, layout: Layout, unit: Literal["step", "tokens", "time"]) -> Axis:
    """The axis of steps, tokens or seconds from low to high, with ticks at whole numbers."""
    if unit == "time":
        days = (factor * _DAY * 10**power for power in range(7) for factor in (1, 2, 5))
        return _best(low, high, layout, ((seconds, 0.0) for seconds in (*_SECONDS, *days)), log=False)
    return _linear_axis(low, high, layout, _STEP_DIGITS, smallest=1.0)


def _linear_axis(low: float, high: float, layout: Layout, digits: int, smallest: float = 0.0) -> Axis:
    least = max(smallest, max(abs(low), abs(high)) * 10.0**-digits, 1e-300)
    span = high - low
    power = math.floor(math.log10(max(span / layout.cells, least))) - 1
    steps = (
        (float(f"{factor}e{exponent}"), dislike)
        for exponent in range(power, power + 6)
        for factor, dislike in _STEP_FACTORS
    )
    return _best(low, high, layout, ((step, dislike) for step, dislike in steps if step >= least * 0.999), log=False)


def _best(low: float, high: float, layout: Layout, steps: Iterable[tuple[float, float]], log: bool) -> Axis:
    """The axis with the best use of its cells, among those whose ticks are multiples of one of the steps."""
    found: tuple[float, Axis] | None = None
    for step, dislike in steps:
        for gap, axis in _axes(low, high, layout, step, 0.0, log):
            score = _score(low, high, layout, axis, gap) - dislike
            if found is None or score > found[0]:
                found = score, axis
    return found[1] if found else _bare_axis(low, high, layout, log)


def _axes(low: float, high: float, layout: Layout, step: float, anchor: float, log: bool) -> Iterator[tuple[int, Axis]]:
    """Axes with a tick at `anchor` plus every multiple of `step`, and the cells between two of them."""
    per_cell, middle = layout.per_cell, (layout.per_cell - 1) / 2
    usable = layout.cells * per_cell - 1 - layout.free_below - layout.free_above
    span = high - low
    widest = layout.cells - 1
    if span > 0:
        widest = int(min(widest, usable * step / (span * per_cell)))
    first = anchor + math.floor((low - anchor) / step) * step
    for gap in range(widest, max(layout.least_gap, widest - 3) - 1, -1):
        per_dot = step / (gap * per_cell)
        if per_dot <= 0:
            return
        cell = math.ceil((layout.free_below - middle - (low - first) / per_dot) / per_cell - 1e-9)
        spare = usable + layout.free_below - (cell * per_cell + middle + (high - first) / per_dot)
        if spare < -1e-9:
            continue
        if layout.centred:
            cell += int(spare // (2 * per_cell))
        ticks = []
        for index in range(-(cell // gap), (layout.cells - 1 - cell) // gap + 1):
            value = first + index * step
            if log:
                value = 10.0**value if -300 < value < 300 else math.nan
            elif abs(value) < step * 1e-6:
                value = 0.0
            ticks.append((cell + index * gap, float(f"{value:.12g}")))
        if log:
            ticks = [tick for tick in ticks if _is_short(tick[1])]
        if len(ticks) > 1:
            origin = first - (cell * per_cell + middle) * per_dot
            yield gap, Axis(layout.cells, per_cell, origin, per_dot, tuple(ticks), log)


def _score(low: float, high: float, layout: Layout, axis: Axis, gap: int) -> float:
    """The share of the cells that the values use, less for ticks too near or too far from each other."""
    used = (high - low) / (axis.per_dot * axis.dots)
    too_few = (0.3 if axis.log else 0.15) if len(axis.ticks) < 3 and layout.cells > 2 * layout.best_gap else 0.0
    return used - 0.06 * abs(math.log2(gap / layout.best_gap)) - too_few


def _log_axis(low: float, high: float, layout: Layout) -> Axis:
    low_log, high_log = math.log10(low), math.log10(high)
    span = high_log - low_log
    candidates: list[tuple[float, float, float]] = []  # log10 of the ratio of two ticks, of a tick, the dislike
    for power in (1, 2, 3, 5, 10, 20, 50, 100, 200):
        if power == 1 or power <= 2 * span:
            candidates.append((float(power), 0.0, 0.0))
    for ratio in _RATIOS:
        distance = math.log10(ratio)
        if span / layout.cells > 1.5 * distance:
            break
        if ratio < 1.5 and span > 20 * distance:
            break
        for anchor, dislike in _anchors(low, high, ratio):
            candidates.append((distance, math.log10(anchor), dislike + (0.15 if ratio < 2 else 0.0)))
    found: tuple[float, Axis] | None = None
    for distance, anchor, dislike in candidates:
        for gap, axis in _axes(low_log, high_log, layout, distance, anchor, log=True):
            score = _score(low_log, high_log, layout, axis, gap) - dislike
            if found is None or score > found[0]:
                found = score, axis
    return found[1] if found else _bare_axis(low_log, high_log, layout, log=True)


def _anchors(low: float, high: float, ratio: float) -> Iterator[tuple[float, float]]:
    """Round numbers near low and high, from which ticks of a ratio start."""
    power = math.floor(math.log10(low))
    if ratio >= 1.5:
        for factor in (1, 2, 3, 4, 5, 6, 8, 1.5, 2.5):
            yield float(f"{factor}e{power}"), 0.0 if factor in (1, 2, 5) else 0.02
        return
    for digits in range(4):
        unit = 10.0 ** (power - digits)
        first = math.ceil(low / unit - 1e-9)
        if first * unit <= high * ratio:
            for number in (first - 1, first, first + 1, first + 2):
                if number > 0:
                    yield float(f"{number}e{power - digits}"), 0.02 * digits
            return


def _is_short(value: float) -> bool:
    return math.isfinite(value) and value > 0 and math.isclose(value, float(f"{value:.4g}"), rel_tol=1e-9)


def _bare_axis(low: float, high: float, layout: Layout, log: bool) -> Axis:
    """The axis of values that are too near to each other for their size: one tick, in the middle."""
    per_cell = layout.per_cell
    middle = (layout.cells // 2) * per_cell + (per_cell - 1) / 2
    value = float(f"{(low + high) / 2:.12g}")
    per_dot = max(high - low, abs(value) * 1e-9, 1e-300) / max(1, layout.cells * per_cell - 4)
    tick = 10.0**value if log else value
    return Axis(layout.cells, per_cell, value - middle * per_dot, per_dot, ((layout.cells // 2, tick),), log)


# ---- labels, which are exact for the ticks above


def tick_label(value: float) -> str:
    """A round number in few characters: `0`, `250`, `1.2k`, `0.05`, `4e-4`."""
    size = abs(value)
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if size < 0.01 or size >= 1e15:
        mantissa, _, exponent = f"{value:.{_DIGITS}e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return _scaled(value, ("", "k", "M", "B", "T"))


def byte_label(value: float) -> str:
    """A round number of bytes: `0`, `512B`, `1.25GB`."""
    return "0" if value == 0 else _scaled(value, ("B", "kB", "MB", "GB", "TB"))


def time_label(seconds: float) -> str:
    """A round time: `0`, `30s`, `5m`, `1h30`, `2d6h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s" if whole else "0"
    if whole < 3600:
        return f"{whole // 60}m" + (f"{whole % 60:02}" if whole % 60 else "")
    if whole < _DAY:
        return f"{whole // 3600}h" + (f"{whole % 3600 // 60:02}" if whole % 3600 else "")
    return f"{whole // _DAY}d" + (f"{whole % _DAY // 3600}h" if whole % _DAY else "")


def _scaled(value: float, units: tuple[str, ...]) -> str:
    power = 0
    while abs(value) >= 1000 * (1 - 1e-9) and power < len(units) - 1:
        value /= 1000
        power += 1
    return f"{value:.{_STEP_DIGITS}g}{units[power]}"
