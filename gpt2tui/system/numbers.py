"""Numbers for display, three digits and a unit, and as JSON has them."""

import json
import math
from typing import Any

_MOST_IN_A_UNIT = 999_999.5  # of the largest unit; beyond that an exponent is easier to read


def duration(seconds: float) -> str:
    """`0:07`, `2:31`, `1:02:33`, `3 d 04 h`, `11.6M d`."""
    if not seconds < 1e9:
        return f"{compact(seconds / 86_400)} d"
    minutes, second = divmod(max(0, round(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour:02} h"
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def compact(count: float) -> str:
    """Three digits with a thousands letter: `999`, `14.2k`, `124M`, `1.5B`, from 1e15 on an exponent: `1.2e+70`."""
    return "".join(_scaled(count, ("", "k", "M", "B")))


def byte_size(count: float) -> str:
    """Three digits with a decimal unit: `512 B`, `48.2 MB`, `1.21 GB`, from 1e18 on an exponent: `3e+18 B`."""
    return " ".join(_scaled(count, ("B", "kB", "MB", "GB", "TB")))


def xz_comparison(bits_per_byte: float, xz: float | None, after_training: float | None, short: bool = False) -> str:
    """Beside a model's bits per byte: those of `xz -9`, and of xz that has read the training text, each with its ratio.

    `xz 1.75, ratio 0.80; after the training text 1.44, ratio 0.97`, in short `xz 1.75/1.44, ratio 0.80/0.97`; the ratio
    is the model's bits divided by those of xz. Without the second figure `xz 1.75, ratio 0.80`; without xz empty.
    """
    if not xz:
        return ""
    figures = [figure for figure in (xz, after_training) if figure]
    ratios = [f"{bits_per_byte / figure:.2f}" for figure in figures]
    if short:
        return f"xz {'/'.join(f'{figure:.2f}' for figure in figures)}, ratio {'/'.join(ratios)}"
    names = ("xz", "after the training text")
    return "; ".join(f"{n} {f:.2f}, ratio {r}" for n, f, r in zip(names, figures, ratios, strict=False))


def _scaled(value: float, units: tuple[str, ...]) -> tuple[str, str]:
    """`value` in the first unit in which it rounds to at most 999; each unit is 1000 of the one before."""
    if abs(value) >= _MOST_IN_A_UNIT * 1000 ** (len(units) - 1):
        return f"{value:.3g}", units[0]
    power = 0
    while abs(value) >= 999.5 and power < len(units) - 1:
        value /= 1000
        power += 1
    return _three_digits(value), units[power]


def _three_digits(value: float) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def as_json(value: Any, indent: int | None = None) -> str:
    """A JSON document; NaN and infinities, which JSON does not have, are null. Other than ASCII is escaped."""
    return json.dumps(_without_nan(value), indent=indent, allow_nan=False)


def _without_nan(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _without_nan(entry) for key, entry in value.items()}
        case list() | tuple():
            return [_without_nan(entry) for entry in value]
        case _:
            return value
