"""The form of a preset, made from the schema: a field for each setting, grouped by TOML table."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Button, Input, Static

from gpt2tui.preset.files import Setting, settings
from gpt2tui.preset.schema import VOCAB_SIZES
from gpt2tui.preset.settings import Values, defaults, optional_tables
from gpt2tui.system.numbers import counted
from gpt2tui.system.terminal_text import printable, sanitize
from gpt2tui.tui.presets import library as preset_library
from gpt2tui.tui.presets.document import PresetDocument
from gpt2tui.tui.presets.field import SettingField, as_override
from gpt2tui.tui.presets.values import Checked, unused_settings

FIRST_TABLES = LEFT_TABLES = {"", "model", "data", "optimizer"}
"""The tables that are mounted first, and where there is room for two columns stand in the left one."""


class PresetForm(VerticalScroll, can_focus=False):
    """The fields of all settings. Posts `SettingField.Changed`."""

    DEFAULT_CSS = """
    PresetForm { scrollbar-size-vertical: 1; }
    PresetForm .form-column { height: auto; width: 1fr; }
    PresetForm SettingField.-table { margin: 1 0 0 0; }
    PresetForm .form-table { color: $text-primary; text-style: bold; height: 1; margin: 1 0 0 0; padding: 0 2; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "app.focus_previous", "Previous field", show=False),
        Binding("down", "app.focus_next", "Next field", show=False),
        Binding("pageup", "page(-1)", "Previous table", show=False),
        Binding("pagedown", "page(1)", "Next table", show=False),
    ]

    @dataclass
    class FieldFocused(Message):
        """The focus has moved to another setting."""

        setting: Setting

    def __init__(self) -> None:
        super().__init__()
        self._fields: dict[str, SettingField] = {}
        self._values: Values = defaults()
        self._changed: Collection[str] = ()
        self._mistakes: Mapping[str, str] = {}

    def compose(self) -> ComposeResult:
        """Two columns, one below the other unless the screen is wide."""
        yield Vertical(classes="form-column -left")
        yield Vertical(classes="form-column")

    def on_mount(self) -> None:
        """Mounts the fields after the first paint, the visible ones first, so that the screen opens sooner."""
        self.call_after_refresh(self._mount_first)

    async def _mount_first(self) -> None:
        await self._mount_tables(FIRST_TABLES)
        self.call_after_refresh(self._mount_others)

    async def _mount_others(self) -> None:
        await self._mount_tables({setting.table for setting in settings()} - FIRST_TABLES)

    async def _mount_tables(self, names: Collection[str]) -> None:
        """Mounts the titles and fields of these tables."""
        made: list[tuple[str, Widget]] = []  # with its table
        for table, members in groupby(settings(), key=lambda setting: setting.table):
            if table not in names:
                continue
            if table and table not in optional_tables():
                made.append((table, Static(f"[{table}]", markup=False, classes="form-table")))
            for setting in members:
                self._fields[setting.key] = SettingField(setting, self._values[setting.key])
                made.append((table, self._fields[setting.key]))
        for column in self.query(".form-column"):
            wanted = [widget for first, widget in made if (first in LEFT_TABLES) == column.has_class("-left")]
            await column.mount_all(wanted)
        self.show(self._values, self._changed)
        self.show_mistakes(self._mistakes)

    def show(self, values: Values, changed: Collection[str]) -> None:
        """Shows these values and marks those in `changed`."""
        self._values, self._changed = values, changed
        unused = unused_settings(values)
        size = VOCAB_SIZES.get(str(values["data.tokenizer"]))
        for field in self.fields():
            if field.setting.key == "model.vocab_size" and isinstance(field.editor, Input):
                field.editor.placeholder = f"auto ({size:,})" if size else "auto"
            field.show(values[field.setting.key], field.setting.key in changed, unused.get(field.setting.key, ""))
            field.display = field.setting.is_table or values.get(field.setting.table, True)

    def show_mistakes(self, mistakes: Mapping[str, str]) -> None:
        """Shows each mistake below its field."""
        self._mistakes = mistakes
        for field in self.fields():
            field.show_mistake(mistakes.get(field.setting.key, ""))

    def fields(self) -> list[SettingField]:
        """The fields in the schema's order."""
        return list(self._fields.values())

    def field(self, key: str) -> SettingField:
        """The field of a setting."""
        return self._fields[key]

    def focus_field(self, key: str | None = None) -> None:
        """Focuses a field, by default the first after the description."""
        field = self._fields.get(key or settings()[1].key)
        if field is not None:  # it may not be mounted yet
            field.editor.focus()

    def action_page(self, by: int) -> None:
        """Goes to the first field of the next table, or of the one before."""
        fields = self.fields()
        at = next((number for number, field in enumerate(fields) if field.has_focus_within), 0)
        firsts = [
            number
            for number, field in enumerate(fields)
            if number == 0 or field.setting.table != fields[number - 1].setting.table
        ]
        beyond = [number for number in firsts if (number > at if by > 0 else number < at)]
        if beyond:
            field = fields[beyond[0] if by > 0 else beyond[-1]]
            field.editor.focus(scroll_visible=False)
            column = list(field.parent.children) if field.parent else []
            above = column[max(0, column.index(field) - 1)]
            self.scroll_to_widget(above if isinstance(above, Static) else field, top=True, animate=False)

    @on(Input.Submitted)
    def focus_next(self, event: Input.Submitted) -> None:
        """Enter moves to the next field."""
        event.stop()
        self.screen.focus_next()

    @on(events.DescendantFocus)
    def announce_focus(self, event: events.DescendantFocus) -> None:
        """Posts which setting has the focus now."""
        field = next((node for node in event.widget.ancestors_with_self if isinstance(node, SettingField)), None)
        if field is not None:
            self.post_message(self.FieldFocused(field.setting))


