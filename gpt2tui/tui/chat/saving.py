"""Saves the transcript: asks for a file name, and asks again before it overwrites a file."""

from collections.abc import Callable
from pathlib import Path

from gpt2tui.errors import ResourceError
from gpt2tui.tui.widgets.dialogs import AnyApp, ConfirmDialog, TextDialog


async def ask_and_write(app: AnyApp, title: str, question: str, suggested: str, text: Callable[[], str]) -> Path | None:
    """Asks for a file name, writes the text, returns the path; None when the user cancels. To be awaited in a worker.

    `suggested` is the file name to begin with. Raises ResourceError where the file cannot be written.
    """
    name = await app.push_screen_wait(TextDialog(title, question, suggested, validate=_name_error))
    if not name:
        return None
    path = Path(name.strip()).expanduser()
    if path.exists():
        dialog = ConfirmDialog("Overwrite?", f"{path} exists already.", "Keep it", "!Overwrite")
        if await app.push_screen_wait(dialog) != "!Overwrite":
            return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text(), encoding="utf-8", newline="\n")
    except (OSError, ValueError) as error:
        raise ResourceError(f"{path}: {error}") from error
    return path


def _name_error(name: str) -> str | None:
    if not name.strip():
        return "a file needs a name"
    return "this is a folder" if Path(name.strip()).expanduser().is_dir() else None
