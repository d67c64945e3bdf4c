"""Where in a TOML file each key stands, and how deep the file nests: what `tomllib` does not tell.

One linear pass over the text knows strings and comments from structure, so neither function can be made slow.
"""

import re
import tomllib
from collections.abc import Iterator
from typing import Any

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


def nesting(text: str) -> int:
    """How deep the text nests: the most brackets open at once, or the most dots in one key."""
    deepest = brackets = dots = 0
    for token in _TOKEN.finditer(text):
        mark = token["mark"]
        if mark is None:
            continue
        dots = dots + 1 if mark == "." else 0
        brackets = max(0, brackets + (mark in _OPENING) - (mark in _CLOSING))
        deepest = max(deepest, brackets, dots)
    return deepest


def locate(text: str) -> dict[tuple[str, ...], int]:
    """The line, counted from 1, of every key and table header of a text that `tomllib` accepts.

    Keys are full paths: `lr` under `[optimizer]` is `("optimizer", "lr")`. The keys of an inline table stand
    on the line where its statement begins.
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
