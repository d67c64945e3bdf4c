"""Tables on stdout that stay readable on any terminal: what identifies a row is never cut."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gpt2tui.system.terminal_text import sanitize

PIPED_WIDTH = 200
"""Columns of a table that is not on a terminal: whoever reads it cuts it himself."""
NARROWEST_FOLDED = 10
GAP = 2


@dataclass(frozen=True)
class Column:
    """A column: its text may fold into several lines, or it stands in one."""

    header: str
    folds: bool = False
    right: bool = False


def plain(text: object, keep_newlines: bool = True) -> Text:
    """Text that is not ours as the terminal can show it: no control characters, no markup, in stdout's encoding."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return Text(sanitize(str(text), keep_newlines).encode(encoding, "replace").decode(encoding))


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[object]], show_header: bool = True) -> None:
    """Prints a table; on a terminal too narrow for all columns those at the right are left out.

    The first column always stays, and whole: where it is wider than the terminal, the terminal breaks its lines.
    """
    cells = [[plain(value, column.folds) for column, value in zip(columns, row, strict=True)] for row in rows]
    widths = [_least_width(column, [row[i] for row in cells], show_header) for i, column in enumerate(columns)]
    available = Console().width if sys.stdout.isatty() else PIPED_WIDTH
    count = len(columns)
    while count > 1 and _width(widths[:count]) > available:
        count -= 1
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=show_header)
    for column in columns[:count]:
        justify: Literal["left", "right"] = "right" if column.right else "left"
        table.add_column(column.header, justify=justify, no_wrap=not column.folds, overflow="fold")
    for row in cells:
        table.add_row(*row[:count])
    Console(highlight=False, width=max(available, _width(widths[:count]))).print(table)


def _least_width(column: Column, cells: Sequence[Text], show_header: bool) -> int:
    longest = max([cell_len(cell.plain) for cell in cells] + [cell_len(column.header)] * show_header, default=0)
    return min(longest, NARROWEST_FOLDED) if column.folds else longest


def _width(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)
