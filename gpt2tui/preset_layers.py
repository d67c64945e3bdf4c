"""One source of settings: a TOML file with the files it extends, or a command line's `--set` overrides."""

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpt2tui.errors import PresetError
from gpt2tui.preset_catalog import find_base, missing
from gpt2tui.printable import printable, printable_value
from gpt2tui.toml_positions import locate, nesting

MAX_BYTES = 32 * 1024  # tomllib's time grows with the square of some texts; the largest shipped preset has 2 KiB
MAX_NESTING = 16
MAX_EXTENDS = 8

Key = tuple[str, ...]


@dataclass(frozen=True)
class Placed:
    """A value and where it was written: a file and a line of it, or `--set` and no line."""

    value: Any
    source: str
    line: int | None = None

    @property
    def where(self) -> str:
        """`file:line`, or `--set`."""
        return self.source if self.line is None else f"{self.source}:{self.line}"

    def named(self, key: str) -> str:
        """The start of a message about a key that was written here."""
        return f"{self.source} {key}" if self.line is None else f"{self.where}:{key}"


Layer = dict[Key, Placed]


def read_file(path: Path) -> tuple[list[Path], Layer]:
    """A preset file over all that it extends: the files, base first, and their settings.

    Raises PresetError when one of the files cannot be read or is not TOML, and when they extend each other.
    """
    paths, layer, mistakes = read_chain(path)
    if mistakes:
        raise PresetError("\n".join(mistakes))
    return paths, layer


def read_chain(path: Path) -> tuple[list[Path], Layer, list[str]]:
    """`read_file` that goes on: the files and settings that could be read, and a message where one could not."""
    return _read_chain(path, ())


def read_alone(path: Path) -> Layer:
    """The settings of one file that must be complete by itself, so that no other file is ever read for it.

    Raises PresetError when it cannot be read, is not TOML or extends another.
    """
    layer, base = _read_layer(path)
    if base is not None:
        raise PresetError(f"{base.named('extends')}: a frozen preset is complete and extends nothing")
    return layer


def read_overrides(overrides: Sequence[str]) -> tuple[Layer, list[str]]:
    """The settings of `KEY=VALUE` texts, and a message for each text that is not of that form.

    A value is read as TOML; what is not TOML is a string, so `data.source=wikitext-2` needs no quotes.
    """
    layer: Layer = {}
    mistakes = []
    for override in overrides:
        name, equals, text = override.partition("=")
        key = tuple(part.strip() for part in name.split("."))
        if not equals:
            shown = printable(name, 200)
            mistakes.append(f'--set {shown}: has no "="; write --set {shown}=VALUE')
        elif len(override) > MAX_BYTES or len(key) > MAX_NESTING or nesting(text) > MAX_NESTING:
            mistakes.append(f"--set {printable(name, 200)}: too long or too deeply nested")
        else:
            layer = merge(layer, _flatten(_override_value(text), key, {}, "--set"))
    return layer, mistakes


def merge(base: Layer, over: Layer) -> Layer:
    """Both layers' settings; where they meet, the later one's, also where a value meets a table."""
    merged = dict(base)
    tables = {table for key in base for table in prefixes(key)}
    for key, placed in over.items():
        if key in tables:
            if placed.value == {}:
                continue  # an empty table takes nothing away
            merged = {other: value for other, value in merged.items() if other[: len(key)] != key}
            tables.discard(key)
        for table in prefixes(key):
            merged.pop(table, None)
            tables.add(table)
        merged[key] = placed
    return merged


def prefixes(key: Key) -> list[Key]:
    """The tables that a key stands in, outermost first."""
    return [key[:length] for length in range(1, len(key))]


def _override_value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except ValueError:
        return text
    return parsed["value"] if set(parsed) == {"value"} else text


def _read_chain(path: Path, extending: tuple[Path, ...]) -> tuple[list[Path], Layer, list[str]]:
    try:
        layer, base = _read_layer(path)
    except PresetError as error:
        return [], {}, [str(error)]
    if base is None:
        return [path], layer, []
    chain = (*extending, path.resolve())
    try:
        base_path = _base_path(base, path, chain)
    except PresetError as error:
        return [path], layer, [f"{base.named('extends')}: {error}"]
    paths, base_layer, mistakes = _read_chain(base_path, chain)
    return [*paths, path], merge(base_layer, layer), mistakes


def _read_layer(path: Path) -> tuple[Layer, Placed | None]:
    """The settings of one file, and apart from them what it says that it extends."""
    values, lines = _read_toml(path)
    extends = None
    if "extends" in values:
        extends = Placed(values.pop("extends"), printable(path), lines.get(("extends",)))
    layer = {
        key: placed for first in values for key, placed in _flatten(values[first], (first,), lines, str(path)).items()
    }
    return layer, extends


def _base_path(base: Placed, path: Path, chain: tuple[Path, ...]) -> Path:
    shown = printable_value(base.value)
    if not isinstance(base.value, str) or not base.value:
        raise PresetError(f"{shown} is not the name of a preset or a path to one")
    if len(chain) > MAX_EXTENDS:
        raise PresetError(f"more than {MAX_EXTENDS} presets extend one another")
    base_path = find_base(base.value, path)
    try:
        is_circular = base_path.resolve() in chain
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in it, links in a circle
        raise PresetError(f"{shown} is not a path ({printable(str(error), 200)})") from error
    if is_circular:
        raise PresetError(f"{shown} extends this preset in turn, which has no end")
    return base_path


def _read_toml(path: Path) -> tuple[dict[str, Any], dict[Key, int]]:
    shown = printable(path)
    try:
        if path.is_dir():
            raise PresetError(f"{shown}: this is a folder; a preset is a .toml file")
        if not path.exists():
            raise missing(path)
        if not path.is_file():  # a pipe or a device could block or never end
            raise PresetError(f"{shown}: not a regular file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PresetError(f"{shown}: cannot be read: {error.strerror or error}") from error
    if len(content) > MAX_BYTES:
        raise PresetError(f"{shown}: larger than {MAX_BYTES // 1024} KiB, which no preset is")
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise PresetError(f"{shown}:{line}: not UTF-8 text; save the file as UTF-8") from None
    if nesting(text) > MAX_NESTING:
        raise PresetError(f"{shown}: nested deeper than {MAX_NESTING} levels, which no preset is")
    try:
        return tomllib.loads(text), locate(text)
    except tomllib.TOMLDecodeError as error:
        raise PresetError(f"{shown}:{_syntax_error(str(error), text)}") from None
    except ValueError:  # Python refuses to read integers of thousands of digits
        raise PresetError(f"{shown}: holds a number too long to read") from None


def _syntax_error(message: str, text: str) -> str:
    position = re.search(r" \((?:at line (\d+), column \d+|at end of document)\)$", message)
    line = position[1] if position and position[1] else text.count("\n") + 1
    reason = message[: position.start()] if position else message
    return f"{line}: not TOML: {printable(reason, 200)}"


def _flatten(value: Any, key: Key, lines: dict[Key, int], source: str) -> Layer:
    return {path: Placed(leaf, printable(source), _line(path, lines)) for path, leaf in _leaves(value, key)}


def _leaves(value: Any, key: Key) -> Iterator[tuple[Key, Any]]:
    if isinstance(value, dict) and value:
        for name, below in value.items():
            yield from _leaves(below, (*key, name))
    else:
        yield key, value


def _line(key: Key, lines: dict[Key, int]) -> int | None:
    return next((lines[part] for part in (key, *reversed(prefixes(key))) if part in lines), None)
