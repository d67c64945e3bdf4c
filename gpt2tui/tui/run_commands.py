"""The commands that repeat a run or go on with it, as one pastes them into a shell."""

import itertools
import os
import shlex
import subprocess
from pathlib import Path

from gpt2tui.run.folder import Run
from gpt2tui.tui.run_listing import RunRow


def repeat_command(run: Run) -> str:
    """Trains the same model again into a folder of its own.

    The run's frozen preset is named, not the presets of the first command line: those may have changed since, and a
    run that was started from a form was never on a command line. A time budget is already turned into iterations in it.
    """
    return shell_line(
        ["gpt2tui", "--headless", "--preset", str(run.preset_file), "--run-dir", str(_free_folder(run.folder))]
    )


def resume_command(run: Run) -> str:
    """Goes on with the run from its newest valid checkpoint."""
    return shell_line(["gpt2tui", "--headless", "--resume", str(run.folder)])


def longer_command(row: RunRow) -> str:
    """Goes on with a run that has done all its steps, for as many again."""
    return f"{resume_command(row.run)} --set training.num_iterations={2 * row.summary.step}"


def shell_line(words: list[str]) -> str:
    """The words as one line for the platform's shell; pasted, it can do nothing but run that command."""
    if os.name == "nt":
        return subprocess.list2cmdline(words)
    return " ".join(map(_quoted, words))


def _quoted(word: str) -> str:
    """`word` for a POSIX shell. Control characters would act while one pastes them, inside quotes too."""
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


def _free_folder(folder: Path) -> Path:
    """A name beside `folder` at which there is nothing yet."""
    for number in itertools.count(2):
        candidate = folder.with_name(f"{folder.name}-repeat{number if number > 2 else ''}")
        if not candidate.exists():
            return candidate
    raise AssertionError("there are infinitely many numbers")
