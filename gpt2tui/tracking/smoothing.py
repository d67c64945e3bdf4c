"""Smoothing of a noisy series for the eye."""

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class ExponentialAverage:
    """A mean in which a value's weight shrinks by `beta` with each later value, corrected for its start.

    The correction divides by the weights seen so far, so that the first values are not pulled towards zero
    (Kingma and Ba, "Adam", section 3). About the last 1 / (1 - beta) values count.
    """

    beta: float = 0.95
    weighted_sum: float = 0.0
    weights: float = 0.0

    def add(self, value: float) -> "ExponentialAverage":
        """With one more value; one that is not finite changes nothing, because it would stay for ever."""
        if not math.isfinite(value):
            return self
        return replace(
            self,
            weighted_sum=self.beta * self.weighted_sum + (1 - self.beta) * value,
            weights=self.beta * self.weights + (1 - self.beta),
        )

    @property
    def value(self) -> float | None:
        """The average; None before the first value."""
        return self.weighted_sum / self.weights if self.weights else None
