"""Preset files: find, layer, override, validate, save. Every mistake is reported, with file, line and key."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt2tui.errors import PresetError
from gpt2tui.preset import Preset
from gpt2tui.preset_catalog import PresetSource, available, find, shipped_folder, user_folder
from gpt2tui.preset_layers import Layer, merge, read_file, read_overrides
from gpt2tui.preset_settings import Setting, json_schema, settings
from gpt2tui.preset_validation import validate
from gpt2tui.preset_writer import dumps, save, too_large

__all__ = [
    "LoadedPreset",
    "PresetSource",
    "Setting",
    "available",
    "check",
    "dumps",
    "find",
    "json_schema",
    "load",
    "save",
    "settings",
    "shipped_folder",
    "user_folder",
]


@dataclass(frozen=True)
class LoadedPreset:
    """A preset, its name (the last layer's), and the files it was made of, base first."""

    name: str
    preset: Preset
    layers: tuple[Path, ...]


def load(layers: Sequence[str | Path], overrides: Sequence[str] = ()) -> LoadedPreset:
    """The preset of these layers, names or paths; later ones win, and `KEY=VALUE` overrides win over all.

    A layer may be partial and may build on another with `extends = "name"` at its top; the schema's defaults
    are under all. Raises PresetError with all mistakes in one message, a line each.
    """
    if not layers:
        raise PresetError("no preset is named; `gpt2tui presets list` shows them")
    merged: Layer = {}
    files: list[Path] = []
    override_layer, mistakes = read_overrides(overrides)
    for layer in layers:
        try:
            paths, values = read_file(find(layer))
        except PresetError as error:
            mistakes.append(str(error))
        else:
            files += paths
            merged = merge(merged, values)
    if mistakes:
        raise PresetError("\n".join(mistakes))
    preset, mistakes = validate(merge(merged, override_layer))
    if preset is None:
        raise PresetError("\n".join(mistakes))
    reason = too_large(preset)
    if reason:
        raise PresetError(f"{files[-1].stem}: {reason}")
    return LoadedPreset(files[-1].stem, preset, tuple(files))


def check(path: Path) -> LoadedPreset:
    """One file as a preset by itself. Raises PresetError with all of its mistakes."""
    return load([path])
