"""The user's own keys and colours: `keys.toml` and `themes/*.toml` in the configuration folder.

A line of keys.toml is `"presets.save" = "ctrl+w"`: the name of an action with its screen, and the keys that run it. A
theme has the fields of Textual's Theme: primary and, if wanted, secondary, background, dark, variables and so on. What
is wrong in a file is reported and left out; nothing is raised.
"""

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_type_hints

from textual.binding import Binding, BindingType
from textual.color import Color, ColorParseError
from textual.theme import Theme

from gpt2tui.system.files import config_folder

THEME_FIELDS = get_type_hints(Theme)
COLOURS = frozenset(
    field.name for field in dataclasses.fields(Theme) if "str" in str(field.type) and field.name not in ("name",)
) - {"variables"}


def named_bindings(place: str, bindings: Iterable[BindingType]) -> list[BindingType]:
    """The bindings, each with the id by which keys.toml names it, as `presets.save` or `app.go.presets`."""
    return [
        dataclasses.replace(binding, id=binding.id or f"{place}.{_plain(binding.action)}")
        for binding in Binding.make_bindings(bindings)
    ]


def _plain(action: str) -> str:
    return re.sub(r"[^a-z0-9_]+", ".", action.removeprefix("app.").lower()).strip(".")


def load_keymap(path: Path | None = None) -> tuple[dict[str, str], list[str]]:
    """The keys by the ids of bindings, and what is wrong with the file."""
    path = path or config_folder() / "keys.toml"
    table, problems = _read(path)
    keymap: dict[str, str] = {}
    for name, keys in table.items():
        if isinstance(keys, str) and keys.strip():
            keymap[name] = ",".join(key.strip() for key in keys.split(","))
        else:
            problems.append(f'{path.name}: {name} needs keys in quotes, such as "{name}" = "ctrl+w"')
    return keymap, problems


def load_themes(folder: Path | None = None) -> tuple[list[Theme], list[str]]:
    """The themes of the folder, each with the name of its file, and what is wrong with the others."""
    themes: list[Theme] = []
    problems: list[str] = []
    for path in sorted((folder or config_folder() / "themes").glob("*.toml")):
        table, wrong = _read(path)
        wrong += [] if wrong else _theme_problems(path.name, table)
        problems += wrong
        if not wrong:
            themes.append(Theme(**{**table, "name": path.stem}))
    return themes, problems


def _theme_problems(name: str, table: dict[str, Any]) -> list[str]:
    problems = [] if "primary" in table else [f"{name}: a theme needs primary, a colour such as #0178d4"]
    for key, value in table.items():
        if key not in THEME_FIELDS:
            problems.append(f"{name}: {key} is no part of a theme")
        elif key in COLOURS:
            try:
                Color.parse(value)
            except (ColorParseError, TypeError, AttributeError):
                problems.append(f"{name}: {key} is no colour; write one such as #0178d4")
        elif key == "dark" and not isinstance(value, bool):
            problems.append(f"{name}: dark is true or false")
        elif key == "variables" and not (isinstance(value, dict) and all(isinstance(v, str) for v in value.values())):
            problems.append(f"{name}: variables is a table of texts")
        elif key in ("luminosity_spread", "text_alpha") and not isinstance(value, int | float):
            problems.append(f"{name}: {key} is a number")
    return problems


def _read(path: Path) -> tuple[dict[str, Any], list[str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}, []
    except (OSError, UnicodeDecodeError) as error:
        return {}, [f"{path.name}: cannot be read: {error}"]
    import tomllib  # most users have no such file, and the first paint waits for this

    try:
        return tomllib.loads(text), []
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        return {}, [f"{path.name}: cannot be read: {error}"]
