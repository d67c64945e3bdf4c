"""Several sources with weights: which source each window of a run comes from.

The order of the sources repeats after as many windows as the weights, as whole numbers without a common divisor, add up
to. In it every source is as evenly spread as several can be (Tijdeman 1980, "The chairman assignment problem"): after
any number n of windows, of k sources with shares f, each has had n f windows to within 1 - 1 / (2 k - 2).
"""

import heapq
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]


class SourceOrder:
    """The source of each window of a run, a pure function of the window's position. `weights` are whole numbers."""

    def __init__(self, weights: Sequence[int]) -> None:
        self._weights = np.array(weights, dtype=np.int64)
        self._sources = np.array(_balanced(weights), dtype=np.int64)
        self._numbers = np.empty_like(self._sources)
        for source, weight in enumerate(weights):
            self._numbers[self._sources == source] = np.arange(weight)

    def of(self, positions: Positions) -> tuple[Positions, Positions]:
        """The source of each window of a run, and which of its windows it is, counted from 0; positions (n,)."""
        periods, places = np.divmod(positions, len(self._sources))
        sources = self._sources[places]
        return sources, periods * self._weights[sources] + self._numbers[places]


def _balanced(weights: Sequence[int]) -> list[int]:
    """The sources of one period: each time, of those that may come, the one that must come first.

    The j-th window of a source with share f may come at the time n when n f >= j - 1 + 1 / (2 k - 2), and must come
    while n f <= j - 1 / (2 k - 2). Numbers are multiplied up so that all are whole.
    """
    period, k = sum(weights), max(2, len(weights))
    margins = 2 * k - 2
    scale = math.lcm(*weights)
    waiting: list[tuple[int, int, int]] = []  # when it may come, how many windows it has had, the source
    ready: list[tuple[int, int, int]] = []  # when it must come, how many windows it has had, the source
    order: list[int] = []

    def wait(source: int, had: int) -> None:
        heapq.heappush(waiting, (-(-period * (had * margins + 1) // (margins * weights[source])), had, source))

    for source in range(len(weights)):
        wait(source, 0)
    for now in range(1, period + 1):
        while waiting and waiting[0][0] <= now:
            _, had, source = heapq.heappop(waiting)
            latest = period * (had * margins + margins - 1) * (scale // weights[source])
            heapq.heappush(ready, (latest, source, had))
        _, source, had = heapq.heappop(ready)
        order.append(source)
        wait(source, had + 1)
    return order


def validation_windows(weights: Sequence[int], available: Sequence[int]) -> list[int]:
    """How many validation windows of each source stand in the proportions of the weights, as many as there are.

    At least one of each; `available` windows are in each source, one or more.
    """
    most = min(Fraction(count, weight) for count, weight in zip(available, weights, strict=True))
    return [max(1, int(most * weight)) for weight in weights]
