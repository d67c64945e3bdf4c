"""A curve of any length in bounded memory."""

import math
from dataclasses import dataclass

CAPACITY = 1024  # more than a terminal has columns, twice over


@dataclass(slots=True)
class _Bucket:
    """What is kept of neighbouring points: the lowest and the highest, each where it was."""

    key: int
    low_x: int
    low_y: float
    high_x: int
    high_y: float

    def take(self, x: int, y: float) -> None:
        if y < self.low_y:
            self.low_x, self.low_y = x, y
        if y > self.high_y:
            self.high_x, self.high_y = x, y

    def points(self) -> list[tuple[int, float]]:
        """In the order of x; one where both are the same."""
        low, high = (self.low_x, self.low_y), (self.high_x, self.high_y)
        if low == high:
            return [low]
        return [low, high] if low < high else [high, low]


class Series:
    """Points (x, y) with rising x; peaks and dips are kept however long it gets, and so is the last point.

    Points with the same x // stride share a bucket. When there are more than `capacity` buckets the stride
    doubles, so at most 2 * capacity + 1 points are kept.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._stride = 1
        self._buckets: list[_Bucket] = []
        self.last: tuple[int, float] | None = None
        """The newest point."""

    def add(self, x: int, y: float) -> None:
        """One more point; one that is not finite is left out."""
        if not math.isfinite(y):
            return
        self.last = (x, y)
        key = x // self._stride
        if self._buckets and self._buckets[-1].key == key:
            self._buckets[-1].take(x, y)
            return
        self._buckets.append(_Bucket(key, x, y, x, y))
        if len(self._buckets) > self._capacity:
            self._stride *= 2
            self._rebuild(self.points())

    def truncate(self, x: int) -> None:
        """Takes back every point after x."""
        if self.last is None or self.last[0] <= x:
            return
        kept = [point for point in self.points() if point[0] <= x]
        self.last = kept[-1] if kept else None
        self._rebuild(kept)

    def points(self) -> list[tuple[int, float]]:
        """The points that are kept, in the order of x."""
        points = [point for bucket in self._buckets for point in bucket.points()]
        if self.last is not None and (not points or points[-1][0] < self.last[0]):
            points.append(self.last)
        return points

    def __len__(self) -> int:
        return len(self._buckets)

    def _rebuild(self, points: list[tuple[int, float]]) -> None:
        self._buckets = []
        for x, y in points:
            key = x // self._stride
            if self._buckets and self._buckets[-1].key == key:
                self._buckets[-1].take(x, y)
            else:
                self._buckets.append(_Bucket(key, x, y, x, y))
