"""Choosing and sorting runs by their numbers and settings: `val_loss<3.5 lr=0.001 state:finished`."""

import contextlib
import difflib
import math
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Protocol

from gpt2tui.errors import Gpt2TuiError, UsageError
from gpt2tui.preset.files import load_frozen
from gpt2tui.preset.settings import flat, settings
from gpt2tui.run.events import METRICS
from gpt2tui.run.folder import Run
from gpt2tui.run.summary import RunSummary, summarize
from gpt2tui.system.terminal_text import printable, printable_value

SHORT_NAMES = {
    "run": "name",
    "val": "val_loss",
    "best": "best_val_loss",
    "loss": "val_loss",
    "tokens": "tokens_seen",
    "time": "seconds",
    "disk": "bytes",
    "bits/byte": "bits_per_byte",
    "best val loss": "best_val_loss",
}
"""Names of columns, the titles of the tables among them, beside those of the fields of RunSummary and the
metrics."""

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CONDITION = re.compile(r"([\w.-]+)(<=|>=|!=|<|>|=|:)(.*)", re.DOTALL)


class HasValues(Protocol):
    """What conditions look at."""

    def value(self, key: str) -> Any:
        """The value of a column or setting, as `full_key` returns its key; None where it is not known."""


@dataclass(frozen=True)
class QueriedRun:
    """A run with everything that it can be chosen and sorted by."""

    run: Run
    summary: RunSummary

    @classmethod
    def read(cls, run: Run) -> "QueriedRun":
        """The run as its folder is now."""
        return cls(run, summarize(run))

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The run's settings by dotted key; empty where its preset cannot be read."""
        with contextlib.suppress(Gpt2TuiError, OSError, ValueError):
            return flat(load_frozen(self.run.preset_file))
        return {}

    def value(self, key: str) -> Any:
        """The value of a column or setting, as `full_key` returns its key; None where it is not known."""
        return self.settings.get(key) if "." in key else self.summary.value(key)


@dataclass(frozen=True)
class Condition:
    """What must hold for a run: `value(key) comparison wanted`."""

    key: str
    comparison: str
    wanted: str

    def holds(self, run: HasValues) -> bool:
        """Whether it holds; no comparison but != holds for a value that is not known."""
        value = run.value(self.key)
        if self.comparison == ":":
            return value is not None and self.wanted.casefold() in _text(value).casefold()
        if self.comparison in ("=", "!="):
            return self._equals(value) == (self.comparison == "=")
        number = as_number(self.wanted)
        return is_number(value) and number is not None and _COMPARISONS[self.comparison](value, number)

    def _equals(self, value: Any) -> bool:
        number = as_number(self.wanted)
        if is_number(value) and number is not None:
            return math.isclose(value, number, rel_tol=1e-9)
        return value is not None and _text(value).casefold() == self.wanted.casefold()


def conditions(text: str) -> list[Condition]:
    """The conditions in a text, separated by blanks; a word without a comparison is a part of the run's name.

    Raises UsageError for an unknown key, and for < or > with what is not a number.
    """
    found = []
    for word in text.split():
        parts = _CONDITION.fullmatch(word)
        if parts is None:
            found.append(Condition("name", ":", word))
            continue
        key, comparison, wanted = full_key(parts[1]), parts[2], parts[3]
        if not wanted:
            raise UsageError(f"{printable(word)} has nothing to compare with; write it without blanks: {parts[1]}<3.5")
        if comparison in _COMPARISONS and as_number(wanted) is None:
            raise UsageError(f"{printable(word)}: {printable_value(wanted)} is not a number")
        found.append(Condition(key, comparison, wanted))
    return found


def chosen(runs: Iterable[QueriedRun], filters: Sequence[Condition]) -> list[QueriedRun]:
    """The runs for which all conditions hold, in their order."""
    return [run for run in runs if all(condition.holds(run) for condition in filters)]


def in_order(runs: Sequence[QueriedRun], key: str) -> list[QueriedRun]:
    """The runs sorted by a column or setting, with - before the key the largest first; unknown values are last.

    Raises UsageError for an unknown key.
    """
    descending, name = key.startswith("-"), full_key(key.removeprefix("-"))
    known = [run for run in runs if run.value(name) is not None]
    known.sort(key=lambda run: _rank(run.value(name)), reverse=descending)
    return known + [run for run in runs if run.value(name) is None]


def full_key(name: str) -> str:
    """The column or setting that a name means: the last part of a setting's key suffices where it is unique.

    Raises UsageError with the nearest names.
    """
    wanted = name.replace("-", "_")
    wanted = SHORT_NAMES.get(wanted, wanted)
    columns = [*(field.name for field in fields(RunSummary) if field.name != "metrics"), *METRICS]
    keys = [setting.key for setting in settings() if "." in setting.key]
    if wanted in columns or wanted in keys:
        return wanted
    same = [key for key in keys if key.endswith(f".{wanted}")]
    if len(same) == 1:
        return same[0]
    if not same:
        last = {key.rpartition(".")[2]: key for key in keys}
        near = difflib.get_close_matches(wanted[:100], [*columns, *SHORT_NAMES, *keys, *last], n=2, cutoff=0.6)
        same = list(dict.fromkeys(last.get(each, each) for each in near))
    hint = f"did you mean {' or '.join(same)}?" if same else f"the columns are {', '.join(columns)}, and every setting"
    raise UsageError(f"{printable(name, 60)} is no column or setting; {hint}")


def is_number(value: Any) -> bool:
    """Whether a value is a number; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def as_number(text: str) -> float | None:
    """The number that a text is, `1_000`, `1e-3` and `12k` among them; None for other texts."""
    factor = {"k": 1e3, "m": 1e6, "b": 1e9}.get(text[-1:].lower())
    try:
        number = float(text[:-1]) * factor if factor else float(text)
    except ValueError:
        return None
    return None if math.isnan(number) else number


def _text(value: Any) -> str:
    """A value as a user writes it: true for True."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _rank(value: Any) -> tuple[int, Any]:
    """Numbers before texts, which have no order among each other."""
    return (0, value) if is_number(value) else (1, _text(value))
