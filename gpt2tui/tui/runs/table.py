"""The table of runs: one line each, as many columns as fit, sorted by one of them, some marked."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size, Spacing
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

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
        number = str(len(row.runs)) if len(row.runs) >= row.planned else f"{len(row.runs)} of {row.planned}"
        return f"{'▾' if row.open else '▸'} {sanitize(row.name, False)} ({number})"
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


def cell_widths(row: RunRow) -> dict[str, int]:
    """The cells that the text of each column has for this row."""
    return {column.key: cell_len(column.text(row)) for column in COLUMNS}


def fitting(
    widths: Collection[Mapping[str, int]], width: int, sorted_by: str = "", columns: Sequence[str] = USUAL
) -> list[tuple[Column, int]]:
    """Those of the columns that fit into `width` cells, with widths: names are cut first, then columns left out.

    `widths` are the `cell_widths` of each row.
    """
    chosen = [column for column in COLUMNS if column is NAME or column.key in columns]
    needed = {}
    for column in chosen:
        heading = cell_len(column.label) + (2 if column.key == sorted_by else 0)
        needed[column.key] = max([heading, *(each[column.key] for each in widths)])
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


class RunTable(ScrollView, can_focus=True):
    """Shows the rows it is given; the cursor stays on its run when they change. Only lines in view are drawn.

    The header is its first line, which does not scroll.
    """

    ALLOW_SELECT = False

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select_cursor", "Select", show=False),
        Binding("down,j", "cursor(1)", "Down", show=False),
        Binding("up,k", "cursor(-1)", "Up", show=False),
        Binding("pagedown", "page(1)", "Page down", show=False),
        Binding("pageup", "page(-1)", "Page up", show=False),
        Binding("g,home,ctrl+home", "scroll_home", "First", show=False),
        Binding("G,end,ctrl+end", "scroll_end", "Last", show=False),
        Binding("right,l", "open_sweep(True)", "Open a sweep", show=False),
        Binding("left,h", "open_sweep(False)", "Close a sweep", show=False),
    ]

    COMPONENT_CLASSES: ClassVar[set[str]] = {"run-table--header", "run-table--cursor", "run-table--hover"}

    DEFAULT_CSS = """
    RunTable {
        height: auto; color: $foreground;
        & > .run-table--header { text-style: bold; background: $panel; color: $foreground; }
        & > .run-table--hover { background: $block-hover-background; }
        & > .run-table--cursor {
            background: $block-cursor-blurred-background; color: $block-cursor-blurred-foreground;
            text-style: $block-cursor-blurred-text-style;
        }
        &:focus {
            background-tint: $foreground 5%;
            & > .run-table--header { background-tint: $foreground 5%; }
            & > .run-table--cursor {
                background: $block-cursor-background; color: $block-cursor-foreground;
                text-style: $block-cursor-text-style;
            }
        }
    }
    """

    cursor_row: reactive[int] = reactive(0)
    hover_row: reactive[int | None] = reactive(None)
    """The row under the mouse."""

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
        super().__init__(id=id)
        self._rows: list[RunRow] = []
        self._marks: dict[str, str] = {}
        self._sort: tuple[str, bool] = ("started", True)
        self._columns: Sequence[str] = USUAL
        self._layout: list[tuple[Column, int]] = []
        self._pointed: str | None = None
        self.placed = False
        """Whether the cursor has been put on a run, by the user or by `show`."""
        self._widths: dict[str, tuple[RunRow, dict[str, int]]] = {}
        """Each row with the widths of its cells: to measure a thousand rows takes a while."""

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
        self._measure()
        self.virtual_size = Size(0, len(rows) + 1)
        names = [row.name for row in rows]
        index = names.index(target) if target in names else self.cursor_row
        self.placed = self.placed or point in names
        before = self._pointed, self.cursor_row
        with self.prevent(self.Pointed):
            self.cursor_row = index
        self._post_pointed()
        self.refresh()
        if before != (self._pointed, self.cursor_row):  # else it may have been scrolled out of view on purpose
            self.call_after_refresh(self._scroll_to_cursor)

    def _measure(self) -> None:
        """Which columns fit, and how wide they are."""
        known, self._widths = self._widths, {}
        for row in self._rows:
            before = known.get(row.name)
            self._widths[row.name] = before if before and before[0] is row else (row, cell_widths(row))
        room = self.scrollable_content_region.width or 80
        self._layout = fitting([widths for _, widths in self._widths.values()], room, self._sort[0], self._columns)

    def on_resize(self) -> None:
        """Other columns fit now."""
        self._measure()
        self.refresh()

    # ---- drawing

    def render_line(self, y: int) -> Strip:
        """The header, or a row."""
        index = self.scroll_offset.y + y - 1
        if y == 0:
            base, cells = self.get_component_rich_style("run-table--header"), [self._header()]
        elif index >= len(self._rows):
            return Strip.blank(self.size.width, self.rich_style)
        else:
            row, base = self._rows[index], self.rich_style
            cells = [self.cell(row, column, width) for column, width in self._layout]
            if index in (self.cursor_row, self.hover_row):
                name = "run-table--cursor" if index == self.cursor_row else "run-table--hover"
                base = self.get_component_rich_style(name)
        plain = y == 0 or index == self.cursor_row  # in one colour
        segments = [
            Segment(text, base if plain or not colour else base + Style.parse(colour))
            for cell in cells
            for text, colour in ((" ", ""), *cell, (" ", ""))
        ]
        return Strip(segments).adjust_cell_length(self.size.width, base)

    def _header(self) -> list[tuple[str, str]]:
        key, descending = self._sort
        headings = []
        for column, width in self._layout:
            text = "  " * (column is NAME) + column.label + ("" if column.key != key else " ▼" if descending else " ▲")
            headings.append(_justified(text, column, width))
        return [("  ".join(headings), "")]

    def cell(self, row: RunRow, column: Column, width: int) -> list[tuple[str, str]]:
        """A cell as pieces of text with the colour of each, empty for the usual one."""
        shown = column.text(row)
        if column is NAME:
            colour = self._marks.get(row.name)
            name = set_cell_size(shorten_middle(shown, max(1, width - len(MARK) - 1)), width - len(MARK) - 1)
            return [("  " if colour is None else f"{MARK} ", colour or ""), (name, "")]
        return [(_justified(shown, column, width), self._colour(SIGNS[row.state][1]) if column.key == "state" else "")]

    def _colour(self, name: str) -> str:
        """A theme colour for rich."""
        colour = self.app.theme_variables.get(name, "")
        return colour[:7] if colour.startswith("#") else ""

    # ---- cursor

    def validate_cursor_row(self, row: int) -> int:
        """Inside of the table."""
        return max(0, min(row, len(self._rows) - 1))

    def watch_cursor_row(self) -> None:
        """The cursor has moved."""
        self.refresh()
        row = self.pointed
        if (row.name if row else None) != self._pointed:
            self._post_pointed()

    def watch_hover_row(self) -> None:
        """The mouse has moved."""
        self.refresh()

    def _post_pointed(self) -> None:
        row = self.pointed
        self._pointed = row.name if row else None
        self.post_message(self.Pointed(row))

    def _scroll_to_cursor(self) -> None:
        line = Region(0, self.cursor_row + 1, 1, 1)
        self.scroll_to_region(line, spacing=Spacing(1, 0, 0, 0), animate=False, force=True, x_axis=False)

    def _move_to(self, row: int) -> None:
        self.cursor_row, self.hover_row, self.placed = row, None, True
        self._scroll_to_cursor()

    def action_cursor(self, rows: int) -> None:
        """Moves the cursor down, or up."""
        self._move_to(self.cursor_row + rows)

    def action_page(self, pages: int) -> None:
        """Moves the cursor down by as many rows as are in view, or up."""
        self._move_to(self.cursor_row + pages * max(1, self.scrollable_content_region.height - 1))

    def action_scroll_home(self) -> None:
        """Moves the cursor to the first row."""
        self._move_to(0)

    def action_scroll_end(self) -> None:
        """Moves the cursor to the last row."""
        self._move_to(len(self._rows) - 1)

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

    # ---- mouse

    def _row_at(self, event: events.MouseEvent) -> int | None:
        """The row at the mouse, -1 for the header."""
        place = event.get_content_offset(self)
        if place is None:
            return None
        row = self.scroll_offset.y + place.y - 1 if place.y else -1
        return row if row < len(self._rows) else None

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Marks the row under the mouse."""
        self.hover_row = self._row_at(event)

    def on_leave(self) -> None:
        """The mouse is elsewhere."""
        self.hover_row = None

    def on_click(self, event: events.Click) -> None:
        """A click on a heading sorts by it, one on a row points at it, a double click chooses it."""
        place, row = event.get_content_offset(self), self._row_at(event)
        if place is None or row is None:
            return
        if row >= 0:
            self._move_to(row)
            if event.chain == 2:
                self.action_select_cursor()
            return
        end = 0
        for column, width in self._layout:
            end += width + 2
            if place.x < end:
                self.post_message(self.SortAsked(column.key))
                return


def _justified(text: str, column: Column, width: int) -> str:
    """The text in exactly `width` cells, numbers on the right."""
    return set_cell_size(" " * max(0, width - cell_len(text)) * column.numeric + text, width)
