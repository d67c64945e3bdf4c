"""The list of models under a filter, which is only there while it is used."""

from collections.abc import Sequence
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.widgets import Input

from gpt2tui.tui.chat_catalog import ModelChoice
from gpt2tui.tui.widgets.field_input import FieldInput
from gpt2tui.tui.widgets.model_list import ModelList


class ModelPicker(Vertical):
    """Posts `ModelList.Chosen`. `open_filter` shows only the models whose run, kind or step has all words."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "close_filter", "All models", show=False)]

    DEFAULT_CSS = """
    ModelPicker { height: 1fr; }
    ModelPicker Input { display: none; height: 1; border: none; padding: 0 1; background: $surface; }
    ModelPicker.-filtering Input { display: block; }
    """

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._choices: Sequence[ModelChoice] = ()
        self._first: ModelChoice | None = None
        self._second: ModelChoice | None = None

    def compose(self) -> ComposeResult:
        """The filter over the list."""
        yield FieldInput(placeholder="words; esc shows all", compact=True)
        yield ModelList()

    def on_mount(self) -> None:
        """Names itself."""
        models = self.query_one(ModelList)
        models.border_title = "models"
        models.border_subtitle = "/ filter · o open"

    def show(self, choices: Sequence[ModelChoice], first: ModelChoice | None, second: ModelChoice | None) -> None:
        """Shows these models as far as they match, `first` and `second` marked."""
        self._choices, self._first, self._second = choices, first, second
        words = self.query_one(Input).value.strip()
        shown = [choice for choice in choices if matches(choice, words)]
        models = self.query_one(ModelList)
        models.show(shown, first, second, "none matches" if words and choices else "no checkpoint yet")
        models.border_title = f"models · {len(shown)} of {len(choices)}" if words else "models"

    def open_filter(self) -> None:
        """Lets one type what to look for."""
        self.add_class("-filtering")
        self.query_one(Input).focus()

    def action_close_filter(self) -> None:
        """Shows all models again."""
        self.query_one(Input).value = ""
        self.remove_class("-filtering")
        self.query_one(ModelList).focus()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Escape is the screen's while there is no filter."""
        return action != "close_filter" or self.has_class("-filtering")

    @on(Input.Changed)
    def filter(self, event: Input.Changed) -> None:
        """Shows what matches, while one types."""
        event.stop()
        self.show(self._choices, self._first, self._second)

    @on(Input.Submitted)
    def leave(self, event: Input.Submitted) -> None:
        """Goes to what was found; an empty filter closes."""
        event.stop()
        if not event.value.strip():
            self.action_close_filter()
        models = self.query_one(ModelList)
        models.focus()
        if models.highlighted is None:
            models.action_first()


def matches(choice: ModelChoice, words: str) -> bool:
    """Whether every word is in the model's name, kind or step, in any case."""
    text = f"{choice.label} {choice.kind} {choice.step if choice.step is not None else ''}".casefold()
    return all(word in text for word in words.casefold().split())
