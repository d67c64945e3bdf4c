"""The weights of several sources as whole numbers."""

import math
from collections.abc import Sequence

LONGEST_PERIOD = 100_000
"""The most windows after which the order of the sources may repeat."""


def whole_weights(weights: Sequence[float]) -> list[int]:
    """The same proportions in the smallest whole numbers: 0.7 and 0.3, as they are written, become 7 and 3."""
    from fractions import Fraction  # few presets have a mix

    fractions = [Fraction(str(weight)) for weight in weights]
    scale = math.lcm(*(fraction.denominator for fraction in fractions))
    scaled = [int(fraction * scale) for fraction in fractions]
    divisor = math.gcd(*scaled)
    return [weight // divisor for weight in scaled]