# ---- the pane around the form: title, buttons, the file's mistakes, help

TOOLS = {"Save as": "save_as", "Duplicate": "duplicate", "Rename": "rename", "Delete": "delete", "Revert": "revert"}
"""Buttons for the mouse, and the screen's actions that they run; all have keys too."""


class FormPane(Vertical):
    """Shows one document. Changes by the user are posted as `SettingField.Changed`."""

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
        """The buttons, the mistakes of the file, the form and the help."""
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
        """The form."""
        return self.query_one(PresetForm)

    @property
    def focused_field(self) -> SettingField | None:
        """The field with the focus."""
        return next((field for field in self.form.fields() if field.has_focus_within), None)

    def show(self, document: PresetDocument) -> None:
        """Shows a document and the mistakes of its file; its values follow with `show_values`."""
        self._document = document
        lines = [document.unreadable] if document.unreadable else list(map(str, document.file_mistakes))
        notes = self.query_one("#preset-file", Static)
        notes.update(Content(sanitize("\n".join(lines))))
        notes.set_class(bool(lines), "-shown")
        self.form.disabled = bool(document.unreadable)
        self.form.display = not document.unreadable

    def show_values(self, checked: Checked) -> None:
        """Shows the document's current values and their mistakes."""
        if self._document is None:
            return
        self.form.show(self._document.editing.values, self._document.editing.changed_keys)
        self.form.show_mistakes(checked.mistakes)
        self._show_title(self._document, len(checked.mistakes))

    def focus_next_mistake(self) -> None:
        """Moves to the next field with a mistake."""
        fields = self.form.fields()
        at = next((number for number, field in enumerate(fields) if field.has_focus_within), -1)
        wrong = [field for field in (*fields[at + 1 :], *fields[: at + 1]) if field.mistake]
        if wrong:
            wrong[0].editor.focus()

    @on(PresetForm.FieldFocused)
    def field_focused(self, message: PresetForm.FieldFocused) -> None:
        """Shows help for the setting, and begins a new undo step."""
        if self._document is not None:
            self._document.editing.end_step()
        self.show_help(message.setting)

    def show_help(self, setting: Setting | None) -> None:
        """Shows help for a setting and its `--set` option; for None, the preset's description."""
        if self._document is None:
            return
        values = self._document.editing.values
        if setting is None:
            words = Content(" ".join(sanitize(str(values["description"])).split()))
        else:
            override = printable(as_override(setting.key, values[setting.key]), 200)
            allowed = setting.allowed + ("; may be left empty" if setting.default is None else "")
            unused = unused_settings(values).get(setting.key, "")
            words = Content.assemble(
                (f"{unused[:1].upper()}{unused[1:]}. " if unused else "", "$text-warning"),
                setting.help,
                "\n",
                (override, "$text-accent"),
                (f"  {allowed}", "$foreground 45%"),
            )
        # Its size is fixed, and a layout of the whole screen at each key would be noticeable.
        self.query_one("#setting-help", Static).update(words, layout=False)

    def _show_title(self, document: PresetDocument, wrong: int) -> None:
        count = len(document.editing.changed_keys)
        words = [printable(document.name, 40)]
        if document.source.shipped:
            words.append("shipped, read-only")
        elif preset_library.is_shipped_name(document.name):
            words.append("overrides shipped")
        words += [counted(count, "unsaved change")] if count else []
        state = Content.styled("valid", "$text-success")
        if document.unreadable:
            state = Content.styled("cannot be read", "$text-error")
        elif wrong:
            state = Content.styled(f"{counted(wrong, 'error')} · F8 next", "$text-error")
        title = " · ".join(words)
        if (title, state.plain) == self._titles:
            return  # setting a title redraws the whole form
        self._titles = title, state.plain
        self.border_title, self.border_subtitle = Content(title), state
        for action in ("rename", "delete"):
            self.query_one(f"#tool-{action}").disabled = document.source.shipped
        self.query_one("#tool-revert").disabled = not count
