"""Dialogs that several screens use: a question with choices, an error, a line of text. None reads markup."""

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from textual import on
from textual.app import App, ComposeResult
from textual.await_complete import AwaitComplete
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static
from textual.widgets.button import ButtonVariant

from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tui.base import SteadyScreen

Answer = TypeVar("Answer")
AnyApp = App[Any]


class Dialog(ModalScreen[Answer], SteadyScreen[Answer]):  # styles are inherited from the first base alone
    """A modal screen that returns one answer."""

    def dismiss(self, result: Answer | None = None) -> AwaitComplete:
        """Ends the dialog. A second key press, queued before it closed, must not end the screen below."""
        return super().dismiss(result) if self.app.screen is self else AwaitComplete()


class DialogBox(Vertical):
    """The frame of a dialog."""


def _content(text: str, keep_newlines: bool = True) -> Content:
    return Content(sanitize(text, keep_newlines))


class ConfirmDialog(Dialog[str | None]):
    """A question with buttons; returns the choice as it was given, None on escape.

    A choice that starts with `!` cannot be undone and is red. The first choice has the focus: Enter takes it.
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
        """Returns the button's choice."""
        event.stop()
        self.dismiss(self._choices[int((event.button.id or "choice-0").removeprefix("choice-"))])


class ErrorDialog(ConfirmDialog):
    """An error message and the path of the log; returns None or "OK"."""

    def __init__(self, title: str, message: str, log: str | None = None) -> None:
        super().__init__(title, message + (f"\n\nMore in the log: {log}" if log else ""), "OK")


class TextDialog(Dialog[str | None]):
    """Asks for one line of text; returns it, None on escape. `validate` returns an error message, or None."""

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
        """The question, the input, and the error message."""
        with DialogBox() as box:
            box.border_title = _content(self._title, keep_newlines=False)
            yield Static(_content(self._text), classes="dialog-text")
            yield Input(self._value, select_on_focus=True, compact=True)
            yield Static("", classes="dialog-error", markup=False)

    def on_mount(self) -> None:
        """Puts the focus into the input."""
        self.query_one(Input).focus()

    @on(Input.Changed)
    def check(self, event: Input.Changed) -> None:
        """Shows what is wrong with the text so far, or what it leads to."""
        error = self._error(event.value)
        remark = _content(error) if error else Content.styled(self.outcome(event.value), "$foreground")
        self.query_one(".dialog-error", Static).update(remark)

    @on(Input.Submitted)
    def submit(self, event: Input.Submitted) -> None:
        """Returns the text, unless it has an error."""
        event.stop()
        if self._error(event.value) is None:
            self.dismiss(event.value)

    def outcome(self, value: str) -> str:
        """What a valid text leads to, shown while the user types."""
        return ""

    def _error(self, value: str) -> str | None:
        return self._validate(value) if self._validate else None
