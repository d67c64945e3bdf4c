"""What differs between two presets, setting by setting."""

from dataclasses import dataclass
from typing import Any

from gpt2tui.preset import Preset
from gpt2tui.preset_files import flat


@dataclass(frozen=True)
class Difference:
    """One setting that two presets have differently; None where a preset leaves it to the program."""

    key: str
    left: Any
    right: Any


def difference(left: Preset, right: Preset) -> list[Difference]:
    """The settings that differ, in the schema's order, by dotted key."""
    before, after = flat(left), flat(right)
    return [Difference(key, before[key], after[key]) for key in before if before[key] != after[key]]
