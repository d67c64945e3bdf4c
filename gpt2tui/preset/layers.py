"""Layers of settings with the places where they were written: from TOML files, `--set` overrides and Python."""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpt2tui.errors import Mistake, Place, PresetError
from gpt2tui.preset import source as sources
from gpt2tui.preset.catalog import find_base, missing_file, shipped_folder
from gpt2tui.preset.schema import EXAMPLE_COLUMNS, MIX
from gpt2tui.preset.settings import defaults, may_be_left_out, optional_tables, settings, with_table
from gpt2tui.system.terminal_text import printable, printable_value

MAX_BYTES = 32 * 1024  # tomllib's time grows with the square of some texts; the largest shipped preset has 2 KiB
MAX_NESTING = 16
MAX_EXTENDS = 8

LEFT_OUT = "auto"
"""The value that leaves a setting out again which a lower layer sets; TOML has no null."""

Key = tuple[str, ...]

_OF_ONE_FILE: tuple[Key, ...] = (("description",), ("sampling", "prompt"))
"""Settings that a preset does not inherit from the one it extends."""
_DEPENDENT: tuple[tuple[Key, Key], ...] = (
    (("data", "tokenizer"), ("model", "vocab_size")),
    (("data", "source"), ("sampling", "prompt")),
)
"""A setting, and one that is made for its value: with another value it is left out, unless it is set too."""
_SOURCE, _MIX = ("data", "source"), ("data", "mix")
"""A layer that names one of them has it instead of the other in the layers below."""
_COLUMNS = (("text_column",), ("prompt_column", "completion_column"), ("messages_column",))
"""The columns of [data] that a layer names instead of those of another kind in the layers below it."""


@dataclass(frozen=True)
class SourcedValue:
    """A value and where it was written."""

    value: Any
    place: Place


Layer = dict[Key, SourcedValue]
Overrides = Sequence[str] | Mapping[str, Any]
"""`KEY=VALUE` texts, or settings as Python has them: see `read_settings`."""


def read_file(path: Path) -> tuple[list[Path], Layer]:
    """A preset file merged over those it extends: the files, base first, and their settings.

    Raises PresetError when one of the files cannot be read or is not TOML, and when they extend each other.
    """
    paths, layer, mistakes = read_chain(path)
    if mistakes:
        raise PresetError(*mistakes)
    return paths, layer


def read_chain(path: Path) -> tuple[list[Path], Layer, list[Mistake]]:
    """Like `read_file`, but with a list of mistakes beside what could be read, instead of an error."""
    return _read_chain(path, ())


def read_standalone(path: Path) -> Layer:
    """The settings of one file that must be complete by itself; no other file is read.

    Raises PresetError when it cannot be read, is not TOML or extends another file.
    """
    layer, base = parse(path, _read_text(path))
    if base is not None:
        raise PresetError(_wrong_base(base, "a frozen preset is complete and extends nothing"))
    return layer


def read_for_editing(path: Path) -> tuple[str, Layer, Layer]:
    """The text of a file, the settings in it, and those of the files it extends.

    Raises PresetError when one of the files cannot be read or is not TOML, and when they extend each other.
    """
    text = _read_text(path)
    own, base = parse(path, text)
    own = with_source_beside(own, path)
    if base is None:
        return text, own, {}
    return text, own, inherited(read_file(_base_path(base, path, (path.resolve(),)))[1], own)


def read_settings(settings_in_python: Mapping[str, Any]) -> Layer:
    """The settings of a mapping: dotted keys, tables, or both: `{"optimizer.lr": 1e-3, "training": {"seed": 3}}`.

    None leaves a setting out, as if no layer below had it. Paths become texts, and numbers of numpy and torch Python's.
    """
    place, layer = Place("settings"), Layer()
    for name, value in settings_in_python.items():
        found = leaves(_plain(value), tuple(part.strip() for part in str(name).split(".")))
        layer = merge(layer, {key: SourcedValue(leaf, place) for key, leaf in found})
    return layer


