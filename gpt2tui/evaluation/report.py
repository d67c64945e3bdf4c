"""What an evaluation has measured, as JSON and as a table; and who watches it while it measures."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from gpt2tui.errors import Gpt2TuiError

if TYPE_CHECKING:
    from gpt2tui.generation import TextModel

Item = TypeVar("Item")


class Heading(NamedTuple):
    """The head of a column; `right` says whether its cells are right-aligned."""

    text: str
    right: bool = False


@dataclass(frozen=True)
class Report:
    """The results: `document` for JSON; lines, a table, and notes on how it was measured for people."""

    document: Any
    lines: tuple[str, ...]
    headings: tuple[Heading, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    failure: Gpt2TuiError | None = None
    """Why nothing could be measured, to be raised when the report has been shown."""


class Watcher:
    """Watches an evaluation; this one shows nothing."""

    def loaded(self, model: "TextModel") -> None:
        """Sees the model before it is measured."""

    def say(self, text: str) -> None:
        """Shows what is done next."""

    def warn(self, text: str) -> None:
        """Shows a warning."""

    def over(self, items: Iterable[Item], unit: str, total: int | None = None) -> Iterator[Item]:
        """Passes on the items that are measured one after the other, `total` of them if that is known.

        May end the evaluation by raising an exception.
        """
        yield from items


def number(value: float | None) -> str:
    """Four digits after the point below 10, else two; empty where it is not known."""
    if value is None or math.isnan(value):
        return ""
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.2f}"
