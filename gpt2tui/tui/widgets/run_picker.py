"""A dialog in which one picks a run."""

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tui.widgets.dialogs import Dialog, DialogBox

NOTHING = ""


class RunPicker(Dialog[str | None]):
    """Returns the name of a run, NOTHING for the first choice, None on escape."""

    # The app's own style makes screens opaque, which only a style of the same rank can change.
    CSS = """
    RunPicker { align: center middle; background: $background 60%; }
    RunPicker OptionList, RunPicker OptionList:focus {
        height: auto; max-height: 20; background: transparent; border: none; padding: 0 0 1 0;
    }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Back"),
        Binding("j", "down", "Down", show=False),
        Binding("k", "up", "Up", show=False),
    ]

    def __init__(self, title: str, nothing: str, names: Sequence[str], chosen: str = NOTHING) -> None:
        super().__init__()
        self._title = title
        self._names = (NOTHING, *names)
        self._labels = (nothing, *names)
        self._chosen = chosen

    def compose(self) -> ComposeResult:
        """The runs under a way to pick none."""
        with DialogBox() as box:
            box.border_title = Content(sanitize(self._title, keep_newlines=False))
            options = [Option(Content(sanitize(label, keep_newlines=False))) for label in self._labels]
            yield OptionList(*options, markup=False)

    def on_mount(self) -> None:
        """Begins at what is chosen now."""
        self.query_one(OptionList).highlighted = self._names.index(self._chosen) if self._chosen in self._names else 0

    @on(OptionList.OptionSelected)
    def pick(self, event: OptionList.OptionSelected) -> None:
        """Ends the dialog."""
        event.stop()
        self.dismiss(self._names[event.option_index])

    def action_down(self) -> None:
        """One further."""
        self.query_one(OptionList).action_cursor_down()

    def action_up(self) -> None:
        """One back."""
        self.query_one(OptionList).action_cursor_up()
