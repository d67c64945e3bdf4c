"""Preset files: find, layer, override, validate, save. Every mistake is reported, with file, line and key."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gpt2tui.errors import CheckpointError, Mistake, PresetError
from gpt2tui.preset import Preset, TrainingTable
from gpt2tui.preset_catalog import PresetSource, available, find, shipped_folder, user_folder
from gpt2tui.preset_layers import Layer, merge, read_alone, read_chain, read_overrides
from gpt2tui.preset_settings import Setting, flat, json_schema, settings
from gpt2tui.preset_validation import validate
from gpt2tui.preset_writer import dumps, save, too_large, update
from gpt2tui.printable import printable

__all__ = [
    "LoadedPreset",
    "PresetSource",
    "Setting",
    "available",
    "check",
    "dumps",
    "find",
    "flat",
    "json_schema",
    "load",
    "load_frozen",
    "save",
    "settings",
    "shipped_folder",
    "update",
    "user_folder",
]


@dataclass(frozen=True)
class LoadedPreset:
    """A preset, its name (the last layer's), and the files it was made of, base first."""

    name: str
    preset: Preset
    layers: tuple[Path, ...]


def load(layers: Sequence[str | Path], overrides: Sequence[str] = (), *, frozen: Path | None = None) -> LoadedPreset:
    """The preset of these layers, names or paths; later ones win, and `KEY=VALUE` overrides win over all.

    A layer may be partial and may build on another with `extends = "name"` at its top; the schema's defaults
    are under all; `frozen`, the preset that a run or a checkpoint keeps, is under the layers. Raises PresetError with
    all mistakes in one message, a line each.
    """
    merged: Layer = _read_frozen(frozen) if frozen else {}
    files: list[Path] = [frozen] if frozen else []
    override_layer, malformed = read_overrides(overrides)
    named = bool(layers or frozen)
    unreadable = [] if named else [Mistake("no preset is named", suggestion="`gpt2tui presets list` shows them")]
    for layer in layers:
        try:
            paths, values, mistakes = read_chain(find(layer))
        except PresetError as error:
            unreadable += error.mistakes
        else:
            files += paths
            merged = merge(merged, values)
            unreadable += mistakes
    # What fits together cannot be told while the settings of a whole file are missing.
    preset, mistakes = validate(merge(merged, override_layer), is_whole=not unreadable)
    if malformed or unreadable or preset is None:
        raise PresetError(*malformed, *unreadable, *mistakes)
    reason = too_large(preset)
    if reason:
        raise PresetError(f"{files[-1].stem}: {reason}")
    return LoadedPreset(files[-1].stem, preset, tuple(files))


def check(path: Path) -> LoadedPreset:
    """One file as a preset by itself. Raises PresetError with all of its mistakes."""
    return load([path])


def load_frozen(path: Path) -> Preset:
    """The resolved preset that a run or a checkpoint keeps. It stands by itself, so no other file is read.

    Raises CheckpointError naming the file when it is missing, unreadable, extends another preset or is not valid.
    """
    shown = printable(path)
    if not path.exists():
        raise CheckpointError(f"{shown} is missing: the preset that was frozen when training began")
    try:
        preset, mistakes = validate(_read_frozen(path))
    except PresetError as error:
        preset, mistakes = None, list(error.mistakes)
    if preset is None:
        lines = [f"{shown} is not a frozen preset that this version can read:", *map(str, mistakes)]
        raise CheckpointError("\n".join(lines))
    return preset


def _read_frozen(path: Path) -> Layer:
    """A frozen preset's settings under today's names, whichever version wrote it. Raises PresetError.

    `training.eval_iterations` counted batches; `training.eval_tokens`, where the schema has it, counts the same tokens.
    """
    layer = read_alone(path)
    old, new = ("training", "eval_iterations"), ("training", "eval_tokens")
    if old in layer and "eval_tokens" in TrainingTable.model_fields:
        factors = [layer[key].value for key in (old, ("training", "batch_size"), ("training", "sequence_length"))]
        if all(type(factor) is int for factor in factors):
            layer[new] = replace(layer.pop(old), value=math.prod(factors))
    return layer
