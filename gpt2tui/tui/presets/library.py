"""The preset files of the workbench: reads files with mistakes, copies, renames and deletes, scans the folders.

Shipped presets are read-only; the user's own are in one folder.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from gpt2tui.errors import Gpt2TuiError, Mistake, PresetError, ResourceError
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.files import PresetSource, flat, settings, shipped_folder, user_folder
from gpt2tui.preset.layers import read_file, setting_values
from gpt2tui.preset.settings import Values, differences, tables
from gpt2tui.preset.starting_weights import with_starting_weights
from gpt2tui.preset.validation import validate
from gpt2tui.system.files import replace_text, sync_folder
from gpt2tui.system.numbers import compact
from gpt2tui.system.terminal_text import printable

ASSUMED_CHARACTERS = 128  # as in a dry run, where the vocabulary is not known before the corpus is read
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")

Stamp = tuple[int, int] | None
"""Modification time and size of a file; None where it does not exist."""


@dataclass(frozen=True)
class PresetFile:
    """The contents of a file: the values of settings, valid or not, and the keys that are not settings."""

    values: Values
    mistakes: tuple[Mistake, ...] = ()
    unknown: tuple[str, ...] = ()
    stamp: Stamp = field(default=None, compare=False)


def read_preset_file(path: Path) -> PresetFile:
    """Reads a preset file, valid or not. Raises PresetError where it cannot be read or is not TOML."""
    stamp = file_stamp(path)
    _, layer = read_file(path)
    preset, mistakes = validate(layer)
    if preset is not None:
        return PresetFile(flat(preset), stamp=stamp)
    known = {*(setting.key for setting in settings()), *tables()}
    unknown = tuple(dotted for key in layer if (dotted := ".".join(key)) not in known)
    return PresetFile(setting_values(with_starting_weights(layer)[0]), tuple(mistakes), unknown, stamp)


def file_stamp(path: Path) -> Stamp:
    """A value that changes when the file is written."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


def why_not_a_name(name: str, replaced: str | None = None) -> str | None:
    """Why a user's preset cannot have this name; None when it can. `replaced` is its present name, which is allowed."""
    if not name:
        return "a preset needs a name"
    if not NAME.fullmatch(name):
        return "use letters, digits, _ . + - (at most 100); start with a letter, a digit or _"
    if name.endswith(".toml"):
        return "leave .toml out; it is added"
    if name != replaced and path_of(name).exists():
        return f"you already have a preset called {name}"
    return None


def path_of(name: str) -> Path:
    """The file of the user's preset of this name."""
    return user_folder() / f"{name}.toml"


def is_shipped_name(name: str) -> bool:
    """Whether a shipped preset has this name; a user's preset of the same name is used in its place."""
    return (shipped_folder() / f"{name}.toml").exists()


def free_name(name: str) -> str:
    """A new name for a copy: `small-2`, `small-3`."""
    taken = {source.name for source in preset_files.available()}
    base = re.sub(r"-\d+$", "", name)
    number = 2
    while f"{base}-{number}" in taken or path_of(f"{base}-{number}").exists():
        number += 1
    return f"{base}-{number}"


def duplicate(source: PresetSource, name: str) -> Path:
    """Copies a file unchanged, with its comments, to a user's preset of another name."""
    target = path_of(name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_text(target, source.path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ResourceError(f"{printable(target)}: cannot be written: {error}") from error
    return target


def rename(source: PresetSource, name: str) -> Path:
    """Renames a user's file. Raises PresetError for a shipped preset or a name in use."""
    _refuse_shipped(source)
    reason = why_not_a_name(name, source.name)
    if reason:
        raise PresetError(reason)
    target = source.path.with_name(f"{name}.toml")
    if target.exists():
        raise PresetError(f"{printable(target)}: this file exists already; choose another name")
    try:
        source.path.rename(target)
        sync_folder(target.parent)
    except OSError as error:
        raise ResourceError(f"{printable(source.path)}: cannot be renamed: {error.strerror or error}") from error
    return target


def delete(source: PresetSource) -> None:
    """Deletes a user's file. Raises PresetError for a shipped preset."""
    _refuse_shipped(source)
    try:
        source.path.unlink(missing_ok=True)
        sync_folder(source.path.parent)
    except OSError as error:
        raise ResourceError(f"{printable(source.path)}: cannot be deleted: {error.strerror or error}") from error


def nearest_shipped(name: str, values: Values) -> tuple[str, Values] | None:
    """The shipped preset of this name, else the one with the fewest differences; None where none can be read."""
    found: list[tuple[str, Values]] = []
    for path in sorted(shipped_folder().glob("*.toml")):
        try:
            found.append((path.stem, flat(preset_files.check(path).preset)))
        except PresetError:
            continue
    return min(found, key=lambda pair: (pair[0] != name, len(differences(pair[1], values))), default=None)


def _refuse_shipped(source: PresetSource) -> None:
    if source.shipped or source.path.resolve().is_relative_to(shipped_folder().resolve()):
        raise PresetError(f"{source.name} is a shipped preset, which is read-only; duplicate it")


# ---- scanning the preset folders, in a thread


@dataclass(frozen=True)
class ScannedPreset:
    """A preset, its size in a few characters (empty while not known), and whether its file has mistakes."""

    source: PresetSource
    size: str = ""
    broken: bool = False
    parameters: int | None = None
    """The number of parameters, with ASSUMED_CHARACTERS where the corpus decides the vocabulary; None while unknown."""


class PresetScan:
    """Scans the folders; reads only files that have changed since the last scan."""

    def __init__(self) -> None:
        self._known: dict[tuple[PresetSource, Stamp], ScannedPreset] = {}

    def scan(self, extra: Iterable[PresetSource] = ()) -> list[ScannedPreset]:
        """All presets in the folders, and those of `extra` that still exist."""
        sources = preset_files.available()
        paths = {source.path for source in sources}
        elsewhere = [source for source in extra if source.path not in paths and source.path.exists()]
        found = {}
        for source in (*elsewhere, *sources):
            key = (source, file_stamp(source.path))
            found[key] = self._known.get(key) or _scan_file(source)
        self._known = found
        return list(found.values())


def _scan_file(source: PresetSource) -> ScannedPreset:
    try:
        preset = preset_files.check(source.path).preset
    except Gpt2TuiError:
        return ScannedPreset(source, broken=True)
    count = preset.known_parameters
    assumed = preset.with_vocab_size(preset.known_vocab_size or ASSUMED_CHARACTERS).model.parameter_count()
    return ScannedPreset(source, compact(count) if count else f"~{compact(assumed)}", parameters=assumed)
