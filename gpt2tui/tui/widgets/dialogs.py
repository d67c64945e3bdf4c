"""Dialogs: a question with choices, an error, a line of text. Everything shown is text, never markup."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from textual import on
from textual.app import App, ComposeResult
from textual.await_complete import AwaitComplete
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, OptionList, Static
from textual.widgets.button import ButtonVariant
from textual.widgets.option_list import Option

from gpt2tui.errors import ResourceError
from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tui.base import SteadyScreen
from gpt2tui.tui.train.numbers import scientific
from gpt2tui.tui.train.view import DisplayedRun

Answer = TypeVar("Answer")
AnyApp = App[Any]


class Dialog(SteadyScreen[Answer], ModalScreen[Answer]):
    """A screen that is answered once."""

    def dismiss(self, result: Answer | None = None) -> AwaitComplete:
        """Ends the dialog. A second press that was already on its way would else end the screen below, and the app."""
        return super().dismiss(result) if self.app.screen is self else AwaitComplete()


class DialogBox(Vertical):
    """The frame of a dialog."""


def _content(text: str, keep_newlines: bool = True) -> Content:
    return Content(sanitize(text, keep_newlines))


class ConfirmDialog(Dialog[str | None]):
    """A question; returns the choice as it was given, None on escape. A choice that starts with `!` is dangerous.

    The first choice has the focus, so that Enter takes it.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Back"),
        Binding("left,h,up", "app.focus_previous", "Previous", show=False),
        Binding("right,l,down", "app.focus_next", "Next", show=False),
    ]

    def __init__(self, title: str, text: str, *choices: str) -> None:
        super().__init__()
        self._title = title
        self._text = text
        self._choices = choices or ("OK",)

    def compose(self) -> ComposeResult:
        """The question over a row of buttons."""
        with DialogBox() as box:
            box.border_title = _content(self._title, keep_newlines=False)
            with VerticalScroll(can_focus=False):
                yield Static(_content(self._text), classes="dialog-text")
            with Horizontal(classes="dialog-buttons"):
                for number, choice in enumerate(self._choices):
                    dangerous = choice.startswith("!")
                    label = _content(choice.removeprefix("!"), keep_newlines=False)
                    variant: ButtonVariant = "error" if dangerous else "primary" if number == 0 else "default"
                    yield Button(label, variant=variant, id=f"choice-{number}", compact=True)

    def on_mount(self) -> None:
        """Puts the focus on the first choice."""
        self.query(Button).first().focus()

    @on(Button.Pressed)
    def choose(self, event: Button.Pressed) -> None:
        """Ends the dialog with the button's choice."""
        event.stop()
        self.dismiss(self._choices[int((event.button.id or "choice-0").removeprefix("choice-"))])


class ErrorDialog(ConfirmDialog):
    """What happened, and where the log is; returns None or "OK"."""

    def __init__(self, title: str, message: str, log: str | None = None) -> None:
        super().__init__(title, message + (f"\n\nMore in the log: {log}" if log else ""), "OK")


class TextDialog(Dialog[str | None]):
    """Asks for one line of text; returns it, None on escape. `validate` returns what is wrong with it, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Back")]

    def __init__(
        self, title: str, text: str, value: str = "", *, validate: Callable[[str], str | None] | None = None
    ) -> None:
        super().__init__()
        self._title = title
        self._text = text
        self._value = sanitize(value, keep_newlines=False)
        self._validate = validate

    def compose(self) -> ComposeResult:
        """The question, the input, and what is wrong with it."""
        with DialogBox() as box:
            box.border_title = _content(self._title, keep_newlines=False)
            yield Static(_content(self._text), classes="dialog-text")
            yield Input(self._value, select_on_focus=True, compact=True)
            yield Static("", classes="dialog-mistake", markup=False)

    def on_mount(self) -> None:
        """Puts the focus into the input."""
        self.query_one(Input).focus()

    @on(Input.Changed)
    def check(self, event: Input.Changed) -> None:
        """Says what is wrong while one types."""
        self.query_one(".dialog-mistake", Static).update(_content(self._mistake(event.value) or ""))

    @on(Input.Submitted)
    def submit(self, event: Input.Submitted) -> None:
        """Ends the dialog with the text, when nothing is wrong with it."""
        event.stop()
        if self._mistake(event.value) is None:
            self.dismiss(event.value)

    def _mistake(self, value: str) -> str | None:
        return self._validate(value) if self._validate else None


# ---- asks for a file and writes a text into it; what is there is only overwritten after a question


async def ask_and_write(app: AnyApp, title: str, question: str, suggested: str, text: Callable[[], str]) -> Path | None:
    """The file that was written, None when it was not wanted after all. To be awaited in a worker.

    `suggested` is a file name to begin with. Raises ResourceError where the file cannot be written.
    """
    name = await app.push_screen_wait(TextDialog(title, question, suggested, validate=_unfit))
    if not name:
        return None
    path = Path(name.strip()).expanduser()
    if path.exists():
        dialog = ConfirmDialog("Overwrite?", f"{path} exists already.", "Keep it", "!Overwrite")
        if await app.push_screen_wait(dialog) != "!Overwrite":
            return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text(), encoding="utf-8", newline="\n")
    except (OSError, ValueError) as error:
        raise ResourceError(f"{path}: {error}") from error
    return path


def _unfit(name: str) -> str | None:
    if not name.strip():
        return "a file needs a name"
    return "this is a folder" if Path(name.strip()).expanduser().is_dir() else None


# ---- a dialog in which one picks a run

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


# ---- asks for a factor on the learning-rate schedule

LARGEST_FACTOR = 100.0


class LearningRateDialog(TextDialog):
    """Returns a text that `float` reads as more than 0 and at most LARGEST_FACTOR, None on escape."""

    def __init__(self, view: DisplayedRun) -> None:
        step = view.history.step
        now = f"The last step trained at {scientific(step.learning_rate)}. " if step else ""
        text = f"{now}The schedule is multiplied from the next step on by (1: the preset's own):"
        super().__init__("Learning rate", text, f"{view.history.learning_rate_factor:g}", validate=_mistake)


def _mistake(text: str) -> str | None:
    try:
        factor = float(text)
    except ValueError:
        return "a number, such as 0.5"
    good = math.isfinite(factor) and 0 < factor <= LARGEST_FACTOR
    return None if good else f"more than 0, at most {LARGEST_FACTOR:g}"
