"""The table of runs: one line each, as many columns as fit, sorted by one of them, some marked."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from rich.cells import cell_len
from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import DataTable
from textual.widgets.data_table import RowKey

from gpt2tui.run import query
from gpt2tui.system.numbers import byte_size, compact, duration, learning_rate, steps_of
from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tui.runs.library import RunRow
from gpt2tui.tui.runs.sweeps import SweepRow, in_sweeps, unfolded
from gpt2tui.tui.states import ELSEWHERE, SIGNS
from gpt2tui.tui.widgets.mode_bar import shorten_middle

MARK = "◆"
NAME_WIDTH = 26  # columns go until the names have this many cells
PRESET_WIDTH = 16
SHORTEST_NAME = 10


@dataclass(frozen=True)
class Column:
    """A column: what it shows, what it sorts by, and how soon it goes when there is no room (larger goes first)."""

    key: str
    label: str
    text: Callable[[RunRow], str]
    value: Callable[[RunRow], Any]
    goes: int
    descending: bool = False  # how a first click sorts
    numeric: bool = True


def _state_text(row: RunRow) -> str:
    return f"{ELSEWHERE if row.elsewhere else SIGNS[row.state][0]} {row.state}"


def _started_text(row: RunRow) -> str:
    started = row.summary.started
    return "" if started is None else f"{datetime.fromtimestamp(started):%y-%m-%d %H:%M}"


def _step_text(row: RunRow) -> str:
    return steps_of(row.summary.step, row.summary.num_iterations)


def _optional(value: float | None, show: Callable[[float], str]) -> str:
    return "" if value is None else show(value)


def _xz_ratio(row: RunRow) -> float | None:
    """Bits per byte of the model, divided by those of `xz -9`."""
    bits, xz = row.summary.bits_per_byte, row.summary.xz_bits_per_byte
    return bits / xz if bits is not None and xz else None


def _name_text(row: RunRow) -> str:
    if isinstance(row, SweepRow):
        return f"{'▾' if row.open else '▸'} {sanitize(row.name, False)} ({len(row.runs)})"
    return f"{'  ' if row.sweep else ''}{sanitize(row.run.folder.name, False)}"


NAME = Column("name", "run", _name_text, lambda r: r.name, 0, numeric=False)
COLUMNS = (
    NAME,
    Column("state", "state", _state_text, lambda r: list(SIGNS).index(r.state), 1, numeric=False),
    Column("started", "started", _started_text, lambda r: r.summary.started, 7, descending=True, numeric=False),
    Column(
        "preset", "preset", lambda r: shorten_middle(sanitize(r.summary.preset or "", False), PRESET_WIDTH),
        lambda r: r.summary.preset, 8, numeric=False,
    ),
    Column(
        "lr", "lr", lambda r: _optional(r.learning_rate, learning_rate), lambda r: r.learning_rate, 5, descending=True
    ),
    Column("batch", "batch", lambda r: _optional(r.batch_size, str), lambda r: r.batch_size, 6, descending=True),
    Column("step", "step", _step_text, lambda r: r.summary.step, 9, descending=True),
    Column(
        "tokens", "tokens", lambda r: _optional(r.summary.tokens_seen, compact),
        lambda r: r.summary.tokens_seen, 4, descending=True,
    ),
    Column(
        "best", "best val", lambda r: _optional(r.summary.best_val_loss, "{:.4f}".format),
        lambda r: r.summary.best_val_loss, 2,
    ),
    Column(
        "bits", "bits/byte", lambda r: _optional(r.summary.bits_per_byte, "{:.3f}".format),
        lambda r: r.summary.bits_per_byte, 3,
    ),
    Column("ratio", "vs xz", lambda r: _optional(_xz_ratio(r), "{:.2f}".format), _xz_ratio, 10),
    Column(
        "parameters", "params", lambda r: _optional(r.summary.parameters, compact),
        lambda r: r.summary.parameters, 11, descending=True,
    ),
    Column(
        "time", "time", lambda r: _optional(r.summary.seconds, duration),
        lambda r: r.summary.seconds, 12, descending=True,
    ),
    Column("disk", "disk", lambda r: byte_size(r.summary.bytes), lambda r: r.summary.bytes, 13, descending=True),
)  # fmt: skip
USUAL = ("state", "started", "preset", "lr", "batch", "step", "tokens", "best", "bits", "time")
"""The columns beside the name until others are chosen."""


def fitting(
    rows: Sequence[RunRow], width: int, sorted_by: str = "", columns: Sequence[str] = USUAL
) -> list[tuple[Column, int]]:
    """Those of the columns that fit into `width` cells, with widths: names are cut first, then columns left out."""
    chosen = [column for column in COLUMNS if column is NAME or column.key in columns]
    needed = {}
    for column in chosen:
        heading = cell_len(column.label) + (2 if column.key == sorted_by else 0)
        needed[column.key] = max([heading, *(cell_len(column.text(row)) for row in rows)])
    names = len(MARK) + 1 + needed["name"]
    shortest = min(names, NAME_WIDTH, max(SHORTEST_NAME, width // 3))
    while len(chosen) > 1 and shortest + 2 + sum(needed[c.key] + 2 for c in chosen[1:]) > width:
        chosen.remove(max(chosen[1:], key=lambda c: c.goes))
    rest = width - 2 - sum(needed[c.key] + 2 for c in chosen[1:])
    return [(c, min(names, max(4, rest)) if c is NAME else needed[c.key]) for c in chosen]


def sort_rows(rows: Iterable[RunRow], key: str, descending: bool) -> list[RunRow]:
    """By one column; runs for which it is not known come last either way, ties the newest first."""
    column = next((c for c in COLUMNS if c.key == key), NAME)
    by_name = sorted(rows, key=lambda r: r.name, reverse=True)
    known = [row for row in by_name if column.value(row) is not None]
    return sorted(known, key=column.value, reverse=descending) + [r for r in by_name if column.value(r) is None]


def table_rows(rows: Iterable[RunRow], opened: Collection[str], key: str, descending: bool) -> list[RunRow]:
    """Runs by themselves and sweeps, sorted together; below an open sweep its runs, sorted too."""
    order = sort_rows(rows, key, descending)
    return unfolded(sort_rows(in_sweeps(order, opened), key, descending))


class RunFilter:
    """Words and conditions that runs must meet: `small val<3.5 lr=0.001 state:finished`.

    A word must be in the name, preset or state, ignoring case. Raises UsageError for an unknown key, and for < or >
    with what is not a number.
    """

    def __init__(self, text: str) -> None:
        found = query.conditions(text)
        self._words = [c.wanted.lower() for c in found if c == query.Condition("name", ":", c.wanted)]
        self._conditions = [c for c in found if c != query.Condition("name", ":", c.wanted)]

    def matches(self, row: RunRow) -> bool:
        """Whether a run meets all of them."""
        text = f"{row.name} {row.summary.preset or ''} {row.state}".lower()
        return all(word in text for word in self._words) and all(c.holds(row) for c in self._conditions)


class RunTable(DataTable[Text]):
    """Shows the rows it is given; the cursor stays on its run when they change."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "cursor_down", "Down", show=False),
        Binding("k", "cursor_up", "Up", show=False),
        Binding("g,home", "scroll_top", "First", show=False),
        Binding("G,end", "scroll_bottom", "Last", show=False),
        Binding("right,l", "open_sweep(True)", "Open a sweep", show=False),
        Binding("left,h", "open_sweep(False)", "Close a sweep", show=False),
    ]

    @dataclass
    class Pointed(Message):
        """The cursor is on another run; None when there is none."""

        row: RunRow | None

    @dataclass
    class Chosen(Message):
        """Enter or a double click on the run under the cursor."""

        row: RunRow

    @dataclass
    class SweepOpened(Message):
        """A sweep is to be opened, or closed."""

        sweep: str
        open: bool

    @dataclass
    class SortAsked(Message):
        """A click on a header."""

        column: str

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id, cursor_type="row", zebra_stripes=False, cell_padding=1)
        self._rows: list[RunRow] = []
        self._marks: dict[str, str] = {}
        self._sort: tuple[str, bool] = ("started", True)
        self._columns: Sequence[str] = USUAL
        self._layout: list[tuple[Column, int]] = []
        self._pointed: str | None = None
        self._drawn: dict[str, tuple[RunRow, str | None, str]] = {}
        """Each row with its mark and the theme, as the table has drawn them."""

    @property
    def rows_shown(self) -> Sequence[RunRow]:
        """The runs, in the order of the table."""
        return self._rows

    @property
    def pointed(self) -> RunRow | None:
        """The run under the cursor."""
        return self._rows[self.cursor_row] if 0 <= self.cursor_row < len(self._rows) else None

    def show(
        self,
        rows: Sequence[RunRow],
        marks: dict[str, str],
        sort: tuple[str, bool],
        point: str = "",
        columns: Sequence[str] = USUAL,
    ) -> None:
        """Shows these rows in this order; `marks` gives the marked runs' colours; `point` moves the cursor."""
        target = point or self._pointed
        self._rows, self._marks, self._sort, self._columns = list(rows), dict(marks), sort, columns
        self._fill(target)

    @property
    def _room(self) -> int:
        return self.scrollable_content_region.width or 80

    def _fill(self, target: str | None) -> None:
        layout = fitting(self._rows, self._room, self._sort[0], self._columns)
        names = [row.name for row in self._rows]
        same = layout == self._layout and names == [key.value for key in self.rows]
        self._layout = layout
        drawn, theme = self._drawn, self.app.theme
        self._drawn = {row.name: (row, self._marks.get(row.name), theme) for row in self._rows}
        if same:
            self._relabel()
            for row in self._rows:
                if drawn.get(row.name) == self._drawn[row.name]:
                    continue  # a thousand rows take seconds
                for column, width in layout:
                    self.update_cell(row.name, column.key, self._cell(row, column, width))
            if target in names:
                self.move_cursor(row=names.index(target), animate=False)
        else:
            old_row, old_scroll = self.cursor_row, self.scroll_y
            with self.prevent(DataTable.RowHighlighted):
                self.clear(columns=True)
                for column, width in layout:
                    self.add_column(self._header(column, width), key=column.key, width=width)
                for row in self._rows:
                    self.add_row(*(self._cell(row, column, width) for column, width in layout), key=row.name)
                index = names.index(target) if target in names else min(old_row, len(names) - 1)
                self.move_cursor(row=max(0, index), animate=False, scroll=False)
            self.scroll_to(y=old_scroll, animate=False, immediate=True)
            self.call_after_refresh(self.move_cursor)  # to where it is: scrolled into view
        self._post_pointed()

    def _update_dimensions(self, new_rows: Iterable[RowKey]) -> None:
        """Measures no cells, which takes a second for a thousand runs: all columns have their widths."""
        super()._update_dimensions(())

    def _relabel(self) -> None:
        """The header again, for another sort order."""
        for column, width in self._layout:
            heading = next(c for key, c in self.columns.items() if key.value == column.key)
            heading.label = self._header(column, width)
        self.notify_style_update()  # drops the header as it was drawn

    def _header(self, column: Column, width: int) -> Text:
        key, descending = self._sort
        text = Text(f"  {column.label}" if column is NAME else column.label, style="bold", no_wrap=True)
        if column.key == key:
            text.append(" ▼" if descending else " ▲")
        if column.numeric:
            text.align("right", width)
        return text

    def _cell(self, row: RunRow, column: Column, width: int) -> Text:
        shown = column.text(row)
        if column is NAME:
            colour = self._marks.get(row.name)
            name = shorten_middle(shown, max(1, width - len(MARK) - 1))
            return Text.assemble((f"{MARK} ", colour or "") if colour is not None else "  ", name, no_wrap=True)
        if column.key == "state":
            return Text(shown, self._colour(SIGNS[row.state][1]), no_wrap=True)
        return Text(shown.rjust(width) if column.numeric else shown, no_wrap=True)

    def _colour(self, name: str) -> str:
        """A theme colour for rich."""
        colour = self.app.theme_variables.get(name, "")
        return colour[:7] if colour.startswith("#") else ""

    def _post_pointed(self) -> None:
        row = self.pointed
        self._pointed = row.name if row else None
        self.post_message(self.Pointed(row))

    def on_resize(self, event: events.Resize) -> None:
        """Other columns fit now."""
        if fitting(self._rows, self._room, self._sort[0], self._columns) != self._layout:
            self._fill(self._pointed)

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """The cursor has moved."""
        event.stop()
        row = self.pointed
        if (row.name if row else None) != self._pointed:
            self._post_pointed()

    def action_select_cursor(self) -> None:
        """Enter."""
        row = self.pointed
        if isinstance(row, SweepRow):
            self.post_message(self.SweepOpened(row.name, not row.open))
        elif row:
            self.post_message(self.Chosen(row))

    def action_open_sweep(self, open: bool) -> None:
        """Opens the sweep under the cursor, or closes it or that of the run under the cursor."""
        row = self.pointed
        sweep = row.name if isinstance(row, SweepRow) else row.sweep if row and not open else ""
        if sweep:
            self.post_message(self.SweepOpened(sweep, open))

    def on_click(self, event: events.Click) -> None:
        """A double click, on a line of the table."""
        if event.chain == 2 and event.style.meta.get("row", -1) >= 0:
            self.action_select_cursor()

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """A single click only points."""
        event.stop()

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        """A click on a header sorts by it."""
        event.stop()
        if event.column_key.value:
            self.post_message(self.SortAsked(event.column_key.value))
