"""The dialog that chooses the columns of the table of runs."""

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import SelectionList
from textual.widgets.selection_list import Selection

from gpt2tui.tui.runs.table import COLUMNS, NAME
from gpt2tui.tui.widgets.dialogs import Dialog, DialogBox
from gpt2tui.tui.widgets.toggles import SwitchList

MEANINGS = {
    "state": "State",
    "started": "Start of the training",
    "preset": "Preset",
    "lr": "Learning rate of AdamW, its peak",
    "batch": "Sequences of one step",
    "step": "Steps, of all",
    "tokens": "Tokens trained",
    "best": "Lowest validation loss, nats per token",
    "bits": "Bits per byte of the last evaluation",
    "ratio": "Bits per byte divided by those of xz -9",
    "parameters": "Parameters",
    "time": "Time trained",
    "disk": "Size on disk",
}


DEFINITIONS = {
    "filter": "Words that the name, preset or state has, and conditions on columns and settings: val<3.5 lr=0.001 "
    "state:finished tokens>1m. : means that the text is a part of the value.",
    "state": "training, paused, evaluating, saving: a process trains it (◉: another one than "
    "this). finished: all of its steps; stopped: ended early, with a checkpoint; failed: ended by an error; crashed: "
    "it has no end, and no process trains it; unknown: it has no end, and its process is one of another machine.",
    "lr": "The peak of AdamW's learning rate in the preset.",
    "batch": "The sequences of one step: batch_size times gradient_accumulation.",
    "tokens": "The tokens trained so far, with repetitions of the text.",
    "best val": "The lowest validation loss so far, in nats per token, over eval_tokens tokens that are always the "
    "same. It compares runs with the same tokenizer and the same data.",
    "bits/byte": "Bits per byte of the last evaluation, at the end of a run over all of the validation text. It "
    "compares runs with different tokenizers.",
    "vs xz": "bits/byte divided by that of xz -9 on the same text.",
    "time": "The time of its trainings, without the time between them.",
}


class ColumnsDialog(Dialog[tuple[str, ...] | None]):
    """A list of all columns, each on or off; returns the keys of those that are on, None on escape."""

    # The app's own style makes screens opaque, which only a style of the same rank can change.
    CSS = """
    ColumnsDialog { align: center middle; background: $background 60%; }
    ColumnsDialog SelectionList, ColumnsDialog SelectionList:focus {
        height: auto; max-height: 70vh; background: transparent; border: none; padding: 0 0 1 0;
    }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Back"),
        Binding("enter", "take", "Show these", priority=True),
        Binding("j", "down", "Down", show=False),
        Binding("k", "up", "Up", show=False),
    ]

    def __init__(self, chosen: Sequence[str]) -> None:
        super().__init__()
        self._chosen = chosen

    def compose(self) -> ComposeResult:
        """A line for each column."""
        with DialogBox() as box:
            box.border_title = "Columns"
            box.border_subtitle = "space on/off · ⏎ show these · esc back"
            lines = [
                Selection(f"{column.label:<10}{MEANINGS[column.key]}", column.key, column.key in self._chosen)
                for column in COLUMNS
                if column is not NAME
            ]
            yield SwitchList(*lines)

    def on_mount(self) -> None:
        """Focuses the list."""
        self.query_one(SelectionList).focus()

    def action_take(self) -> None:
        """Returns the columns that are on."""
        on = set(self.query_one(SelectionList).selected)
        self.dismiss(tuple(column.key for column in COLUMNS if column.key in on))

    def action_down(self) -> None:
        """One line down."""
        self.query_one(SelectionList).action_cursor_down()

    def action_up(self) -> None:
        """One line up."""
        self.query_one(SelectionList).action_cursor_up()
