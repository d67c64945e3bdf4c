"""The dialogs of the Train screen: the run to compare with, and the factor on the learning-rate schedule."""

import math
from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from gpt2tui.run.events import RunFinished
from gpt2tui.system.numbers import counted, learning_rate
from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tui.train.view import DisplayedRun
from gpt2tui.tui.widgets.dialogs import Dialog, DialogBox, TextDialog

NO_RUN = ""
LARGEST_FACTOR = 100.0


class RunPicker(Dialog[str | None]):
    """A list of runs under the line `no_run`; returns a run's name, NO_RUN for that line, None on escape."""

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

    def __init__(self, title: str, no_run: str, names: Sequence[str], chosen: str = NO_RUN) -> None:
        super().__init__()
        self._title = title
        self._names = (NO_RUN, *names)
        self._labels = (no_run, *names)
        self._chosen = chosen

    def compose(self) -> ComposeResult:
        """The line for no run, then the runs."""
        with DialogBox() as box:
            box.border_title = Content(sanitize(self._title, keep_newlines=False))
            options = [Option(Content(sanitize(label, keep_newlines=False))) for label in self._labels]
            yield OptionList(*options, markup=False)

    def on_mount(self) -> None:
        """Highlights the current choice."""
        self.query_one(OptionList).highlighted = self._names.index(self._chosen) if self._chosen in self._names else 0

    @on(OptionList.OptionSelected)
    def pick(self, event: OptionList.OptionSelected) -> None:
        """Returns the run of the line."""
        event.stop()
        self.dismiss(self._names[event.option_index])

    def action_down(self) -> None:
        """One line down."""
        self.query_one(OptionList).action_cursor_down()

    def action_up(self) -> None:
        """One line up."""
        self.query_one(OptionList).action_cursor_up()


class LearningRateDialog(TextDialog):
    """Asks for a factor on the learning-rate schedule.

    Returns a text that `float` reads as more than 0 and at most LARGEST_FACTOR, None on escape.
    """

    def __init__(self, view: DisplayedRun) -> None:
        step = view.history.step
        now = f"The last step used {learning_rate(step.learning_rate)}. " if step else ""
        text = f"{now}Multiplier of the schedule from the next step on (1 = as in the preset):"
        super().__init__("Learning rate", text, f"{view.history.learning_rate_factor:g}", validate=_factor_error)


def _factor_error(text: str) -> str | None:
    try:
        factor = float(text)
    except ValueError:
        return "a number, such as 0.5"
    good = math.isfinite(factor) and 0 < factor <= LARGEST_FACTOR
    return None if good else f"more than 0, at most {LARGEST_FACTOR:g}"


class TrainLongerDialog(TextDialog):
    """Asks for the number of steps that a finished run is to have.

    Returns a text for `whole_number`, None on escape.
    """

    def __init__(self, view: DisplayedRun) -> None:
        ending = view.history.ending
        self._done = ending.step if isinstance(ending, RunFinished) else 0
        rule = f"\n{ending.rule}: the rule is left out." if isinstance(ending, RunFinished) and ending.rule else ""
        text = f"It has taken {counted(self._done, 'step')}. All steps, those included:{rule}"
        super().__init__("Train longer", text, f"{max(2 * self._done, 1)}", validate=self._mistake)

    def _mistake(self, text: str) -> str | None:
        number = whole_number(text)
        return None if number is not None and self._done < number <= 10**9 else f"a number of more than {self._done:,}"


def whole_number(text: str) -> int | None:
    """The number of a text such as 20,000; None where it is none."""
    digits = text.replace(",", "").replace("_", "").strip()
    return int(digits) if digits.isdecimal() and len(digits) < 20 else None
