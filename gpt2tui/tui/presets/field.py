"""One setting in the form: its name, an editor, unit and bounds, and its mistake below."""

import asyncio
import json
import shlex
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.reactive import reactive
from textual.suggester import Suggester
from textual.widget import Widget
from textual.widgets import Input, TextArea

from gpt2tui.preset.files import Setting
from gpt2tui.preset.layers import read_overrides
from gpt2tui.preset.settings import LIST_OF_SOURCES, number_text
from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tui.widgets.field_input import FieldInput

Kind = Literal["number", "choice", "switch", "text", "long text", "path", "list"]

LABEL_WIDTH = 24
NUMBER_WIDTH = 16
SWITCH = ("off", "on")
LONG_TEXT = 10_000  # a text setting that allows this many characters gets several lines
UNBOUNDED = 10**9  # a maximum from here on is no real limit and is not shown
PATHS = frozenset({"data.source"})
KNOWN_SOURCES = ("python-stdlib", "wikitext-103", "wikitext-2", "hf:")
MAX_ENTRIES = 5000  # of a folder that are searched for a completion

# Theme colours by name: component classes, four for each field, would be restyled at every change of focus.
CHOSEN, CHOSEN_FOCUSED = "$foreground on $surface-lighten-2 bold", "$button-color-foreground on $primary bold"
OTHER, WRONG_CHOICE = "$foreground 60%", "$text-error strike"
NAME, CHANGED, WRONG, HINT = "$foreground 80%", "$text-warning", "$text-error", "$foreground 45%"


def choices_in_view(choices: Sequence[str], value: str, width: int) -> tuple[int, int]:
    """The first choice that is drawn in `width` cells, and the end of them; the chosen one is among them."""
    first = choices.index(value) if value in choices else 0
    last, number = first + 1, len(choices)

    def fits(first: int, last: int) -> bool:
        return sum(len(choice) + 2 for choice in choices[first:last]) + (first > 0) + (last < number) <= width

    while last < number and fits(first, last + 1):
        last += 1
    while first > 0 and fits(first - 1, last):
        first -= 1
    return first, last


class Choice(Widget, can_focus=True):
    """A row of values, chosen with arrows, h and l, or the mouse. Any other value is shown first, in red."""

    DEFAULT_CSS = """
    Choice { height: 1; width: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "step(-1)", "Previous value", show=False),
        Binding("right,l", "step(1)", "Next value", show=False),
        Binding("enter", "next_field", "Next field", show=False),
        Binding("space", "say_keys", "Next value", show=False),
        Binding("home", "end(0)", "First value", show=False),
        Binding("end", "end(-1)", "Last value", show=False),
    ]

    value: reactive[str] = reactive("", layout=True)

    @dataclass
    class Changed(Message):
        """The user has chosen another value."""

        choice: "Choice"
        value: str

    def __init__(self, choices: Sequence[str], value: str) -> None:
        super().__init__()
        self.choices = tuple(choices)
        self.set_reactive(Choice.value, value)

    def render(self) -> Content:
        """The values side by side; where not all fit, those around the chosen one, with ‹ and › for the others."""
        chosen = CHOSEN_FOCUSED if self.has_focus else CHOSEN
        parts = []
        if self.value not in self.choices:
            parts.append(Content.styled(f" {sanitize(self.value, keep_newlines=False)} ", WRONG_CHOICE))
        first, last = self._in_view
        if first > 0:
            parts.append(Content.styled("‹", OTHER))
        parts += [Content.styled(f" {c} ", chosen if c == self.value else OTHER) for c in self.choices[first:last]]
        if last < len(self.choices):
            parts.append(Content.styled("›", OTHER))
        return Content("").join(parts)

    @property
    def _in_view(self) -> tuple[int, int]:
        return choices_in_view(self.choices, self.value, self.size.width)

    def action_step(self, by: int) -> None:
        """Chooses the next or the previous value; at an end it stays."""
        at = self.choices.index(self.value) + by if self.value in self.choices else 0
        self.choose(min(max(at, 0), len(self.choices) - 1))

    def action_next_field(self) -> None:
        """Enter leaves the value as it is, as in every other field."""
        self.screen.focus_next()

    def action_say_keys(self) -> None:
        """Space, under which other programs have other things, changes nothing and says what does."""
        self.notify("← and → choose another value", timeout=3, markup=False)

    def action_end(self, at: int) -> None:
        """Chooses the first or the last value."""
        self.choose(at)

    def choose(self, at: int) -> None:
        """Chooses the value at this index and posts `Changed` when it is another."""
        if self.choices[at] != self.value:
            self.value = self.choices[at]
            self.post_message(self.Changed(self, self.value))

    def on_click(self, event: events.Click) -> None:
        """Chooses the value under the mouse, or the next one at ‹ and ›."""
        first, last = self._in_view
        start = (0 if self.value in self.choices else len(self.value) + 2) + (first > 0)
        if first > 0 and event.x == start - 1:
            self.choose(first - 1)
            return
        for at in range(first, min(last + 1, len(self.choices))):
            width = len(self.choices[at]) + 2 if at < last else 1
            if start <= event.x < start + width:
                self.choose(at)
                return
            start += width


class LongText(TextArea):
    """Several lines, left as every other field: with Enter, and with ↑ and ↓ at the first and the last line."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("shift+enter,alt+enter,ctrl+j", "new_line", "New line", show=False),
    ]

    async def on_key(self, event: events.Key) -> None:
        """Moves between fields before Textual's text area inserts a new line or lets the cursor stay."""
        at = self.cursor_location
        if event.key == "enter" or (event.key == "down" and self.navigator.is_last_wrapped_line(at)):
            leave = self.screen.focus_next
        elif event.key == "up" and self.navigator.is_first_wrapped_line(at):
            leave = self.screen.focus_previous
        else:
            return
        event.stop()
        event.prevent_default()
        leave()

    def action_new_line(self) -> None:
        """Inserts a new line."""
        self.insert("\n")


