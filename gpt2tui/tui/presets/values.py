"""A preset while it is edited: its values, valid or not, what they were, and the way back and forth."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gpt2tui.errors import Place
from gpt2tui.preset.files import too_large
from gpt2tui.preset.layers import Layer, SourcedValue
from gpt2tui.preset.schema import Preset
from gpt2tui.preset.settings import Values, differences, optional_tables, with_table
from gpt2tui.preset.validation import validate

MOST_STEPS = 500  # of undo; each shares all but one of its values with its neighbours


@dataclass(frozen=True)
class Checked:
    """The preset, or None and what is wrong with which setting, in the words of the command line."""

    preset: Preset | None
    mistakes: Mapping[str, str] = field(default_factory=dict)


def check(values: Values) -> Checked:
    """Validates as the command line does; what is wrong with no single setting stands at the description."""
    form = Place("form")
    layer: Layer = {
        tuple(key.split(".")): SourcedValue(value, form) for key, value in values.items() if value is not None
    }
    preset, found = validate(layer)
    if preset is not None:
        reason = too_large(preset)
        return Checked(None, {"description": reason}) if reason else Checked(preset)
    mistakes: dict[str, str] = {}
    for mistake in found:
        key = mistake.key or "description"
        mistakes[key] = f"{mistakes[key]}; {mistake.text}" if key in mistakes else mistake.text
    return Checked(None, mistakes)


class PresetEditing:
    """The values of one preset, with undo and redo of whole presets. Typing in one field is one step."""

    def __init__(self, saved: Values) -> None:
        self.saved: Values = dict(saved)
        self._values: Values = self.saved
        self._before: list[Values] = []
        self._after: list[Values] = []
        self._open: str | None = None

    @property
    def values(self) -> Values:
        """The values as they stand, valid or not."""
        return self._values

    @property
    def changed(self) -> bool:
        """Whether saving would change anything."""
        return self._values != self.saved

    @property
    def changed_keys(self) -> frozenset[str]:
        """The settings that are not as they were saved."""
        return frozenset(difference.key for difference in differences(self.saved, self._values))

    def set(self, key: str, value: Any) -> None:
        """Changes one setting. Changes of the same one in a row are one step, until `end_step`.

        An optional table comes with its defaults and takes its settings away.
        """
        if self._values[key] == value and type(self._values[key]) is type(value):
            return
        if self._open != key:
            self._remember()
            self._open = key
        if key in optional_tables():
            self._values = with_table(self._values, key, is_there=value)
        else:
            self._values = {**self._values, key: value}
        self._after.clear()

    def replace(self, values: Values) -> None:
        """Changes everything at once, as one step."""
        if values != self._values:
            self._remember()
            self._open = None
            self._values = dict(values)
            self._after.clear()

    def end_step(self) -> None:
        """The next change is per step of its own, also of the same setting."""
        self._open = None

    def undo(self) -> bool:
        """Goes one step back; False where there is none."""
        return self._step(self._before, self._after)

    def redo(self) -> bool:
        """Takes back one `undo`; False where there is none."""
        return self._step(self._after, self._before)

    def mark_saved(self, values: Values) -> None:
        """These values are in the file now. Undo still reaches behind the saving."""
        self.saved = dict(values)
        self._open = None

    def _step(self, source: list[Values], target: list[Values]) -> bool:
        self._open = None
        if not source:
            return False
        target.append(self._values)
        self._values = source.pop()
        return True

    def _remember(self) -> None:
        self._before.append(self._values)
        del self._before[:-MOST_STEPS]
