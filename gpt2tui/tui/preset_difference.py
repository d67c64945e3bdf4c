"""What differs between two presets, setting by setting."""

from dataclasses import dataclass
from typing import Any

from gpt2tui.preset import Preset


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


def flat(preset: Preset) -> dict[str, Any]:
    """The settings of a preset by dotted key."""
    settings: dict[str, Any] = {}
    for name, value in preset.model_dump().items():
        settings |= {f"{name}.{key}": v for key, v in value.items()} if isinstance(value, dict) else {name: value}
    return settings
