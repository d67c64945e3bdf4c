"""The values of a preset that is being edited, valid or not, with undo and redo."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gpt2tui.errors import CheckpointError, Place
from gpt2tui.preset.files import too_large
from gpt2tui.preset.layers import Layer, SourcedValue
from gpt2tui.preset.schema import MIX, Preset
from gpt2tui.preset.settings import Values, differences, optional_tables, with_table
from gpt2tui.preset.starting_weights import local_folder, values_in
from gpt2tui.preset.validation import validate

MAX_UNDO_STEPS = 500  # each shares all but one of its values with the next


@dataclass(frozen=True)
class Checked:
    """The preset, or None and the mistake of each wrong setting, in the words of the command line."""

    preset: Preset | None
    mistakes: Mapping[str, str] = field(default_factory=dict)


def unused_settings(values: Values) -> Mapping[str, str]:
    """The settings that the others leave without effect, and why; their values are kept and saved."""
    unused: dict[str, str] = {}
    if values["optimizer.name"] == "adamw":
        reason = 'used only with optimizer.name = "muon"'
        unused |= {"optimizer.muon_lr": reason, "optimizer.muon_momentum": reason}
    if values["schedule.name"] == "constant":
        unused["schedule.min_lr"] = 'without effect with schedule.name = "constant"'
    if values["schedule.name"] != "wsd":
        unused["schedule.decay_fraction"] = 'used only with schedule.name = "wsd"'
    if values["tracking.wandb"] == "disabled":
        reason = 'without effect with tracking.wandb = "disabled"'
        unused |= {f"tracking.{name}": reason for name in ("project", "run_name", "tags")}
    return unused


def check_values(values: Values) -> Checked:
    """Validates as the command line does; a mistake without a key is put at the description."""
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


def _of_weights(reference: str, values: Values) -> dict[str, Any]:
    """What the weights determine, and a sequence_length that fits; nothing where they are not on this machine."""
    try:
        folder = local_folder(reference)
        found = values_in(folder) if folder else {}
    except CheckpointError:
        return {}
    length = values["training.sequence_length"]
    if found and isinstance(length, int) and length > found["model.n_positions"]:
        found["training.sequence_length"] = found["model.n_positions"]
    return found


class PresetEditing:
    """The values of one preset, with undo and redo. Typing in one field is one step."""

    def __init__(self, saved: Values) -> None:
        self.saved: Values = dict(saved)
        self._values: Values = self.saved
        self._undo_steps: list[Values] = []
        self._redo_steps: list[Values] = []
        self._open_step: str | None = None

    @property
    def values(self) -> Values:
        """The current values, valid or not."""
        return self._values

    @property
    def changed(self) -> bool:
        """Whether saving would change anything."""
        return self._values != self.saved

    @property
    def changed_keys(self) -> frozenset[str]:
        """The settings whose values are not saved."""
        return frozenset(difference.key for difference in differences(self.saved, self._values))

    def set(self, key: str, value: Any) -> None:
        """Changes one setting. Successive changes of the same setting are one step, until `end_step`.

        An optional table that is switched on gets its defaults; switched off, it loses its settings. Weights to start
        from that are on this machine set shape and tokenizer, and a mix takes the place of the one source.
        """
        if self._values[key] == value and type(self._values[key]) is type(value):
            return
        if self._open_step != key:
            self._push_undo()
            self._open_step = key
        if key in optional_tables():
            self._values = with_table(self._values, key, is_there=value)
        elif key == "model.init_from" and value:
            before = self._undo_steps[-1]  # without what a part of the name has filled in
            self._values = {**before, key: value, **_of_weights(value, before)}
        elif key == "data.mix":
            source = self._values["data.source"]
            source = MIX if value else Preset().data.source if source == MIX else source
            self._values = {**self._values, key: value, "data.source": source}
        else:
            self._values = {**self._values, key: value}
        self._redo_steps.clear()

    def replace(self, values: Values) -> None:
        """Replaces all values, as one step."""
        if values != self._values:
            self._push_undo()
            self._open_step = None
            self._values = dict(values)
            self._redo_steps.clear()

    def end_step(self) -> None:
        """Makes the next change a new step, even if it is of the same setting."""
        self._open_step = None

    def undo(self) -> bool:
        """Undoes one step; False where there is none."""
        return self._step(self._undo_steps, self._redo_steps)

    def redo(self) -> bool:
        """Redoes one step; False where there is none."""
        return self._step(self._redo_steps, self._undo_steps)

    def mark_saved(self, values: Values) -> None:
        """Marks these values as saved. Earlier steps can still be undone."""
        self.saved = dict(values)
        self._open_step = None

    def _step(self, source: list[Values], target: list[Values]) -> bool:
        self._open_step = None
        if not source:
            return False
        target.append(self._values)
        self._values = source.pop()
        return True

    def _push_undo(self) -> None:
        self._undo_steps.append(self._values)
        del self._undo_steps[:-MAX_UNDO_STEPS]
