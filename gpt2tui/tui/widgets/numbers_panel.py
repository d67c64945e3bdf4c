"""The numbers of the run on show: a table, two lines or one line, whatever there is room for."""

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Static

from gpt2tui.tui.run_numbers import DEFINITIONS, Number, numbers, one_line, strip
from gpt2tui.tui.run_view import RunView

_KEY_WIDTH = 8
_VALUE_WIDTH = 8
_BAR_WIDTH = 6


class NumbersPanel(Vertical):
    """A row for each number; its definition is the row's tooltip."""

    DEFAULT_CSS = """
    NumbersPanel {
        height: auto;
        border: round $panel-lighten-2;
        border-title-color: $text-muted;
        padding: 0 1;
    }
    NumbersPanel Static { height: 1; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._titles: tuple[Content, Content] | None = None

    def compose(self) -> ComposeResult:
        """One line for each number."""
        for key, definition in DEFINITIONS.items():
            row = Static("", markup=False, classes="number")
            row.tooltip = Content(f"{key}: {definition}")
            yield row

    def show(self, view: RunView, title: Content, note: Content) -> None:
        """The numbers as they are now; the border says the title and the note."""
        if (title, note) != self._titles:
            self._titles = (title, note)
            self.border_title, self.border_subtitle = title, note
        for row, number in zip(self.query(".number").results(Static), numbers(view), strict=True):
            content = _row(number)
            if row.content != content:
                row.update(content, layout=False)  # its size is fixed: a layout would cost the training time


class NumbersStrip(Static):
    """The same in two lines, or in one."""

    DEFAULT_CSS = """
    NumbersStrip { height: auto; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__("", id=id, markup=False)
        self._rows = 0
        self.tooltip = Content("\n".join(f"{key}: {definition}" for key, definition in DEFINITIONS.items()))

    def show(self, view: RunView, lines: int) -> None:
        """The numbers that fit into so many lines."""
        width = self.content_size.width or 1
        rows = strip(view) if lines > 1 else (one_line(view),)
        content = Content("\n").join(_fitting(row, width) for row in rows)
        if self.content != content:
            before, self._rows = self._rows, len(rows)
            self.update(content, layout=len(rows) != before)


def _row(number: Number) -> Content:
    parts: list[Content] = [
        Content.styled(f"{number.key:<{_KEY_WIDTH}}", "$foreground-muted"),
        _value(number, _VALUE_WIDTH),
    ]
    if number.fraction is not None:
        filled = round(number.fraction * _BAR_WIDTH)
        parts.append(Content.styled(" " + "━" * filled, f"${number.style or 'primary'}"))
        parts.append(Content.styled("━" * (_BAR_WIDTH - filled), "$panel-lighten-2"))
    if number.note:
        parts.append(Content.styled(f"  {number.note}", "$foreground-muted"))
    return Content("").join(parts)


def _value(number: Number, width: int = 0) -> Content:
    style = f"bold ${number.style}" if number.style else "bold"
    return Content.styled(f"{number.value:<{width}}", style)


def _fitting(row: Sequence[Number], width: int) -> Content:
    """As many numbers as fit on a line, and then as many of their notes."""
    parts: list[Content] = []
    for number in row:
        if _length([*parts, _short(number, False)]) > width and parts:
            break
        parts.append(_short(number, False))
    for index, number in enumerate(row[: len(parts)]):
        longer = [*parts[:index], _short(number, True), *parts[index + 1 :]]
        if _length(longer) <= width:
            parts = longer
    return Content("  ").join(parts)


def _length(parts: Sequence[Content]) -> int:
    return sum(part.cell_length for part in parts) + 2 * (len(parts) - 1)


def _short(number: Number, with_note: bool) -> Content:
    note = f" {number.note}" if with_note and number.note else ""
    return Content.assemble((f"{number.key} ", "$foreground-muted"), _value(number), (note, "$foreground-muted"))
