"""The form of a preset, made from the schema: a field for each setting, under the TOML tables."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar

from textual import events, on
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input, Static

from gpt2tui.preset.files import Setting, settings
from gpt2tui.preset.settings import defaults, optional_tables
from gpt2tui.tui.preset_difference import Values
from gpt2tui.tui.widgets.setting_field import SettingField

FIRST_TABLES = {"", "model", "data", "optimizer"}


class PresetForm(VerticalScroll, can_focus=False):
    """All settings. It shows what it is told and posts `SettingField.Changed`; it knows nothing of files."""

    DEFAULT_CSS = """
    PresetForm { scrollbar-size-vertical: 1; }
    PresetForm > SettingField.-table { margin: 1 0 0 0; }
    PresetForm > .form-table { color: $text-primary; text-style: bold; height: 1; margin: 1 0 0 0; padding: 0 2; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "app.focus_previous", "Previous field", show=False),
        Binding("down", "app.focus_next", "Next field", show=False),
        Binding("pageup", "page(-1)", "Table before", show=False),
        Binding("pagedown", "page(1)", "Next table", show=False),
    ]

    @dataclass
    class FieldFocused(Message):
        """Another setting has the focus."""

        setting: Setting

    def __init__(self) -> None:
        super().__init__()
        self._fields: dict[str, SettingField] = {}
        self._values: Values = defaults()
        self._changed: Collection[str] = ()
        self._mistakes: Mapping[str, str] = {}

    def on_mount(self) -> None:
        """The fields come when the screen has been painted, those that one sees first: it is there sooner for it."""
        self.call_after_refresh(self._mount_first)

    async def _mount_first(self) -> None:
        await self._mount_tables(FIRST_TABLES)
        self.call_after_refresh(self._mount_others)

    async def _mount_others(self) -> None:
        await self._mount_tables({setting.table for setting in settings()} - FIRST_TABLES)

    async def _mount_tables(self, names: Collection[str]) -> None:
        """A line for each table, and its fields."""
        made: list[Widget] = []
        for table, members in groupby(settings(), key=lambda setting: setting.table):
            if table not in names:
                continue
            if table and table not in optional_tables():
                made.append(Static(f"[{table}]", markup=False, classes="form-table"))
            for setting in members:
                self._fields[setting.key] = SettingField(setting, self._values[setting.key])
                made.append(self._fields[setting.key])
        await self.mount_all(made)
        self.show(self._values, self._changed)
        self.complain(self._mistakes)

    def show(self, values: Values, changed: Collection[str]) -> None:
        """Shows these values, those of `changed` marked."""
        self._values, self._changed = values, changed
        for field in self.fields():
            field.show(values[field.setting.key], field.setting.key in changed)
            field.display = field.setting.is_table or values.get(field.setting.table, True)

    def complain(self, mistakes: Mapping[str, str]) -> None:
        """Shows each mistake under its field."""
        self._mistakes = mistakes
        for field in self.fields():
            field.complain(mistakes.get(field.setting.key, ""))

    def fields(self) -> list[SettingField]:
        """The fields in the schema's order."""
        return list(self._fields.values())

    def field(self, key: str) -> SettingField:
        """The field of a setting."""
        return self._fields[key]

    def focus_field(self, key: str | None = None) -> None:
        """Puts the focus into a field, else into the first below the description."""
        field = self._fields.get(key or settings()[1].key)
        if field is not None:  # it may not be there yet
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
            self.scroll_to(y=field.virtual_region.y - 1, animate=False)  # with the table's name above it

    @on(Input.Submitted)
    def go_on(self, event: Input.Submitted) -> None:
        """Enter goes on to the next field."""
        event.stop()
        self.screen.focus_next()

    @on(events.DescendantFocus)
    def tell_focused(self, event: events.DescendantFocus) -> None:
        """Tells whose field has the focus now."""
        field = next((node for node in event.widget.ancestors_with_self if isinstance(node, SettingField)), None)
        if field is not None:
            self.post_message(self.FieldFocused(field.setting))
