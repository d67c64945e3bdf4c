"""The form of a preset with what stands around it: its name and state, its file's mistakes, help for one setting."""

from textual import on
from textual.app import ComposeResult
from textual.containers import Container, Vertical
from textual.content import Content
from textual.widgets import Button, Static

from gpt2tui.preset.files import Setting
from gpt2tui.system.terminal_text import printable, sanitize
from gpt2tui.tui.preset_document import PresetDocument
from gpt2tui.tui.preset_editing import Checked
from gpt2tui.tui.setting_text import as_override
from gpt2tui.tui.widgets.preset_form import PresetForm
from gpt2tui.tui.widgets.setting_field import SettingField

TOOLS = {"Save as": "save_as", "Duplicate": "duplicate", "Rename": "rename", "Delete": "delete", "Revert": "revert"}
"""Buttons for the mouse, and the screen's actions that they do; keys and the palette have them all."""


class FormPane(Vertical):
    """Shows one document. What a person changes in the form comes as `SettingField.Changed`."""

    DEFAULT_CSS = """
    FormPane #preset-file { height: auto; max-height: 8; padding: 0 2; color: $text-warning; display: none; }
    FormPane #preset-file.-shown { display: block; }
    FormPane #preset-tools { height: 1; layout: horizontal; padding: 0 1; }
    FormPane #preset-tools Button { min-width: 4; margin: 0 1 0 0; background: transparent; color: $text-muted; }
    FormPane #preset-tools Button:hover { background: $foreground 10%; color: $foreground; }
    FormPane #setting-help { height: 6; padding: 0 2; border-top: solid $foreground 15%; }
    """

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self._document: PresetDocument | None = None
        self._titles = ("", "")

    def compose(self) -> ComposeResult:
        """Buttons, mistakes of the file, the form, help."""
        with Container(id="preset-tools"):
            for label, action in TOOLS.items():
                button = Button(label, compact=True, action=f"screen.{action}", id=f"tool-{action}")
                button.can_focus = False
                yield button
        yield Static("", id="preset-file", markup=False)
        yield PresetForm()
        yield Static("", id="setting-help", markup=False)

    @property
    def form(self) -> PresetForm:
        """The fields."""
        return self.query_one(PresetForm)

    @property
    def focused_field(self) -> SettingField | None:
        """The field in which one types."""
        return next((field for field in self.form.fields() if field.has_focus_within), None)

    def show(self, document: PresetDocument) -> None:
        """Shows another document, or what another file says; its values follow with `show_values`."""
        self._document = document
        lines = [document.unreadable] if document.unreadable else list(map(str, document.file_mistakes))
        notes = self.query_one("#preset-file", Static)
        notes.update(Content(sanitize("\n".join(lines))))
        notes.set_class(bool(lines), "-shown")
        self.form.disabled = bool(document.unreadable)
        self.form.display = not document.unreadable

    def show_values(self, checked: Checked) -> None:
        """The document's values as they are now, and what is wrong with them."""
        if self._document is None:
            return
        self.form.show(self._document.editing.values, self._document.editing.changed_keys)
        self.form.complain(checked.mistakes)
        self._show_title(self._document, len(checked.mistakes))

    def focus_next_mistake(self) -> None:
        """Goes to the next field that is wrong."""
        fields = self.form.fields()
        at = next((number for number, field in enumerate(fields) if field.has_focus_within), -1)
        wrong = [field for field in (*fields[at + 1 :], *fields[: at + 1]) if field.mistake]
        if wrong:
            wrong[0].editor.focus()

    @on(PresetForm.FieldFocused)
    def field_focused(self, message: PresetForm.FieldFocused) -> None:
        """Explains the setting at the bottom; what is typed in it is a step of its own."""
        if self._document is not None:
            self._document.editing.end_step()
        self.explain(message.setting)

    def explain(self, setting: Setting | None) -> None:
        """Help for a setting, and its form on the command line; else the preset's description."""
        if self._document is None:
            return
        values = self._document.editing.values
        if setting is None:
            words = Content(" ".join(sanitize(str(values["description"])).split()))
        else:
            override = printable(as_override(setting.key, values[setting.key]), 200)
            allowed = setting.allowed + ("; may be left out" if setting.default is None else "")
            words = Content.assemble(
                setting.help, "\n", (override, "$text-accent"), (f"  {allowed}", "$foreground 45%")
            )
        # Its size is fixed: a layout of the whole screen at each key would be felt.
        self.query_one("#setting-help", Static).update(words, layout=False)

    def _show_title(self, document: PresetDocument, wrong: int) -> None:
        count = len(document.editing.changed_keys)
        words = [printable(document.name, 40)]
        words += ["shipped, read-only"] if document.source.shipped else []
        words += [f"{count} unsaved change{'s' if count > 1 else ''}"] if count else []
        state = Content.styled("valid", "$text-success")
        if document.unreadable:
            state = Content.styled("cannot be read", "$text-error")
        elif wrong:
            state = Content.styled(f"{wrong} mistake{'s' if wrong > 1 else ''} · F8 next", "$text-error")
        title = " · ".join(words)
        if (title, state.plain) == self._titles:
            return  # a new title draws all of the form again
        self._titles = title, state.plain
        self.border_title, self.border_subtitle = Content(title), state
        for action in ("rename", "delete"):
            self.query_one(f"#tool-{action}").disabled = document.source.shipped
        self.query_one("#tool-revert").disabled = not count
