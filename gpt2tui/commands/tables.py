"""Results on stdout: JSON, and tables for any width of terminal, whose first column is never cut."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from gpt2tui.system.numbers import as_json
from gpt2tui.system.styled_output import StyledConsole
from gpt2tui.system.terminal_text import sanitize

PIPED_WIDTH = 200
"""The width of a table that is not printed on a terminal, in characters."""
MIN_FOLDED_WIDTH = 10
GAP = 2


@dataclass(frozen=True)
class Column:
    """A column; `folds` says whether its text may take several lines, `right` whether it is right-aligned."""

    header: str
    folds: bool = False
    right: bool = False


def plain(text: object, keep_newlines: bool = True) -> Text:
    """Text from outside, safe to print: no control characters, no markup, and in stdout's encoding."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return Text(sanitize(str(text), keep_newlines).encode(encoding, "replace").decode(encoding))


def print_json(value: object) -> None:
    """Prints one JSON document; NaN and infinities, which JSON does not have, are null."""
    print(as_json(value, indent=2))


def print_table(
    columns: Sequence[Column], rows: Iterable[Sequence[object]], show_header: bool = True, on_stderr: bool = False
) -> None:
    """Prints a table; where the terminal is too narrow, columns at the right are left out.

    The first column is always printed whole; where it is wider than the terminal, the terminal wraps its lines.
    """
    cells = [[plain(value, column.folds) for column, value in zip(columns, row, strict=True)] for row in rows]
    widths = [_min_width(column, [row[i] for row in cells], show_header) for i, column in enumerate(columns)]
    file = sys.stderr if on_stderr else sys.stdout
    available = StyledConsole(file).width if file.isatty() else PIPED_WIDTH
    count = len(columns)
    while count > 1 and _total_width(widths[:count]) > available:
        count -= 1
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=show_header)
    for column in columns[:count]:
        justify: Literal["left", "right"] = "right" if column.right else "left"
        table.add_column(column.header, justify=justify, no_wrap=not column.folds, overflow="fold")
    for row in cells:
        table.add_row(*row[:count])
    StyledConsole(file, highlight=False, width=max(available, _total_width(widths[:count]))).print(table)


def _min_width(column: Column, cells: Sequence[Text], show_header: bool) -> int:
    longest = max([cell_len(cell.plain) for cell in cells] + [cell_len(column.header)] * show_header, default=0)
    return min(longest, MIN_FOLDED_WIDTH) if column.folds else longest


def _total_width(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)