class SettingField(Widget):
    """Draws the text itself and has only the editor as a widget, so that a form of fifty settings opens at once."""

    DEFAULT_CSS = """
    SettingField {
        height: 1;
        layout: horizontal;
        &:focus-within { background: $foreground 6%; }
        & > * { margin: 0 0 0 24; }
        & > Input.-textual-compact { width: 1fr; padding: 0 1; background: $foreground 5%; }
        & > Input:focus { background: $foreground 12%; }
        & > TextArea { width: 1fr; height: 3; padding: 0 1; border: none; background: $foreground 5%; }
        & > TextArea:focus { border: none; background: $foreground 12%; }
        &.-unused > Input, &.-unused > Input.-textual-compact { color: $foreground 45%; }
        &.-number > Input.-textual-compact { width: 16; }
    }
    """

    @dataclass
    class Changed(Message):
        """The user has changed the setting to this value, which may be of the wrong type."""

        field: "SettingField"
        key: str
        value: Any

    def __init__(self, setting: Setting, value: Any) -> None:
        kind = field_kind(setting)
        super().__init__(id=f"field-{setting.key.replace('.', '-')}", classes=f"-{kind.replace(' ', '-')}")
        self.set_class(setting.is_table, "-table")
        self.setting = setting
        self.kind = kind
        self._value = value
        self._changed = False
        self._unused = ""
        self._mistake = ""
        self._lines: list[str] = []
        self.editor = self._make_editor()

    def compose(self) -> ComposeResult:
        """Only the editor; the rest is drawn by `render`."""
        yield self.editor

    def on_mount(self) -> None:
        """Sets the height that the editor needs."""
        self._fit()

    def show(self, value: Any, changed: bool, unused: str = "") -> None:
        """Shows a value of another preset or of an undo. A typed text that already means this value stays.

        `unused` is why the setting has no effect beside the others; it is then dimmed.
        """
        if (changed, unused) != (self._changed, self._unused):
            self._changed, self._unused = changed, unused
            self.set_class(bool(unused), "-unused")
            self.refresh()
        if type(value) is type(self._value) and value == self._value:
            return
        self._value = value
        match self.editor:
            case Choice():
                self.editor.value = self._as_choice(value)
            case _:
                self._write(self._as_text(value))

    def show_mistake(self, mistake: str) -> None:
        """Shows the mistake below the value; an empty text removes it."""
        if mistake != self._mistake:
            self._mistake = mistake
            self._fit()
            self.refresh()

    @property
    def mistake(self) -> str:
        """The mistake that is shown."""
        return self._mistake

    def render(self) -> Content:
        """Name, unit and bounds on the first line, the mistake below the editor."""
        mark, colour = ("–", HINT) if self._unused else (" ", NAME)
        if self._mistake or self._changed:
            mark, colour = ("✗", WRONG) if self._mistake else ("*", CHANGED)
        name = self.setting.key.rpartition(".")[2]
        label = f"{mark} [{name}]" if self.setting.is_table else f"{mark} {name}"
        bold = " bold" if self.has_focus_within else ""
        if len(label) >= LABEL_WIDTH:
            label = f"{label[: LABEL_WIDTH - 2]}… "
        parts = [Content.styled(label.ljust(LABEL_WIDTH), colour + bold)]
        if self.kind == "number":
            room = self.size.width - LABEL_WIDTH - NUMBER_WIDTH - 1
            hint = ("not used" if room >= len("not used") else "") if self._unused else self._hint(room)
            parts += [Content(" " * (NUMBER_WIDTH + 1)), Content.styled(hint, HINT)]
        lines = [Content("").join(parts)] + [Content("")] * (self._editor_height - 1)
        lines += [Content(" " * LABEL_WIDTH) + Content.styled(line, WRONG) for line in self._lines]
        return Content("\n").join(lines)

    def on_resize(self) -> None:
        """Wraps the mistake to the new width."""
        self._fit()

    @on(events.Click)
    def focus_editor(self) -> None:
        """Focuses the editor, also for a click on the name."""
        if not self.has_focus_within:
            self.editor.focus()

    @on(Choice.Changed)
    def chosen(self, event: Choice.Changed) -> None:
        """Takes the chosen value."""
        event.stop()
        self._take(SWITCH.index(event.value) == 1 if self.kind == "switch" else event.value)

    @on(Input.Changed)
    @on(TextArea.Changed)
    def typed(self, event: Input.Changed | TextArea.Changed) -> None:
        """Takes the typed text, unless it is only the text of the present value."""
        event.stop()
        text = event.text_area.text if isinstance(event, TextArea.Changed) else event.value
        if text != self._as_text(self._value):
            self._take(parse_value(self.setting, text))

    @property
    def _editor_height(self) -> int:
        return 3 if self.kind == "long text" else 1

    def _take(self, value: Any) -> None:
        self._value = value
        self.post_message(self.Changed(self, self.setting.key, value))

    def _write(self, text: str) -> None:
        with self.prevent(Input.Changed, TextArea.Changed):
            if isinstance(self.editor, Input):
                self.editor.value = text
            elif isinstance(self.editor, TextArea):
                self.editor.text = text

    def _make_editor(self) -> Choice | Input | TextArea:
        match self.kind:
            case "choice":
                return Choice(self.setting.choices, self._as_choice(self._value))
            case "switch":
                return Choice(SWITCH, self._as_choice(self._value))
            case "long text":
                return LongText(self._as_text(self._value), compact=True, soft_wrap=True, highlight_cursor_line=False)
            case _:
                return FieldInput(
                    self._as_text(self._value),
                    placeholder=("auto" if self.kind == "number" else "none") if self.setting.default is None else "",
                    suggester=CorpusSuggester() if self.kind == "path" else None,
                    compact=True,
                )

    def _as_choice(self, value: Any) -> str:
        if self.kind == "switch" and isinstance(value, bool):
            return SWITCH[value]
        return value_text(value)

    def _as_text(self, value: Any) -> str:
        return sanitize(value_text(value), keep_newlines=self.kind == "long text")

    def _hint(self, room: int) -> str:
        """Unit and bounds where they fit, else the unit, else the bounds. The help shows all of them."""
        unit, bounds = self.setting.unit, short_bounds(self.setting)
        both = ", ".join(part for part in (unit, bounds) if part)
        return next((hint for hint in (both, unit, bounds) if hint and len(hint) <= room), "")

    def _fit(self) -> None:
        width = max(self.size.width - LABEL_WIDTH, 10)
        self._lines = textwrap.wrap(sanitize(self._mistake, keep_newlines=False), width)
        self.styles.height = self._editor_height + len(self._lines)


