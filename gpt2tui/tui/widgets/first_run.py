"""Shown while there is no run: what the program does, and two ways to start."""

from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Button, Static

from gpt2tui.tui.base import workbench_of

TITLE = "Train GPT-2 from scratch"
TEXT = (
    "The corpus is the Python standard library on your disk, the tokenizer is trained on it first. "
    "Watch the loss fall, then chat with the model."
)


class FirstRun(Vertical):
    """Two buttons: train the preset `small`, or choose a preset."""

    DEFAULT_CSS = """
    FirstRun { width: 1fr; height: 1fr; align: center middle; }
    FirstRun #first-run-box { width: 72; max-width: 100%; height: auto; padding: 1 2; border: round $primary; }
    FirstRun .first-run-title { text-style: bold; color: $text-primary; text-align: center; width: 1fr; }
    FirstRun .first-run-text { text-align: center; width: 1fr; margin-top: 1; color: $text-muted; }
    FirstRun .first-run-buttons { height: auto; align: center middle; margin-top: 1; }
    FirstRun Button { margin: 0 1; }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,up", "app.focus_previous", "Previous", show=False),
        Binding("right,down", "app.focus_next", "Next", show=False),
    ]

    def compose(self) -> ComposeResult:
        """A title, an explanation, two buttons."""
        with Vertical(id="first-run-box"):
            yield Static(TITLE, classes="first-run-title")
            yield Static(TEXT, classes="first-run-text")
            with Horizontal(classes="first-run-buttons"):
                yield Button("Train the small preset", variant="primary", id="first-run-small")
                yield Button("Choose a preset", id="first-run-choose")
            yield Static("small takes about three minutes: no GPU, no download", classes="first-run-text")

    def on_show(self) -> None:
        """Focuses the first button, so that Enter trains."""
        self.query(Button).first().focus()

    @on(Button.Pressed)
    def begin(self, event: Button.Pressed) -> None:
        """Trains the small preset, or shows all of them."""
        event.stop()
        workbench = workbench_of(self.app)
        if event.button.id == "first-run-small":
            workbench.train_preset("small")
        else:
            workbench.action_go("presets")
