"""The list of presets, the user's own above the shipped ones, and the dialog of differences between presets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.geometry import Size
from textual.reactive import Reactive
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from gpt2tui.preset.settings import Difference
from gpt2tui.system.terminal_text import printable, sanitize
from gpt2tui.tui.presets.document import PresetRow
from gpt2tui.tui.presets.field import value_text
from gpt2tui.tui.widgets.dialogs import Dialog

OVERRIDES = "overrides shipped"
LONGEST_VALUE = 48  # of a value in the dialog of differences, in characters


class PresetList(OptionList):
    """Shows a row for each preset, with `*` for unsaved changes; keeps the highlighted row when rows change."""

    DEFAULT_CSS = """
    PresetList { border: none; padding: 0; background: transparent; scrollbar-size-vertical: 1; height: 1fr; }
    PresetList:focus { border: none; background-tint: $foreground 0%; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "cursor_down", "Down", show=False),
        Binding("k", "cursor_up", "Up", show=False),
    ]

    # The list has a fixed size, so its contents need no new layout, which would be noticeable in the form.
    virtual_size = Reactive(Size(0, 0), layout=False)

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, compact=True)
        self._rows: tuple[PresetRow, ...] = ()
        self._chosen: str | None = None

    def show(self, rows: Sequence[PresetRow]) -> None:
        """Shows these rows and keeps the cursor on its preset."""
        if tuple(rows) != self._rows:
            self._rows = tuple(rows)
            self._fill()

    def choose(self, id: str) -> None:
        """Puts the cursor on a preset, or later, once its row is shown."""
        self._chosen = id
        if id != self.highlighted_id and any(row.id == id for row in self._rows):
            with self.prevent(OptionList.OptionHighlighted):
                self.highlighted = self.get_option_index(id)

    @property
    def highlighted_id(self) -> str | None:
        """The id of the row under the cursor."""
        option = self.highlighted_option
        return option.id if option else None

    def on_resize(self) -> None:
        """Aligns the sizes at the new right edge."""
        self._fill()

    def _fill(self) -> None:
        chosen = self.highlighted_id or self._chosen
        had_scrollbar = self._has_scrollbar
        options = []
        for title in ("yours", OVERRIDES, "shipped, read-only"):
            rows = [row for row in self._rows if _group(row) == title]
            if rows:
                options.append(Option(Content.styled(title, "$foreground 45%"), disabled=True))
                options += [Option(self._prompt(row), id=row.id) for row in rows]
        with self.prevent(OptionList.OptionHighlighted):
            self.set_options(options)
            if chosen is not None and any(row.id == chosen for row in self._rows):
                self.highlighted = self.get_option_index(chosen)
        if had_scrollbar or self._has_scrollbar:
            self.refresh(layout=True)  # the scrollbar appears, disappears or changes

    @property
    def _has_scrollbar(self) -> bool:
        return self.virtual_size.height > self.size.height

    def _prompt(self, row: PresetRow) -> Content:
        width = max(self.scrollable_content_region.width, 8)
        mark, style = ("✗", "$text-error") if row.broken else ("*", "$text-warning") if row.changed else (" ", "")
        name = sanitize(row.name, keep_newlines=False)
        room = width - 2 - (cell_len(row.size) + 1 if row.size else 0)
        if cell_len(name) > room and room < cell_len(name) + 6:
            room = width - 2
            size = ""
        else:
            size = row.size
        text = Content(name).truncate(room, ellipsis=True)
        gap = " " * max(0, width - 2 - text.cell_length - cell_len(size))
        return Content.assemble((f"{mark} ", style), (text.plain, style), gap, (size, "$foreground 45%"))


def _group(row: PresetRow) -> str:
    return "shipped, read-only" if row.shipped else OVERRIDES if row.overrides else "yours"


# ---- differences


@dataclass(frozen=True)
class PresetComparison:
    """The differences from one other preset, under a title."""

    title: str
    differences: Sequence[Difference]


class DifferenceDialog(Dialog[None]):
    """Lists every setting that differs, with the other preset's value and the form's value."""

    DEFAULT_CSS = """
    DifferenceDialog > Vertical {
        width: 90; max-width: 96%; height: auto; max-height: 90%; padding: 0 1;
        border: round $primary; background: $surface; border-title-color: $text-primary;
    }
    DifferenceDialog VerticalScroll { height: auto; max-height: 100%; scrollbar-size-vertical: 1; }
    DifferenceDialog Static { height: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,q,v", "dismiss(None)", "Back"),
        Binding("j", "app.focused.scroll_down", "Down", show=False),
    ]

    def __init__(self, title: str, comparisons: Sequence[PresetComparison]) -> None:
        super().__init__()
        self._title = title
        self._comparisons = comparisons

    def compose(self) -> ComposeResult:
        """A table for each comparison."""
        with Vertical() as box:
            box.border_title = Content(printable(self._title))
            box.border_subtitle = Content("esc Back")
            with VerticalScroll():
                for comparison in self._comparisons:
                    yield Static(_comparison_table(comparison))


def _comparison_table(comparison: PresetComparison) -> Content:
    lines = [Content.styled(printable(comparison.title), "bold $text-primary")]
    if not comparison.differences:
        lines.append(Content.styled("  no differences", "$foreground 65%"))
    longest = max((len(difference.key) for difference in comparison.differences), default=0)
    lines += [
        Content.assemble(
            f"  {difference.key.ljust(longest)}  ",
            (_short_value(difference.left), "$text-error"),
            (" → ", "$foreground 65%"),
            (_short_value(difference.right), "$text-success"),
        )
        for difference in comparison.differences
    ]
    return Content("\n").join([*lines, Content("")])


def _short_value(value: object) -> str:
    """A value, shortened and without control characters."""
    return "left out" if value is None else printable(value_text(value), LONGEST_VALUE) or "empty"
