"""Preset files: find, layer, override, validate, save. Every mistake is reported, with file, line and key."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w

from gpt2tui.errors import CheckpointError, Mistake, PresetError, ResourceError
from gpt2tui.preset.catalog import PresetSource, available, find, shipped_folder, user_folder
from gpt2tui.preset.layers import (
    MAX_BYTES,
    Key,
    Layer,
    merge,
    parse,
    read_alone,
    read_chain,
    read_overrides,
    read_own,
    values,
)
from gpt2tui.preset.schema import Preset, TrainingTable
from gpt2tui.preset.settings import Setting, flat, json_schema, optional_tables, settings, tables, with_table
from gpt2tui.preset.validation import validate
from gpt2tui.system.files import replace_text
from gpt2tui.system.terminal_text import printable

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


# ---- a Preset -> TOML text -> a file that is either the old one or the new one, never half of it


def dumps(preset: Preset) -> str:
    """The preset as TOML: every setting in the schema's order, the same text for the same preset.

    What is None, left to the program, is left out: TOML has no null.
    """
    return tomli_w.dumps(preset.model_dump(exclude_none=True))


def too_large(preset: Preset) -> str | None:
    """Why the preset cannot be written to a file that would be read again; None when it can."""
    return _too_large(dumps(preset))


def save(preset: Preset, path: Path) -> None:
    """Write the preset so that a crash leaves the old file or the new one. A symbolic link is followed.

    Raises PresetError for the shipped presets, which are never written, and for a preset too large to be read
    again; ResourceError when the disk or the folder refuses.
    """
    _write(path, dumps(preset))


def update(preset: Preset, path: Path) -> str:
    """Write the preset over a file of the user's own; its comments, order, unchanged values and `extends` stay.

    The file gets only what it or its base says otherwise. Returns what could not be kept, in words, empty when all
    was. Raises as `save` does.
    """
    try:
        text, own, base = read_own(path)
    except PresetError:  # it is not there any more, or is not TOML
        save(preset, path)
        return ""
    wanted, lost = flat(preset), ""
    inherited = _inherited(base, wanted)
    unsaid = [key for key, value in wanted.items() if value is None and inherited[key] is not None]
    if unsaid:  # TOML has no null that would take a value of the base back
        lost = f"extends was taken out: over that preset, {' and '.join(unsaid)} cannot be left out"
        base = {}
    text = _edited(text, own, base, wanted, keeps_extends=not unsaid)
    if validate(merge(base, parse(path, text)[0]))[0] != preset:
        text, lost = dumps(preset), "its comments and what it extends could not be kept"
    _write(path, text)
    return lost


def _edited(text: str, own: Layer, base: Layer, wanted: Mapping[str, Any], keeps_extends: bool) -> str:
    """A file's text with the settings as they are wanted; unreliable where a table is in pieces."""
    import tomlkit  # 25 ms that nothing else has to wait for
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(text)
        if not keeps_extends:
            document.pop("extends")
        for table in optional_tables():
            _edit_optional(document, table, values(base)[table], wanted[table])
        _edit(document, own, _inherited(base, wanted), wanted)
        return tomlkit.dumps(document)
    except TOMLKitError:
        return text


def _inherited(base: Layer, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The values over this base where a file says nothing, with the optional tables as they are wanted."""
    inherited = values(base)
    for table in optional_tables():
        if inherited[table] != wanted[table]:
            inherited = with_table(inherited, table, wanted[table])
    return inherited


def _edit(document: Any, own: Layer, inherited: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Takes out of a file what is no setting, and gives settings their value that had another."""
    keys = {tuple(dotted.split(".")): value for dotted, value in wanted.items() if dotted not in optional_tables()}
    for key, placed in own.items():
        is_table = key in {(table,) for table in tables()} and isinstance(placed.value, dict)
        if key not in keys and not is_table and key not in {(table,) for table in optional_tables()}:
            _put(document, key if key[0] in tables() else key[:1], None)
    for key, value in keys.items():
        before = own[key].value if key in own else inherited[".".join(key)]
        if before != value or isinstance(before, bool) != isinstance(value, bool):
            _put(document, key, value)


def _edit_optional(document: Any, table: str, is_inherited: bool, is_wanted: bool) -> None:
    """Makes a file say whether an optional table is there, where its base or the file says otherwise."""
    if not is_wanted or isinstance(document.get(table), bool):
        document.pop(table, None)
    if is_wanted and not is_inherited:
        document.setdefault(table, {})
    if is_inherited and not is_wanted:
        document[table] = False


def _put(document: Any, key: Key, value: Any) -> None:
    """Sets a key of a TOML document, or takes it out where the value is None."""
    from tomlkit.items import Table

    table = document
    for name in key[:-1]:
        if not isinstance(table.get(name), dict):
            if value is None:
                return
            table[name] = {}
        table = table[name]
    if value is None:
        table.pop(key[-1], None)
        return
    body = table.value.body if isinstance(table, Table) and key[-1] not in table else []
    end = len(body)
    while end and body[end - 1][0] is None:
        end -= 1
    behind = body[end:]  # blank lines, and comments that are about the next table
    del body[end:]
    table[key[-1]] = value
    body += behind


def _write(path: Path, text: str) -> None:
    path = path.resolve()
    if path.is_relative_to(shipped_folder().resolve()):
        raise PresetError(f"{printable(path)}: the shipped presets are not written; save under another folder")
    reason = _too_large(text)
    if reason:
        raise PresetError(f"{printable(path)}: {reason}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, text)
    except OSError as error:
        raise ResourceError(f"{printable(path)}: cannot be written: {error.strerror or error}") from error


def _too_large(text: str) -> str | None:
    size = len(text.encode())
    if size <= MAX_BYTES:
        return None
    return f"{size:,} bytes as a file, and a preset may have {MAX_BYTES:,}; shorten its longest texts"
