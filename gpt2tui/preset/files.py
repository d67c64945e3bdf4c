"""Preset files: find, layer, override, validate, save. Every mistake is reported, with file, line and key."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w

from gpt2tui.errors import CheckpointError, Mistake, Place, PresetError, ResourceError
from gpt2tui.preset.catalog import PresetSource, available, find, shipped_folder, user_folder
from gpt2tui.preset.layers import (
    LEFT_OUT,
    MAX_BYTES,
    Key,
    Layer,
    Overrides,
    SourcedValue,
    adapted,
    leaves,
    merge,
    parse,
    read_chain,
    read_for_editing,
    read_overrides,
    read_settings,
    read_standalone,
    setting_values,
    with_source_beside,
)
from gpt2tui.preset.schema import MIX, Preset
from gpt2tui.preset.settings import Setting, flat, json_schema, optional_tables, settings, tables, with_table
from gpt2tui.preset.starting_weights import INIT_FROM, with_starting_weights
from gpt2tui.preset.validation import validate
from gpt2tui.system.files import replace_text
from gpt2tui.system.terminal_text import escape_controls, printable

__all__ = [
    "LoadedPreset",
    "Overrides",
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
    "what_defaults_give",
    "with_weights",
]


@dataclass(frozen=True)
class LoadedPreset:
    """A preset, its name (that of the last layer), and the files it was read from, base first."""

    name: str
    preset: Preset
    layers: tuple[Path, ...]
    is_partial: bool = False
    """Whether no layer and no override has a setting of [model], so that the schema's defaults decide its shape."""


def load(
    layers: Sequence[str | Path | Mapping[str, Any]], overrides: Overrides = (), *, frozen: Path | None = None
) -> LoadedPreset:
    """The preset of these layers: names, paths, or mappings of settings; later layers win, and overrides win over all.

    A layer may be partial and may build on another with `extends = "name"` at its top. The description is that of the
    last layer; a vocabulary size and a prompt do not outlast the tokenizer and the corpus that they were written for.
    A preset of mappings alone is named "custom". The order is: the schema's defaults, `frozen` (the preset of a run or
    a checkpoint), the layers, the overrides. Raises PresetError, whose message has one line for each mistake.
    """
    merged: Layer = _read_frozen(frozen) if frozen else {}
    files: list[Path] = [frozen] if frozen else []
    override_layer, malformed = read_overrides(overrides)
    is_named = bool(layers or frozen)
    unreadable = [] if is_named else [Mistake("no preset is named", suggestion="`gpt2tui presets list` lists them")]
    for layer in layers:
        try:
            paths, settings_of_layer, mistakes = _read_layer(layer)
        except PresetError as error:
            unreadable += error.mistakes
        else:
            files += paths
            if not frozen:
                merged = adapted(merged, settings_of_layer)
                merged.pop(("description",), None)
            merged = merge(merged, settings_of_layer)
            unreadable += mistakes
    if not frozen:
        merged = adapted(merged, override_layer)
    merged = {key: sourced for key, sourced in merge(merged, override_layer).items() if sourced.value is not None}
    # Whether settings fit each other is not known while those of a whole file are missing.
    preset, mistakes = validate(merged, is_whole=not unreadable, is_frozen=frozen is not None)
    if malformed or unreadable or preset is None:
        raise PresetError(*malformed, *unreadable, *mistakes)
    name = files[-1].stem if files else "custom"
    reason = too_large(preset)
    if reason:
        raise PresetError(f"{name}: {reason}")
    is_partial = not any(key[0] == "model" for key in (*merged, *override_layer))
    return LoadedPreset(name, preset, tuple(files), is_partial)


def _read_layer(layer: str | Path | Mapping[str, Any]) -> tuple[list[Path], Layer, list[Mistake]]:
    """The files, settings and mistakes of one layer and of those it extends. Raises PresetError."""
    if not isinstance(layer, Mapping):
        return read_chain(find(layer))
    own = read_settings({name: value for name, value in layer.items() if name != "extends"})
    if (base := layer.get("extends")) is None:
        return [], own, []
    paths, below, mistakes = read_chain(find(base))
    return paths, merge(adapted(below, own), own), mistakes


def check(path: Path) -> LoadedPreset:
    """Loads one file as a preset. Raises PresetError with all of its mistakes."""
    return load([path])


def what_defaults_give(preset: Preset) -> str:
    """What a partial preset trains by itself, and how it is meant to be used."""
    count = preset.known_parameters
    size = f"{count:,} parameters" if count else "a size that depends on the corpus"
    return (
        f"it has no [model] and no extends, so by itself it has the defaults' shape, {size}, on {preset.data.source}; "
        "name the preset that it changes before it, or in its extends"
    )


def load_frozen(path: Path) -> Preset:
    """The resolved preset of a run or a checkpoint. It is complete, so no other file is read.

    Raises CheckpointError naming the file when it is missing, unreadable, extends another preset or is not valid.
    """
    shown = printable(path)
    if not path.exists():
        raise CheckpointError(f"{shown} is missing: it is the preset that the run was trained with")
    try:
        preset, mistakes = validate(_read_frozen(path), is_frozen=True)
    except PresetError as error:
        preset, mistakes = None, list(error.mistakes)
    if preset is None:
        lines = [f"{shown} is not a frozen preset that this version can read:", *map(str, mistakes)]
        raise CheckpointError("\n".join(lines))
    return preset


