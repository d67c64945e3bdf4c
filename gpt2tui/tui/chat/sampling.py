"""The sampling settings: four sliders, the seed, and the chat template."""

from collections.abc import Callable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.events import Key
from textual.widgets import Checkbox, Input, Label

from gpt2tui.preset.schema import SamplingTable
from gpt2tui.tui.chat.engine import TemplateUse
from gpt2tui.tui.chat.slider import Slider, plain_number
from gpt2tui.tui.widgets.toggles import Switch

DIGITS = "0123456789+-"
LARGEST_SEED = 2**63 - 1
TEMPLATE_HELP = (
    "Off: the model continues what you type, which is what a base model is trained for. "
    "On: what you type becomes a turn of a conversation, in the template that the model was trained with, else User: … "
    "Assistant: …. Until you switch it, it is on for the models that were trained on prompts and answers."
)


def _two_digits(value: float) -> str:
    return f"{value:.2f}"


def _all_at(neutral: float, show: Callable[[float], str]) -> Callable[[float], str]:
    return lambda value: "all" if value == neutral else show(value)


class SeedInput(Input):
    """A whole number. Letters are no part of it and act as keys of the screen; any other is refused with a word."""

    def check_consume_key(self, key: str, character: str | None) -> bool:
        """Takes digits and signs alone."""
        return character is not None and character in DIGITS

    async def on_key(self, event: Key) -> None:
        """Leaves a letter to the screen's keys."""
        if event.character is None or not event.is_printable or event.character in DIGITS:
            return
        event.prevent_default()  # Textual's input would swallow it
        if event.key not in self.screen.active_bindings:
            event.stop()
            self.notify("the seed is a whole number; i: write a prompt", severity="warning", markup=False)


class SamplingPanel(Vertical):
    """The sliders take a model's own settings until the user moves one."""

    DEFAULT_CSS = """
    SamplingPanel { height: auto; padding: 0 1; border: round $panel; border-title-color: $foreground; }
    SamplingPanel:focus-within { border: round $border; }
    SamplingPanel Horizontal { height: 1; }
    SamplingPanel Label { width: 12; color: $text-muted; }
    SamplingPanel Checkbox { background: transparent; padding: 0; color: $text-muted; }
    SamplingPanel Checkbox > .toggle--button { color: $panel; background: $panel; }
    SamplingPanel Checkbox.-on > .toggle--button { color: $text-success; }
    SamplingPanel Input { width: 1fr; height: 1; border: none; padding: 0; background: transparent; text-style: bold; }
    SamplingPanel Input:focus { background: $primary 20%; }
    """
    BORDER_TITLE: ClassVar[str] = "sampling"

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._touched = False
        self._template_touched = False

    def compose(self) -> ComposeResult:
        """One line for each setting."""
        defaults = SamplingTable()
        help_of = {name: field.description or "" for name, field in SamplingTable.model_fields.items()}
        for name, label, least, most, step, page, value, show in (
            ("temperature", "temperature", 0, 2, 0.01, 10, defaults.temperature, _two_digits),
            ("top_k", "top-k", 0, 200, 1, 10, defaults.top_k, _all_at(0, plain_number)),
            ("top_p", "top-p", 0.01, 1, 0.01, 10, defaults.top_p, _all_at(1, _two_digits)),
            ("max_length", "max length", 1, 2000, 1, 50, 200, plain_number),
        ):
            yield Slider(label, least, most, step, value, page=page, show=show, id=name, tooltip=help_of[name])
        with Horizontal():
            yield Label("seed")
            yield SeedInput(
                str(defaults.seed), type="integer", max_length=19, id="seed", compact=True, tooltip=help_of["seed"]
            )
        yield Switch("chat template", id="template", compact=True, tooltip=TEMPLATE_HELP)

    @property
    def template(self) -> TemplateUse:
        """Whether prompts become turns of a conversation; until the user decides, it depends on the model."""
        if not self._template_touched:
            return "own"
        return "on" if self.query_one("#template", Checkbox).value else "off"

    @property
    def sampling(self) -> SamplingTable:
        """The current settings; a seed that is not a number counts as 0."""
        return SamplingTable(
            temperature=self._slider("temperature").value,
            top_k=round(self._slider("top_k").value),
            top_p=self._slider("top_p").value,
            max_length=round(self._slider("max_length").value),
            seed=self.seed,
        )

    @property
    def seed(self) -> int:
        """The seed in its field, limited to what SamplingTable allows."""
        value = self.query_one("#seed", Input).value
        return min(LARGEST_SEED, abs(int(value))) if value.lstrip("+-").isdecimal() else 0

    @seed.setter
    def seed(self, seed: int) -> None:
        self.query_one("#seed", Input).value = str(seed % (LARGEST_SEED + 1))

    def suggest(self, sampling: SamplingTable) -> None:
        """Takes a model's own settings, unless the user has moved a slider."""
        if not self._touched:
            self._slider("temperature").value = sampling.temperature
            self._slider("top_k").value = sampling.top_k
            self._slider("top_p").value = sampling.top_p

    def suggest_template(self, is_own: bool) -> None:
        """Switches the template on for a model that has its own, unless the user has switched it."""
        if not self._template_touched:
            with self.prevent(Checkbox.Changed):
                self.query_one("#template", Checkbox).value = is_own

    @on(Checkbox.Changed)
    def keep_template(self) -> None:
        """Keeps the user's choice from now on."""
        self._template_touched = True

    @on(Slider.Changed)
    def touch(self) -> None:
        """Keeps the user's settings from now on."""
        self._touched = True

    def _slider(self, name: str) -> Slider:
        return self.query_one(f"#{name}", Slider)