def _plain(value: Any) -> Any:
    """A value of Python as TOML would have it."""
    if isinstance(value, Mapping):
        return {str(name): _plain(below) for name, below in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if hasattr(value, "item") else value


def read_overrides(overrides: Overrides) -> tuple[Layer, list[Mistake]]:
    """The settings of `KEY=VALUE` texts or of a mapping, and a mistake for each malformed text.

    A text's value is read as TOML; what is not TOML is a string, so `data.source=wikitext-2` needs no quotes.
    """
    if isinstance(overrides, Mapping):
        return read_settings(overrides), []
    layer: Layer = {}
    mistakes = []
    place = Place("--set")
    for override in overrides:
        name, equals, text = override.partition("=")
        key, shown = tuple(part.strip() for part in name.split(".")), printable(name, 200)
        if not name.isascii():
            mistakes.append(Mistake("is not a setting: their names are ASCII", shown, place=place))
        elif not equals:
            suggestion = f"write --set {shown}=VALUE"
            mistakes.append(Mistake('has no "="', shown, suggestion=suggestion, place=place))
        elif len(override) > MAX_BYTES or len(key) > MAX_NESTING or nesting_depth(text) > MAX_NESTING:
            mistakes.append(Mistake("too long or too deeply nested", shown, place=place))
        else:
            layer = merge(layer, {path: SourcedValue(leaf, place) for path, leaf in leaves(_override_value(text), key)})
    return layer, mistakes


def merge(base: Layer, over: Layer) -> Layer:
    """The settings of both layers; `over` wins, also where one has a value and the other a table of that name."""
    merged = dict(base)
    tables = {table for key in base for table in prefixes(key)}
    for key, sourced in over.items():
        if key in tables:
            if sourced.value == {} or (sourced.value is True and ".".join(key) in optional_tables()):
                continue  # an empty table changes nothing
            merged = {other: value for other, value in merged.items() if other[: len(key)] != key}
            tables.discard(key)
        for table in prefixes(key):
            merged.pop(table, None)
            tables.add(table)
        merged[key] = sourced
    return merged


def inherited(base: Layer, own: Layer) -> Layer:
    """What a file with the settings `own` gets from the preset that it extends."""
    return {key: sourced for key, sourced in adapted(base, own).items() if key not in _OF_ONE_FILE}


def adapted(base: Layer, over: Layer) -> Layer:
    """The base without what belongs to another tokenizer, corpus or kind of rows than those of `over`."""
    dropped = {
        dependent
        for cause, dependent in _DEPENDENT
        if cause in base and cause in over and base[cause].value != over[cause].value
    }
    for one, other in ((_SOURCE, _MIX), (_MIX, _SOURCE)):
        if one in over and other in base and over[one].value not in (None, MIX, []):
            dropped |= {other, ("sampling", "prompt")}
    for columns in _COLUMNS:
        if any(over[key].value not in (None, LEFT_OUT) for name in columns if (key := ("data", name)) in over):
            dropped |= {("data", name) for other in _COLUMNS if other != columns for name in other}
    return {key: sourced for key, sourced in base.items() if key not in dropped}


def without_left_out(layer: Layer) -> Layer:
    """The settings without those whose value "auto" leaves them out."""
    return {
        key: sourced
        for key, sourced in layer.items()
        if sourced.value != LEFT_OUT or ".".join(key) not in may_be_left_out()
    }


def setting_values(layer: Layer) -> dict[str, Any]:
    """The value of every setting by dotted key, valid or not, else the schema's default; None where left out."""
    layer = without_left_out(layer)
    found = defaults()
    for table in optional_tables():
        is_off = (table,) in layer and layer[(table,)].value is False
        if not is_off and any(key[0] == table for key in layer):
            found = with_table(found, table, is_there=True)
    for setting in settings():
        sourced = layer.get(tuple(setting.key.split(".")))
        if sourced is not None and not setting.is_table:
            found[setting.key] = sourced.value
    if found["data.mix"] and _SOURCE not in layer:
        found["data.source"] = MIX
    if ("data", "text_column") not in layer and any(found[f"data.{name}"] for name in EXAMPLE_COLUMNS):
        found["data.text_column"] = None
    if ("training", "sequence_length") not in layer:
        found["training.sequence_length"] = found["model.n_positions"]
    return found


def prefixes(key: Key) -> list[Key]:
    """The tables that contain a key, outermost first."""
    return [key[:length] for length in range(1, len(key))]


def _override_value(text: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
    except ValueError:
        return text
    return parsed["value"] if set(parsed) == {"value"} else text


def _read_chain(path: Path, extending: tuple[Path, ...]) -> tuple[list[Path], Layer, list[Mistake]]:
    try:
        layer, base = parse(path, _read_text(path))
        layer = with_source_beside(layer, path)
    except PresetError as error:
        return [], {}, list(error.mistakes)
    if base is None:
        return [path], layer, []
    chain = (*extending, path.resolve())
    try:
        base_path = _base_path(base, path, chain)
    except PresetError as error:
        return [path], layer, [_wrong_base(base, str(error))]
    paths, base_layer, mistakes = _read_chain(base_path, chain)
    return [*paths, path], merge(inherited(base_layer, layer), layer), mistakes


def with_source_beside(layer: Layer, path: Path) -> Layer:
    """The settings of a preset file, with a relative `data.source` relative to that file's folder.

    The same holds for a relative path in `model.init_from`. Unchanged in shipped presets, and where that folder has no
    such path: then it is relative to the working folder. So are the sources of a mix.
    """
    if path.is_relative_to(shipped_folder()):
        return layer
    folder = path.absolute().parent
    for key in (("data", "source"), ("model", "init_from")):
        if key in layer and sources.is_path(layer[key].value):
            layer = {**layer, key: replace(layer[key], value=_beside(layer[key].value, folder))}
    if _MIX in layer and isinstance(layer[_MIX].value, list):
        mix = [
            {**each, "source": _beside(each["source"], folder)}
            if isinstance(each, dict) and sources.is_path(each.get("source"))
            else each
            for each in layer[_MIX].value
        ]
        layer = {**layer, _MIX: replace(layer[_MIX], value=mix)}
    return layer


def _beside(source: str, folder: Path) -> str:
    """A path below the folder, where there is one."""
    beside = sources.absolute(source, folder)
    return beside if sources.exists(beside) else source


def parse(path: Path, text: str) -> tuple[Layer, SourcedValue | None]:
    """The settings in a file's text, and separately its value of `extends`, if any.

    Raises PresetError when it is not TOML.
    """
    values, lines = _parse_toml(path, text)
    layer = {
        key: SourcedValue(leaf, Place(printable(path), _line(key, lines)))
        for first, value in values.items()
        for key, leaf in ([((first,), value)] if first == "extends" else leaves(value, (first,)))
    }
    return layer, layer.pop(("extends",), None)


def _wrong_base(base: SourcedValue, message: str) -> Mistake:
    return Mistake(message, "extends", base.value, place=base.place)


def _base_path(base: SourcedValue, path: Path, chain: tuple[Path, ...]) -> Path:
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
        raise PresetError(f"{shown} extends this preset in turn: a preset cannot extend itself")
    return base_path


def _parse_toml(path: Path, text: str) -> tuple[dict[str, Any], dict[Key, int]]:
    if nesting_depth(text) > MAX_NESTING:
        raise _unreadable(path, f"nested deeper than {MAX_NESTING} levels, which no preset is")
    try:
        return tomllib.loads(text), key_lines(text)
    except tomllib.TOMLDecodeError as error:
        position = re.search(r" \((?:at line (\d+), column \d+|at end of document)\)$", str(error))
        line = int(position[1]) if position and position[1] else text.count("\n") + 1
        reason = str(error)[: position.start()] if position else str(error)
        is_bare_text = re.search(r"=\s*[~./\w]", text.split("\n")[line - 1]) and reason.startswith("Invalid value")
        hint = "write texts in quotes" if is_bare_text else ""
        if path.suffix != ".toml":
            hint = _as_a_text(path)
        raise _unreadable(path, f"not TOML: {printable(reason, 200)}", hint, line) from None
    except ValueError:  # Python refuses to read integers of thousands of digits
        raise _unreadable(path, "holds a number too long to read") from None


def _read_text(path: Path) -> str:
    try:
        if path.is_dir():
            raise _unreadable(path, "this is a folder", _as_a_text(path))
        if not path.exists():
            raise missing_file(path)
        if not path.is_file():  # a pipe or a device could block or never end
            raise _unreadable(path, "not a regular file")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, f"cannot be read: {error.strerror or error}") from error
    if len(content) > MAX_BYTES:
        raise _unreadable(path, f"larger than {MAX_BYTES // 1024} KiB, which no preset is", _as_a_text(path))
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        hint = "save the file as UTF-8" if path.suffix == ".toml" else _as_a_text(path)
        raise _unreadable(path, "not UTF-8 text", hint, line) from None


def _as_a_text(path: Path) -> str:
    """The hint for what is no preset but probably the text to train on."""
    return f"a preset is a .toml file; a text to train on is a setting, data.source={printable(path)}"


def _unreadable(path: Path, message: str, suggestion: str = "", line: int | None = None) -> PresetError:
    return PresetError(Mistake(message, suggestion=suggestion, place=Place(printable(path), line)))


def leaves(value: Any, key: Key) -> Iterator[tuple[Key, Any]]:
    """Each value in nested tables with its key, below `key`; an empty table is a value."""
    if isinstance(value, dict) and value:
        for name, below in value.items():
            yield from leaves(below, (*key, name))
    else:
        yield key, value


def _line(key: Key, lines: dict[Key, int]) -> int | None:
    return next((lines[part] for part in (key, *reversed(prefixes(key))) if part in lines), None)


# ---- the line of each key of a TOML file, and its nesting depth, which `tomllib` does not report

# An unterminated multi-line string runs to the end of the text, so that no position is ever scanned twice.
_TOKEN = re.compile(
    r'''
    (?P<string> """ (?:\\.?|[^\\])*? (?:"{3,5}|\Z) | \'{3} .*? (?:\'{3,5}|\Z)
              | " (?:\\[^\n]|[^"\\\n])* " | ' [^'\n]* ' )
    | (?P<comment> \#[^\n]* )
    | (?P<mark> [\[\]{}=,.\n] )
    | [^\[\]{}=,.\n"'\#]+ | .
    ''',
    re.VERBOSE | re.DOTALL,
)
_OPENING, _CLOSING = frozenset("[{"), frozenset("]}")


def nesting_depth(text: str) -> int:
    """The most brackets open at once, or the most dots in one key, whichever is larger."""
    deepest = brackets = dots = 0
    for token in _TOKEN.finditer(text):
        mark = token["mark"]
        if mark is None:
            continue
        dots = dots + 1 if mark == "." else 0
        brackets = max(0, brackets + (mark in _OPENING) - (mark in _CLOSING))
        deepest = max(deepest, brackets, dots)
    return deepest


def key_lines(text: str) -> dict[tuple[str, ...], int]:
    """The line, counted from 1, of every key and table header of a text that `tomllib` accepts.

    Keys are full paths: `lr` under `[optimizer]` is `("optimizer", "lr")`. The keys of an inline table have the
    line where its statement begins.
    """
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for line, statement in _statements(text):
        paths = list(_paths(tomllib.loads(statement)))
        if statement.lstrip().startswith("["):
            table = paths[-1]
            lines.setdefault(table, line)
        else:
            lines |= {table + path: line for path in paths}
    return lines


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """(line, text) of every table header and every `key = value`, values over several lines included."""
    brackets, statement, line, first_line = 0, "", 1, 1
    for token in _TOKEN.finditer(text + "\n"):
        mark = token["mark"]
        if mark == "\n" and brackets == 0:
            if statement.strip():
                yield first_line, statement
            statement, first_line = "", line + 1
        elif not token["comment"]:
            brackets += (mark in _OPENING) - (mark in _CLOSING)
            statement += token[0]
        line += token[0].count("\n")


def _paths(values: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        yield (key,)
        if isinstance(value, dict):
            for path in _paths(value):
                yield (key, *path)
