"""Many runs of one preset: which runs a sweep has, and what their results say. Pure functions.

`--sweep KEY=A,B,C` lists values, and several such options are a grid. `KEY=LOW..HIGH`, or `LOW..HIGH log`, is a range
to draw from. With seeds, each configuration is trained once with each seed.
"""

import itertools
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from gpt2tui.errors import UsageError
from gpt2tui.preset.settings import settings
from gpt2tui.system.terminal_text import printable

SEED = "training.seed"
MAX_RUNS = 1000
CONFIDENCE = 0.95
_NUMBER = r"[-+]?[\d_]*\.?\d+(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"\s*({_NUMBER})\.\.({_NUMBER})(?:\s+(log))?\s*")
_NAME_LENGTH = 80
_DRAWS_PER_RUN = 100

Settings = Mapping[str, str]
"""Values by dotted key, each as it is written behind `--set KEY=`."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; with `log` their logarithms are drawn evenly. Whole ones for such settings."""

    low: float
    high: float
    log: bool
    whole: bool

    def draw(self, generator: random.Random) -> str:
        """A number of the range, with four digits so that it is short to write."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        if self.whole and not self.log:
            return str(generator.randint(round(low), round(high)))
        drawn = generator.uniform(low, high)
        value = math.exp(drawn) if self.log else drawn
        value = min(max(value if self.whole else float(f"{value:.4g}"), self.low), self.high)
        return str(round(value)) if self.whole else f"{value:g}"


@dataclass(frozen=True)
class SweptSetting:
    """A setting with the values to try, or a range to draw them from."""

    key: str
    values: tuple[str, ...] = ()
    range: Range | None = None


@dataclass(frozen=True)
class PlannedRun:
    """A run of a sweep: the name of its folder, its swept settings, and its seed where it has its own."""

    name: str
    settings: Settings
    seed: int | None = None

    @property
    def overrides(self) -> list[str]:
        """The settings and the seed as `--set` takes them."""
        return [*overrides_of(self.settings), *([] if self.seed is None else [f"{SEED}={self.seed}"])]


def overrides_of(settings: Settings) -> list[str]:
    """The settings as `--set` takes them."""
    return [f"{key}={value}" for key, value in settings.items()]


def read_swept(texts: Sequence[str]) -> list[SweptSetting]:
    """The settings of `--sweep` options. Raises UsageError, which names the option that is wrong."""
    swept = [_read_one(text) for text in texts]
    for number, setting in enumerate(swept):
        if any(setting.key == other.key for other in swept[:number]):
            raise UsageError(f"--sweep names {printable(setting.key)} twice; write all its values in one list")
    return swept


def _read_one(text: str) -> SweptSetting:
    key, equals, values = text.partition("=")
    key, shown = key.strip(), printable(text, 100)
    if not equals or not key:
        raise UsageError(f"--sweep {shown} is not KEY=VALUE,VALUE; for example optimizer.lr=0.001,0.003")
    if found := _RANGE.fullmatch(values):
        return SweptSetting(key, range=_read_range(key, shown, found))
    listed = _separated(values)
    if not all(listed):
        raise UsageError(f"--sweep {shown}: a value of {printable(key)} is missing")
    if len(set(listed)) < len(listed):
        raise UsageError(f"--sweep {shown} names a value of {printable(key)} twice; --seeds N repeats runs")
    return SweptSetting(key, tuple(listed))


def _read_range(key: str, shown: str, found: re.Match[str]) -> Range:
    low, high, log = float(found[1]), float(found[2]), found[3] is not None
    kind = next((setting.type for setting in settings() if setting.key == key), "number")
    if kind not in ("number", "whole number"):
        raise UsageError(f"--sweep {shown}: {printable(key)} is no number, so it has no range; list its values")
    if not low < high:
        raise UsageError(f"--sweep {shown}: the range must begin with the smaller number")
    if log and low <= 0:
        raise UsageError(f"--sweep {shown}: a logarithmic range must begin above 0")
    if kind == "whole number" and not (low.is_integer() and high.is_integer()):
        raise UsageError(f"--sweep {shown}: {printable(key)} is a whole number, so its range must begin and end at one")
    return Range(low, high, log, kind == "whole number")


def _separated(values: str) -> list[str]:
    """The values between commas; a comma in brackets or quotes belongs to its value."""
    parts = re.findall(r"""(?:\[[^]]*\]|"[^"]*"|'[^']*'|[^,])+|(?<=,)(?=,|$)|^(?=,|$)""", values)
    return [part.strip() for part in parts]


def grid(swept: Sequence[SweptSetting]) -> list[Settings]:
    """Every combination of the listed values, the last setting changing first. Raises UsageError for a range."""
    for setting in swept:
        if setting.range is not None:
            raise UsageError(
                f"--sweep {printable(setting.key)}: a range needs --sweep-random N, which says how many runs to draw"
            )
    count = math.prod(len(setting.values) for setting in swept)
    _refuse_too_many(count)
    return [
        dict(zip([setting.key for setting in swept], values, strict=True))
        for values in itertools.product(*(setting.values for setting in swept))
    ]


