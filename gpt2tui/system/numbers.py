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


def counted(count: float, noun: str, plural: str | None = None) -> str:
    """A number with its noun: `1 step`, `2 steps`, `1,900 steps`, `0.22 epochs`; `plural` where it is not noun + s."""
    number = f"{count:,}" if isinstance(count, int) else at_least_two_digits(count)
    return f"{number} {noun if number == '1' else plural or f'{noun}s'}"


def percent(fraction: float) -> str:
    """`34%`, and near the ends `<1%` and `99%`: 0% is nothing and 100% is all. Beyond 1 as it is: `120%`."""
    whole = round(100 * fraction)
    if 0 < fraction < 1:
        return "<1%" if fraction < 0.005 else f"{min(99, whole)}%"
    return f"{whole}%"


def exact_percent(fraction: float) -> str:
    """Two digits at least, for shares and probabilities: `97%`, `3.1%`, `0.02%`, `<0.01%`."""
    value = 100 * fraction
    if 0 < value < 0.01:
        return "<0.01%"
    digits = 0 if value >= 9.95 else 1 if value >= 0.95 else 2
    return f"{value:.{digits}f}%"


def at_least_two_digits(value: float) -> str:
    """A number that is not a count: `0.22`, `3.5`, `12`, `390`, `1.24k`."""
    return f"{float(f'{value:.2g}'):g}" if abs(value) < 100 else compact(value)


def learning_rate(value: float) -> str:
    """Three digits: `3.00e-4`, from 0.01 on without an exponent: `0.015`, `8.3`."""
    if value == 0 or not math.isfinite(value) or 0.01 <= abs(value) < 1000:
        return f"{value:.3g}"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def gradient_norm(value: float) -> str:
    """Two decimals, from 1,000 on three digits and a letter: `0.80`, `999.00`, `12.4M`."""
    return f"{value:.2f}" if not abs(value) >= 1000 else compact(value)


def steps_of(step: int, total: int | None) -> str:
    """Both numbers in one form: `412/1,200`, `20,000/20,000`; the step alone where the total is not known."""
    return f"{step:,}" if total is None else f"{step:,}/{total:,}"


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