def with_weights(preset: Preset, folder: Path) -> Preset:
    """The preset with shape and tokenizer of the model in the folder that its `model.init_from` means.

    What is not set in it is filled in. Raises PresetError naming what is set to something else.
    """
    place = Place(preset.model.init_from or str(folder))
    values = preset.model_dump(exclude_unset=True, exclude_none=True)
    layer = {key: SourcedValue(value, place) for key, value in leaves(values, ())}
    filled, mistakes = validate(layer, weights=folder)
    if filled is None:
        raise PresetError(*(replace(mistake, place=None) for mistake in mistakes))
    return filled


def _read_frozen(path: Path) -> Layer:
    """A frozen preset's settings under the names of this version. Raises PresetError.

    Older versions have `training.eval_iterations`, in batches, which becomes `training.eval_tokens`, in tokens.
    """
    layer = read_standalone(path)
    old, new = ("training", "eval_iterations"), ("training", "eval_tokens")
    if old in layer:
        factors = [layer[key].value for key in (old, ("training", "batch_size"), ("training", "sequence_length"))]
        if all(type(factor) is int for factor in factors):
            layer[new] = replace(layer.pop(old), value=math.prod(factors))
    return layer


# ---- writing


def dumps(preset: Preset) -> str:
    """The preset as TOML: every setting in the schema's order.

    Settings that are None are left out, because TOML has no null. Characters that a terminal obeys or hides are written
    as escapes, so that the text can be printed and still has every one of them.
    """
    return escape_controls(tomli_w.dumps(preset.model_dump(exclude_none=True)))


def too_large(preset: Preset) -> str | None:
    """Why the preset's file would be too large to read again; None when it is not."""
    return _too_large(dumps(preset))


def save(preset: Preset, path: Path) -> None:
    """Writes the preset atomically: a crash leaves the old file or the new one. Follows a symbolic link.

    Raises PresetError for a shipped preset, which is read-only, and for a preset too large to be read again;
    ResourceError when the file cannot be written.
    """
    _write(path, dumps(preset))


def update(preset: Preset, path: Path) -> str:
    """Writes the preset over a user's file and keeps its comments, order, unchanged values and `extends`.

    Changes only settings that differ from the file and its base. Returns a message about what could not be kept,
    empty when everything was. Raises as `save` does.
    """
    try:
        text, own, base = read_for_editing(path)
    except PresetError:  # it is missing or not TOML
        save(preset, path)
        return ""
    wanted, lost = flat(preset), ""
    text = _edited(text, own, base, wanted)
    if validate(merge(base, with_source_beside(parse(path, text)[0], path)))[0] != preset:
        text, lost = dumps(preset), "its comments and what it extends could not be kept"
    _write(path, text)
    return lost


def _edited(text: str, own: Layer, base: Layer, wanted: Mapping[str, Any]) -> str:
    """A file's text with the wanted settings; tomlkit gets it wrong where a table is in several parts."""
    import tomlkit  # takes 25 ms, so only when needed
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(text)
        for table in optional_tables():
            _edit_optional_table(document, table, setting_values(base)[table], wanted[table])
        _edit_settings(document, own, _inherited(base, wanted), wanted)
        return tomlkit.dumps(document)
    except TOMLKitError:
        return text


def _inherited(base: Layer, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a file gets from this base where it says nothing, with the wanted optional tables."""
    values = setting_values(base)
    if (reference := wanted["model.init_from"]) is not None:
        filled, _ = with_starting_weights({**base, INIT_FROM: SourcedValue(reference, Place("preset"))})
        values = {**setting_values(filled), "model.init_from": values["model.init_from"]}
    for table in optional_tables():
        if values[table] != wanted[table]:
            values = with_table(values, table, wanted[table])
    return values


def _edit_settings(document: Any, own: Layer, inherited: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Removes keys that are not settings, and writes the settings whose values differ."""
    keys = {tuple(dotted.split(".")): value for dotted, value in wanted.items() if dotted not in optional_tables()}
    for key, sourced in own.items():
        is_table = key in {(table,) for table in tables()} and isinstance(sourced.value, dict)
        if key not in keys and not is_table and key not in {(table,) for table in optional_tables()}:
            _put(document, key if key[0] in tables() else key[:1], None)
    for key, value in keys.items():
        base = inherited[".".join(key)]
        before = own[key].value if key in own else base
        if key == ("data", "mix") and isinstance(before, list):
            before = [{"weight": 1.0, **each} if isinstance(each, dict) else each for each in before]
        if key == ("data", "source") and value == MIX:  # which needs not be written
            _put(document, key, None)
            continue
        if value is None and base is not None:
            value = LEFT_OUT
        if before != value or isinstance(before, bool) != isinstance(value, bool):
            _put(document, key, value)


def _edit_optional_table(document: Any, table: str, is_inherited: bool, is_wanted: bool) -> None:
    """Switches an optional table on or off in a file, where its base or the file says otherwise."""
    if not is_wanted or isinstance(document.get(table), bool):
        document.pop(table, None)
    if is_wanted and not is_inherited:
        document.setdefault(table, {})
    if is_inherited and not is_wanted:
        document[table] = False


def _put(document: Any, key: Key, value: Any) -> None:
    """Sets a key of a TOML document, or removes it where the value is None."""
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
    trailing = body[end:]  # blank lines, and comments that belong to the next table
    del body[end:]
    table[key[-1]] = value
    body += trailing


def _write(path: Path, text: str) -> None:
    path = path.resolve()
    if path.is_relative_to(shipped_folder().resolve()):
        raise PresetError(f"{printable(path)}: shipped presets are read-only; save in another folder")
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
    return f"its file would have {size:,} bytes, and at most {MAX_BYTES:,} are allowed; shorten its longest texts"