def draw(swept: Sequence[SweptSetting], count: int, seed: int) -> list[Settings]:
    """`count` different combinations, each value drawn from its range or its list; the same for the same seed.

    Raises UsageError when there are not as many combinations.
    """
    _refuse_too_many(count)
    generator = random.Random(seed)
    drawn: list[Settings] = []
    for _ in range(count * _DRAWS_PER_RUN):
        one = {s.key: s.range.draw(generator) if s.range else generator.choice(s.values) for s in swept}
        if one not in drawn:
            drawn.append(one)
        if len(drawn) == count:
            return drawn
    raise UsageError(f"--sweep-random {count}: only {len(drawn)} different combinations were found; ask for fewer")


def planned(configurations: Sequence[Settings], seeds: Sequence[int | None]) -> list[PlannedRun]:
    """The runs of a sweep: each configuration with each seed, in this order; None keeps the preset's seed.

    Raises UsageError for more than MAX_RUNS.
    """
    pairs = list(itertools.product(configurations, seeds))
    _refuse_too_many(len(pairs))
    digits = max(2, len(str(len(pairs))))
    return [
        PlannedRun(_run_name(f"{number:0{digits}}", settings, seed), settings, seed)
        for number, (settings, seed) in enumerate(pairs, 1)
    ]


def _run_name(number: str, settings: Settings, seed: int | None) -> str:
    """`03-lr=0.01-n_layer=2-seed=1`: unique by its number, and a plain folder name."""
    parts = [f"{key.rpartition('.')[2]}={value}" for key, value in settings.items()]
    parts += [] if seed is None else [f"seed={seed}"]
    name = re.sub(r"[^A-Za-z0-9._+=-]+", "_", "-".join([number, *parts]))
    return name[:_NAME_LENGTH].rstrip(".")


def _refuse_too_many(count: int) -> None:
    if count > MAX_RUNS:
        raise UsageError(f"this sweep has {count:,} runs, more than {MAX_RUNS:,}; list fewer values")


@dataclass(frozen=True)
class Configuration:
    """The results of the finished runs that differ only in their seed, such as their validation losses."""

    settings: Settings
    results: tuple[float, ...]

    @property
    def mean(self) -> float | None:
        """Their mean; None without results."""
        return mean(self.results) if self.results else None

    @property
    def standard_deviation(self) -> float | None:
        """Of the sample, with n - 1 below the fraction bar; None for fewer than two."""
        return stdev(self.results) if len(self.results) > 1 else None


@dataclass(frozen=True)
class BestTwo:
    """The two configurations with the lowest means, and the confidence interval of the difference of these."""

    best: Configuration
    second: Configuration
    difference: float
    low: float
    high: float

    @property
    def is_larger_than_noise(self) -> bool:
        """Whether the interval of the difference excludes 0."""
        return self.low > 0


def best_first(configurations: Sequence[Configuration]) -> list[Configuration]:
    """The configurations by their mean, the lowest first; those without results last."""
    return sorted(configurations, key=lambda one: (one.mean is None, one.mean or 0.0))


def best_two(configurations: Sequence[Configuration]) -> BestTwo | None:
    """The comparison of the best two; None unless both have two results or more."""
    first = best_first([one for one in configurations if one.results])[:2]
    if len(first) < 2 or any(one.standard_deviation is None for one in first):
        return None
    best, second = first
    return BestTwo(best, second, *welch_interval(second.results, best.results))


def welch_interval(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
    """The difference of the means, first - second, and the ends of its confidence interval by Welch's t test.

    B. L. Welch (1947): the standard error is sqrt(s1²/n1 + s2²/n2), and the degrees of freedom are those of Welch and
    Satterthwaite. Both samples need two values.
    """
    difference = mean(first) - mean(second)
    a, b = (stdev(sample) ** 2 / len(sample) for sample in (first, second))
    if a + b == 0:
        return difference, difference, difference
    freedom = (a + b) ** 2 / (a**2 / (len(first) - 1) + b**2 / (len(second) - 1))
    margin = t_quantile(freedom) * math.sqrt(a + b)
    return difference, difference - margin, difference + margin


def t_quantile(freedom: float) -> float:
    """The t below whose absolute value CONFIDENCE of Student's distribution lies: 2.776 for 4 degrees of freedom.

    With x = sqrt(freedom) tan(angle), the density becomes a power of the cosine, which Simpson's rule integrates.
    """
    scale = 2 * math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)

    def probability(angle: float, parts: int = 1000) -> float:
        width = angle / parts
        weights = ((4 if i % 2 else 2) if 0 < i < parts else 1 for i in range(parts + 1))
        total: float = sum(w * math.cos(i * width) ** (freedom - 1) for i, w in enumerate(weights))
        return scale * width / 3 * total

    low, high = 0.0, math.pi / 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if probability(middle) < CONFIDENCE else (low, middle)
    return math.sqrt(freedom) * math.tan(low)
