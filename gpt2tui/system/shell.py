"""Command lines to paste into a shell."""

import os
import shlex
import subprocess
from collections.abc import Sequence


def shell_line(words: Sequence[str]) -> str:
    """The words as one line for the platform's shell; pasted, it can do nothing but run that command."""
    if os.name == "nt":
        return subprocess.list2cmdline(words)
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    """`word` for a POSIX shell. Pasted control characters take effect even inside quotes."""
    if word.isprintable():
        return shlex.quote(word)
    escaped = "".join(
        f"\\{character}"
        if character in "\\'"
        else character
        if character.isprintable()
        else "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))
        for character in word
    )
    return f"$'{escaped}'"
