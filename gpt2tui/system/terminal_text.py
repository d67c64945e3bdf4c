"""Text from outside made safe to print: model output, file names, presets, error messages.

GPT-2's vocabulary holds every byte, so a model can write ESC or OSC 52 (which sets the clipboard), and a file
name can hold anything but a slash. Control characters become visible signs; invisible ones are removed.
"""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

LONGEST_VALUE = 60
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_PICTURES = {code: chr(0x2400 + code) for code in range(0x20)} | {0x7F: "\N{SYMBOL FOR DELETE}"}
_C1_AND_SURROGATES = dict.fromkeys((*range(0x80, 0xA0), *range(0xD800, 0xE000)), _REPLACEMENT)
_UNICODE_LINE_BREAKS = dict.fromkeys((0x2028, 0x2029), "\N{SYMBOL FOR NEWLINE}")

# Unicode's format characters (category Cf) that print nothing: they reorder, hide or smuggle text. Kept are
# the two joiners, without which Persian, Hindi and emoji are misspelt, and the signs that are visible.
_INVISIBLE_RANGES = (
    (0x00AD, 0x00AD),  # soft hyphen
    (0x061C, 0x061C),  # Arabic letter mark
    (0x180E, 0x180E),  # Mongolian vowel separator
    (0x200B, 0x200B),  # zero-width space
    (0x200E, 0x200F),  # left-to-right and right-to-left marks
    (0x202A, 0x202E),  # bidirectional embeddings and overrides
    (0x2060, 0x206F),  # word joiner, invisible operators, bidirectional isolates
    (0xFEFF, 0xFEFF),  # byte order mark
    (0xFFF9, 0xFFFB),  # interlinear annotations
    (0x13430, 0x1343F),  # Egyptian hieroglyph joiners
    (0x1BCA0, 0x1BCA3),  # shorthand format controls
    (0x1D173, 0x1D17A),  # musical beams and slurs
    (0xE0000, 0xE0FFF),  # tags and supplementary variation selectors, which can carry a hidden message
)
_INVISIBLE = {code: None for first, last in _INVISIBLE_RANGES for code in range(first, last + 1)}

_ONE_LINE = _PICTURES | _C1_AND_SURROGATES | _UNICODE_LINE_BREAKS | _INVISIBLE
_MANY_LINES = {code: sign for code, sign in _ONE_LINE.items() if chr(code) not in "\n\t"}
_NOTHING = dict.fromkeys(_ONE_LINE, "")


def sanitize(text: str, keep_newlines: bool = True) -> str:
    """`text` with nothing in it that styles, moves, reorders or otherwise controls a terminal.

    C0 controls and DEL become their U+2400 pictures; C1 controls and lone surrogates (from undecodable file
    names) become U+FFFD; line and paragraph separators become U+2424; invisible format characters, the
    bidirectional ones among them, are removed. Newlines and tabs stay unless `keep_newlines` is false; then
    they become pictures too and the result is one line. Idempotent; never longer than `text`.
    """
    return text.translate(_MANY_LINES if keep_newlines else _ONE_LINE)


def drop_controls(text: str) -> str:
    """`text` without the characters that `sanitize` would replace or remove, newlines and tabs among them.

    For text that already has its place in a line, where a sign in place of what took no cell would move the rest.
    """
    return text if text.isprintable() else text.translate(_NOTHING)


def escape_controls(toml: str) -> str:
    r"""TOML with escapes (\uXXXX) for the characters that `sanitize` would change; it reads as the same values.

    Such characters can only stand in strings, where TOML has these escapes.
    """
    if toml.isascii():
        return toml
    return "".join(c if sanitize(c) == c else f"\\U{ord(c):08X}" for c in toml)


# ---- values in messages


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


# ---- the border: everything that the program prints goes through it


class GuardedStream:
    """A text stream that sanitizes what is written to it, and is the stream it guards in all other respects.

    The only way past it is `unguarded`, for styles of our own; text from elsewhere needs no care before it is printed.
    """

    def __init__(self, stream: TextIO) -> None:
        self.guarded = stream

    def write(self, text: str) -> int:
        """Writes the text without what a terminal would obey; returns the length of the text."""
        self.guarded.write(sanitize(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes each of the lines."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.guarded, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.guarded)


def guard_streams() -> None:
    """Puts the guard in front of `sys.stdout` and `sys.stderr`, unless it is there already."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, GuardedStream):
            setattr(sys, name, GuardedStream(stream))


def unguarded(stream: Any) -> Any:
    """The stream behind the guard, for output that holds only our own control sequences and sanitized text."""
    return stream.guarded if isinstance(stream, GuardedStream) else stream


Report = Callable[[str], None]
"""Reports in one line what went wrong with a subscriber; never raises."""


def report_on_stderr(message: str) -> None:
    """A message as one line on stderr; never raises."""
    print_on_stderr(f"gpt2tui: {sanitize(message, keep_newlines=False)}")


def print_on_stderr(text: str) -> None:
    """Prints text on stderr, which only narrates: a closed pipe, a full disk or no stderr at all changes nothing.

    `sys.stderr` is read anew each time, so that a live display that stands in for it is respected. RuntimeError is
    what a signal handler gets that interrupted another write to stderr.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError, RuntimeError):
        sys.stderr.write(sanitize(text) + "\n")
        sys.stderr.flush()