# ---- the text of a value


def field_kind(setting: Setting) -> Kind:
    """The kind of editor for a setting."""
    if setting.choices:
        return "choice"
    if setting.type == "true or false":
        return "switch"
    if setting.type in ("list of texts", LIST_OF_SOURCES):
        return "list"
    if setting.type != "text":
        return "number"
    if setting.key in PATHS:
        return "path"
    return "long text" if setting.limits.get("maxLength", 0) >= LONG_TEXT else "text"


def parse_value(setting: Setting, text: str) -> Any:
    """The value of a typed text; None where an empty text leaves the setting out.

    A text that is not of the setting's type is returned as it is, and the validation refuses it.
    """
    match field_kind(setting):
        case "number":
            return _number(setting, text.strip())
        case "list":
            parts = [part.strip() for part in text.split(",") if part.strip()]
            return [_weighted_source(part) for part in parts] if setting.type == LIST_OF_SOURCES else parts
        case _:
            return None if not text and setting.default is None else text


def value_text(value: Any) -> str:
    """The text to edit a value with. `parse_value` inverts it, except for list items with a comma."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case list():
            return ", ".join(map(value_text, value))
        case {"source": source, "weight": weight}:
            return f"{weight:g} {source}" if isinstance(weight, int | float) else f"{weight} {source}"
        case int() if abs(value) >= 10**40:  # Python refuses to print very long integers
            return "an integer of more than 40 digits"
        case _:
            return str(value)


def _weighted_source(text: str) -> dict[str, Any]:
    """A source of data.mix from its weight and its name, `3 wikitext-2`; a source alone has the weight 1."""
    first, _, rest = text.partition(" ")
    try:
        return {"source": rest.strip(), "weight": float(first)} if rest else {"source": text, "weight": 1.0}
    except ValueError:
        return {"source": text, "weight": 1.0}


def _as_toml(value: Any) -> str:
    """A list on one line, with tables in it where they are."""
    if isinstance(value, list):
        return f"[{', '.join(map(_as_toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name} = {_as_toml(below)}' for name, below in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)


def as_override(key: str, value: Any) -> str:
    """The setting as an option for a shell, `--set optimizer.lr=0.001`; a left-out setting has no such option."""
    if value is None:
        return f"{key} is left out"
    if isinstance(value, str):
        layer, _ = read_overrides([f"{key}={value}"])
        plain = [placed.value for placed in layer.values()] == [value] and value == value.strip() != ""
        text = value if plain else json.dumps(value, ensure_ascii=False)
    elif isinstance(value, list):
        text = _as_toml(value)
    else:
        text = value_text(value)
    return f"--set {shlex.quote(f'{key}={text}')}"


def short_bounds(setting: Setting) -> str:
    """The bounds of a number as `1 to 1,024`, `≥ 0`, `0 to <1`, `>0 to 10`; empty for all other kinds."""
    if field_kind(setting) != "number":
        return ""
    above, below = "exclusiveMinimum" in setting.limits, "exclusiveMaximum" in setting.limits
    least = setting.limits.get("exclusiveMinimum" if above else "minimum")
    most = setting.limits.get("exclusiveMaximum" if below else "maximum")
    if least is None or most is None:
        return setting.bounds
    if most >= UNBOUNDED:
        return f"{'>' if above else '≥'} {number_text(least)}"
    return f"{'>' if above else ''}{number_text(least)} to {'<' if below else ''}{number_text(most)}"


def _number(setting: Setting, text: str) -> Any:
    if not text and setting.default is None:
        return None
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text


# ---- completion of a corpus: known names, then files and folders


class CorpusSuggester(Suggester):
    """Suggests corpora; reads folders in a thread and caches nothing, because files change."""

    def __init__(self) -> None:
        super().__init__(use_cache=False, case_sensitive=True)

    async def get_suggestion(self, value: str) -> str | None:
        """The completed text, or None."""
        if not value:
            return None
        named = next((name for name in KNOWN_SOURCES if name.startswith(value)), None)
        return named or await asyncio.to_thread(complete_path, value)


def complete_path(typed: str) -> str | None:
    """The typed path completed by the first matching entry of its folder, in order of names; None without one."""
    folder, slash, start = typed.rpartition("/")
    if typed.startswith("hf:") or any(sign in typed for sign in "*?["):
        return None
    try:
        entries = Path(f"{folder}/" if slash else ".").expanduser().iterdir()
        names = sorted(
            entry.name + ("/" if entry.is_dir() else "")
            for entry, _ in zip(entries, range(MAX_ENTRIES), strict=False)
            if entry.name.startswith(start) and (start or not entry.name.startswith("."))
        )
    except (OSError, RuntimeError, ValueError):  # no such folder, no such user's home, a null byte
        return None
    return f"{folder}{slash}{names[0]}" if names and names[0].isprintable() else None
