"""The worst passages of a run: the validation windows with the highest loss, over the Train screen."""

from typing import ClassVar

from rich.console import Group
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from gpt2tui.run.worst_passages import WorstPassages
from gpt2tui.tracking.heat_map import SURPRISING, expectation, heat_map
from gpt2tui.tui.widgets.dialogs import Dialog, DialogBox

MARGIN = 14
"""Columns beside the text: those of the screen, the frame and the scroll bar."""


class WorstPassagesDialog(Dialog[None]):
    """Each passage as a heat map, darker for a higher loss, with what the model would have written."""

    CSS = """
    WorstPassagesDialog { align: center middle; }
    WorstPassagesDialog DialogBox { width: 90%; max-width: 120; height: 85%; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,W", "dismiss(None)", "Back")]

    def __init__(self, worst: WorstPassages) -> None:
        super().__init__()
        self._worst = worst

    def compose(self) -> ComposeResult:
        """The passages, to scroll through."""
        with DialogBox() as box:
            over = "all text" if self._worst.whole else "the sample"
            box.border_title = Content(f"Highest loss in validation ({over}, step {self._worst.step:,})")
            box.border_subtitle = "darker: higher loss · esc back"
            with VerticalScroll():
                yield Static(Group(*self._lines(max(20, min(self.app.size.width, 120) - MARGIN))))

    def on_mount(self) -> None:
        """The keys scroll."""
        self.query_one(VerticalScroll).focus()

    def _lines(self, width: int) -> list[Text]:
        lines: list[Text] = []
        for number, passage in enumerate(self._worst.passages, 1):
            lines.append(Text(f"{number}. loss {passage.loss:.3f} nats per token", style="bold"))
            lines += heat_map(passage, width, is_coloured=not self.app.no_color)
            lines += [Text(f"  {expectation(passage, index)}") for index in passage.most_surprising(SURPRISING)]
            lines.append(Text())
        return lines
