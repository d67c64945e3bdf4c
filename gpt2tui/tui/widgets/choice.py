"""One of a few values, all in sight: `constant  linear  cosine  wsd`, the chosen one marked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from gpt2tui.system.terminal_text import sanitize

CHOSEN, CHOSEN_FOCUSED = "$foreground on $surface-lighten-2 bold", "$button-color-foreground on $primary bold"
OTHER, WRONG = "$foreground 60%", "$text-error strike"


class Choice(Widget, can_focus=True):
    """A row of values; arrows, h and l, space and the mouse choose. One that is none of them stands before, in red."""

    DEFAULT_CSS = """
    Choice { height: 1; width: auto; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "step(-1)", "Previous value", show=False),
        Binding("right,l", "step(1)", "Next value", show=False),
        Binding("space,enter", "step(1, True)", "Next value", show=False),
        Binding("home", "end(0)", "First value", show=False),
        Binding("end", "end(-1)", "Last value", show=False),
    ]

    value: reactive[str] = reactive("", layout=True)

    @dataclass
    class Changed(Message):
        """A person has chosen another value."""

        choice: "Choice"
        value: str

    def __init__(self, choices: Sequence[str], value: str) -> None:
        super().__init__()
        self.choices = tuple(choices)
        self.set_reactive(Choice.value, value)

    def render(self) -> Content:
        """The values side by side."""
        chosen = CHOSEN_FOCUSED if self.has_focus else CHOSEN
        parts = []
        if self.value not in self.choices:
            parts.append(Content.styled(f" {sanitize(self.value, keep_newlines=False)} ", WRONG))
        parts += [Content.styled(f" {choice} ", chosen if choice == self.value else OTHER) for choice in self.choices]
        return Content("").join(parts)

    def action_step(self, by: int, around: bool = False) -> None:
        """Chooses the next value, or the one before; at an end it stays, or goes on at the other."""
        at = self.choices.index(self.value) + by if self.value in self.choices else 0
        self.choose(at % len(self.choices) if around else min(max(at, 0), len(self.choices) - 1))

    def action_end(self, at: int) -> None:
        """Chooses the first or the last value."""
        self.choose(at)

    def choose(self, at: int) -> None:
        """Takes the value at this place and tells it, when it is another."""
        if self.choices[at] != self.value:
            self.value = self.choices[at]
            self.post_message(self.Changed(self, self.value))

    def on_click(self, event: events.Click) -> None:
        """Chooses the value under the mouse."""
        start = 0 if self.value in self.choices else len(self.value) + 2
        for at, choice in enumerate(self.choices):
            if start <= event.x < start + len(choice) + 2:
                self.choose(at)
            start += len(choice) + 2
