"""What differs between the preset in the form and others: the saved one, the shipped one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from gpt2tui.system.terminal_text import printable
from gpt2tui.tui.preset_difference import Difference
from gpt2tui.tui.setting_text import write
from gpt2tui.tui.widgets.dialogs import Dialog

LONGEST_VALUE = 48


@dataclass(frozen=True)
class Comparison:
    """The differences to one other preset, under a title."""

    title: str
    differences: Sequence[Difference]


class DifferenceDialog(Dialog[None]):
    """Lists every differing setting, the other's value and the form's."""

    DEFAULT_CSS = """
    DifferenceDialog { align: center middle; background: $background 60%; }
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

    def __init__(self, title: str, comparisons: Sequence[Comparison]) -> None:
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
                    yield Static(_table(comparison))


def _table(comparison: Comparison) -> Content:
    lines = [Content.styled(printable(comparison.title), "bold $text-primary")]
    if not comparison.differences:
        lines.append(Content.styled("  nothing differs", "$foreground 65%"))
    longest = max((len(difference.key) for difference in comparison.differences), default=0)
    lines += [
        Content.assemble(
            f"  {difference.key.ljust(longest)}  ",
            (shown(difference.left), "$text-error"),
            (" → ", "$foreground 65%"),
            (shown(difference.right), "$text-success"),
        )
        for difference in comparison.differences
    ]
    return Content("\n").join([*lines, Content("")])


def shown(value: object) -> str:
    """A value in a few harmless characters."""
    return "left out" if value is None else printable(write(value), LONGEST_VALUE) or "empty"
