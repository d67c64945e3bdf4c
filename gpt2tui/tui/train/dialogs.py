"""The dialogs of the Train screen: the run to compare with, and the factor on the learning-rate schedule."""

import math
from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.await_complete import AwaitComplete
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from gpt2tui.run.events import RunFinished
from gpt2tui.system.numbers import counted, learning_rate
from gpt2tui.system.terminal_text import sanitize
from gpt2tui.training.schedules import learning_rate as scheduled
from gpt2tui.tui.train.view import DisplayedRun
from gpt2tui.tui.widgets.dialogs import Dialog, DialogBox, TextDialog

NO_RUN = ""
LARGEST_FACTOR = 100.0
RATES_BELOW = 0.05
"""A smaller number is a learning rate rather than a factor."""


class RunPicker(Dialog[str | None]):
    """A filter over the line `no_run` and runs; returns a run's name, NO_RUN for that line, None on escape."""

    # The app's own style makes screens opaque, which only a style of the same rank can change.
    CSS = """
    RunPicker { align: center middle; }
    RunPicker OptionList, RunPicker OptionList:focus {
        height: auto; max-height: 20; background: transparent; border: none; padding: 0 0 1 0;
    }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Back"),
        Binding("down", "move(1)", "Down", show=False),
        Binding("up", "move(-1)", "Up", show=False),
    ]

    def __init__(self, title: str, no_run: str, names: Sequence[str], chosen: str = NO_RUN) -> None:
        super().__init__()
        self._title = title
        self._no_run = no_run
        self._names = tuple(names)
        self._shown: list[str] = []
        self._chosen = chosen

    def compose(self) -> ComposeResult:
        """The filter over the line for no run and the runs."""
        with DialogBox() as box:
            box.border_title = Content(sanitize(self._title, keep_newlines=False))
            box.border_subtitle = "type to filter · ↑ ↓ ⏎ choose"
            yield Input(placeholder="words of the name", compact=True)
            yield OptionList(markup=False)

    def on_mount(self) -> None:
        """Highlights the current choice."""
        self._list("")
        chosen = self._shown.index(self._chosen) if self._chosen in self._shown else 0
        self.query_one(OptionList).highlighted = chosen
        self.query_one(Input).focus()

    def _list(self, words: str) -> None:
        """Lists the runs with all the words in their names."""
        found = [name for name in self._names if all(word in name.casefold() for word in words.casefold().split())]
        self._shown = found if words.strip() else [NO_RUN, *found]
        labels = [name or self._no_run for name in self._shown]
        options = [Option(Content(sanitize(label, keep_newlines=False))) for label in labels]
        self.query_one(OptionList).set_options(options).highlighted = 0 if options else None

    @on(Input.Changed)
    def filter(self, event: Input.Changed) -> None:
        """Lists the matching runs while the user types."""
        event.stop()
        self._list(event.value)

    @on(Input.Submitted)
    def take(self, event: Input.Submitted) -> None:
        """Returns the run that is highlighted."""
        event.stop()
        self.query_one(OptionList).action_select()

    @on(OptionList.OptionSelected)
    def pick(self, event: OptionList.OptionSelected) -> None:
        """Returns the run of the line."""
        event.stop()
        self.dismiss(self._shown[event.option_index])

    def action_move(self, by: int) -> None:
        """A line down, or up."""
        names = self.query_one(OptionList)
        names.action_cursor_down() if by > 0 else names.action_cursor_up()


class LearningRateDialog(TextDialog):
    """Asks for a learning rate from the next step on, or for a factor on the preset's schedule.

    Returns the factor as a text that `float` reads as more than 0 and at most LARGEST_FACTOR, None on escape. A bare
    number below RATES_BELOW is a rate; `x0.01` is a factor whatever its size, `=0.1` a rate.
    """

    def __init__(self, view: DisplayedRun) -> None:
        self._factor = view.history.learning_rate_factor
        step = view.history.progress.step
        self._scheduled = scheduled(view.preset, step) if view.preset else None
        text = "A rate such as 1e-3, or a factor on the preset's schedule such as 0.5 (1 = as in the preset)."
        super().__init__("Learning rate", text, f"{self._factor:g}", validate=self._error_in)

    def dismiss(self, result: str | None = None) -> AwaitComplete:
        """Returns the factor that the text means."""
        return super().dismiss(None if result is None else repr(self._factor_of(result)))

    def outcome(self, value: str) -> str:
        """The rate before and after."""
        factor = self._factor_of(value)
        if self._scheduled is None:
            return f"schedule × {factor:.3g}"
        before, after = (learning_rate(self._scheduled * each) for each in (self._factor, factor))
        return f"{before} → {after}  (schedule × {factor:.3g})"

    def _factor_of(self, text: str) -> float:
        """Raises ValueError for a text that is no number."""
        text = text.strip().lower()
        is_rate = text.startswith("=")
        if text.startswith(("x", "×", "*")):
            return float(text[1:])
        number = float(text.removeprefix("="))
        if self._scheduled and (is_rate or number < RATES_BELOW):
            return number / self._scheduled
        return number

    def _error_in(self, text: str) -> str | None:
        try:
            factor = self._factor_of(text)
        except ValueError:
            return "a number, such as 1e-3 or 0.5"
        if not (math.isfinite(factor) and factor > 0):
            return "more than 0"
        return None if factor <= LARGEST_FACTOR else f"at most {LARGEST_FACTOR:g} times the schedule"


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
