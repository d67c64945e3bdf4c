"""One setting in the form: its name, the widget that fits its kind, unit and bounds, and under it what is wrong."""

import textwrap
from dataclasses import dataclass
from typing import Any

from textual import events, on
from textual.app import ComposeResult
from textual.content import Content
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input, TextArea

from gpt2tui.preset.files import Setting
from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tui import setting_text
from gpt2tui.tui.corpus_suggester import CorpusSuggester
from gpt2tui.tui.widgets.choice import Choice
from gpt2tui.tui.widgets.field_input import FieldInput

LABEL_WIDTH = 24
NUMBER_WIDTH = 12
SWITCH = ("off", "on")
# Colours of the theme by name: component classes would be styled anew, four for each field, at every change of focus.
NAME, CHANGED, WRONG, HINT = "$foreground 80%", "$text-warning", "$text-error", "$foreground 45%"


class SettingField(Widget):
    """Draws the words itself and holds only the editor as a widget: a form of fifty is there at once."""

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
        &.-number > Input.-textual-compact { width: 12; }
    }
    """

    @dataclass
    class Changed(Message):
        """A person has changed the setting to this value, which may be of the wrong type."""

        field: "SettingField"
        key: str
        value: Any

    def __init__(self, setting: Setting, value: Any) -> None:
        kind = setting_text.kind(setting)
        super().__init__(id=f"field-{setting.key.replace('.', '-')}", classes=f"-{kind.replace(' ', '-')}")
        self.set_class(setting.is_table, "-table")
        self.setting = setting
        self.kind = kind
        self._value = value
        self._changed = False
        self._mistake = ""
        self._lines: list[str] = []
        self.editor = self._make_editor()

    def compose(self) -> ComposeResult:
        """Only the editor; the rest is drawn."""
        yield self.editor

    def on_mount(self) -> None:
        """Takes the height that the editor needs."""
        self._fit()

    def show(self, value: Any, changed: bool) -> None:
        """Shows a value that came from elsewhere: another preset, undo. What is typed and means it stays."""
        if changed != self._changed:
            self._changed = changed
            self.refresh()
        if type(value) is type(self._value) and value == self._value:
            return
        self._value = value
        match self.editor:
            case Choice():
                self.editor.value = self._as_choice(value)
            case _:
                self._write(self._as_text(value))

    def complain(self, mistake: str) -> None:
        """Shows what is wrong with the value under it; empty when nothing is."""
        if mistake != self._mistake:
            self._mistake = mistake
            self._fit()
            self.refresh()

    @property
    def mistake(self) -> str:
        """What is wrong with the value, as it is shown."""
        return self._mistake

    def render(self) -> Content:
        """Name, unit and bounds on the first line, the mistake on those under the editor."""
        mark, colour = ("✗", WRONG) if self._mistake else ("*", CHANGED) if self._changed else (" ", NAME)
        name = self.setting.key.rpartition(".")[2]
        label = f"{mark} [{name}]" if self.setting.is_table else f"{mark} {name}"
        bold = " bold" if self.has_focus_within else ""
        parts = [Content.styled(label.ljust(LABEL_WIDTH)[:LABEL_WIDTH], colour + bold)]
        if self.kind == "number":
            room = self.size.width - LABEL_WIDTH - NUMBER_WIDTH - 1
            parts += [Content(" " * (NUMBER_WIDTH + 1)), Content.styled(self._hint(room), HINT)]
        lines = [Content("").join(parts)] + [Content("")] * (self._editor_height - 1)
        lines += [Content(" " * LABEL_WIDTH) + Content.styled(line, WRONG) for line in self._lines]
        return Content("\n").join(lines)

    def on_resize(self) -> None:
        """Breaks the mistake into lines of the new width."""
        self._fit()

    @on(events.Click)
    def focus_editor(self) -> None:
        """A click on the name is one on the editor."""
        if not self.has_focus_within:
            self.editor.focus()

    @on(Choice.Changed)
    def chosen(self, event: Choice.Changed) -> None:
        """Another value was chosen."""
        event.stop()
        self._take(SWITCH.index(event.value) == 1 if self.kind == "switch" else event.value)

    @on(Input.Changed)
    @on(TextArea.Changed)
    def typed(self, event: Input.Changed | TextArea.Changed) -> None:
        """Another text was typed. One that is only what the value looks like changes nothing."""
        event.stop()
        text = event.text_area.text if isinstance(event, TextArea.Changed) else event.value
        if text != self._as_text(self._value):
            self._take(setting_text.read(self.setting, text))

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
                return TextArea(self._as_text(self._value), compact=True, soft_wrap=True, highlight_cursor_line=False)
            case _:
                return FieldInput(
                    self._as_text(self._value),
                    placeholder="left out" if self.setting.default is None else "",
                    suggester=CorpusSuggester() if self.kind == "path" else None,
                    compact=True,
                )

    def _as_choice(self, value: Any) -> str:
        if self.kind == "switch" and isinstance(value, bool):
            return SWITCH[value]
        return setting_text.write(value)

    def _as_text(self, value: Any) -> str:
        return sanitize(setting_text.write(value), keep_newlines=self.kind == "long text")

    def _hint(self, room: int) -> str:
        """Unit and bounds where they fit, else the unit, else the bounds; the rest stands at the bottom."""
        unit, bounds = self.setting.unit, setting_text.short_bounds(self.setting)
        both = ", ".join(part for part in (unit, bounds) if part)
        return next((hint for hint in (both, unit, bounds) if hint and len(hint) <= room), "")

    def _fit(self) -> None:
        width = max(self.size.width - LABEL_WIDTH, 10)
        self._lines = textwrap.wrap(sanitize(self._mistake, keep_newlines=False), width)
        self.styles.height = self._editor_height + len(self._lines)
