"""Values from outside, made fit for a line of a message: short, and nothing that a terminal obeys."""

from pathlib import Path
from typing import Any

from gpt2tui.terminal_text import sanitize

LONGEST_VALUE = 60


def printable(text: str | Path, longest: int = 4096) -> str:
    """The text as one harmless line, cut off after `longest` characters."""
    text = str(text)
    return sanitize(text[:longest], keep_newlines=False) + ("…" if len(text) > longest else "")


def printable_value(value: Any) -> str:
    """A value of TOML much as the file has it, at most about 60 characters."""
    match value:
        case str():
            return f'"{printable(value, LONGEST_VALUE)}"'
        case bool():
            return "true" if value else "false"
        case int() if abs(value) >= 10**40:  # Python refuses to print very long integers
            return "an integer of more than 40 digits"
        case list():
            return f"a list of {len(value)}"
        case dict():
            return "a table"
        case _:
            return printable(str(value), LONGEST_VALUE)  # numbers, dates and times
