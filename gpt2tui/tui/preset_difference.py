"""What differs between two presets, setting by setting."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpt2tui.preset.files import flat
from gpt2tui.preset.schema import Preset

Values = Mapping[str, Any]
"""A value for the dotted key of every setting; None where it is left out, as all of an optional table may be."""


@dataclass(frozen=True)
class Difference:
    """One setting that two presets have differently; None where a preset leaves it to the program."""

    key: str
    left: Any
    right: Any


def differences(left: Values, right: Values) -> list[Difference]:
    """The settings whose values differ, in the order of the schema."""
    return [Difference(key, left[key], right[key]) for key in left if left[key] != right[key]]


def difference(left: Preset, right: Preset) -> list[Difference]:
    """`differences` of two presets."""
    return differences(flat(left), flat(right))
