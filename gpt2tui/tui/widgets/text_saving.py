"""Asks for a file and writes a text into it; what is there is only overwritten after a question."""

from collections.abc import Callable
from pathlib import Path

from gpt2tui.errors import ResourceError
from gpt2tui.tui.widgets.dialogs import AnyApp, ConfirmDialog, TextDialog


async def ask_and_write(app: AnyApp, title: str, question: str, suggested: str, text: Callable[[], str]) -> Path | None:
    """The file that was written, None when it was not wanted after all. To be awaited in a worker.

    `suggested` is a file name to begin with. Raises ResourceError where the file cannot be written.
    """
    name = await app.push_screen_wait(TextDialog(title, question, suggested, validate=_unfit))
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


def _unfit(name: str) -> str | None:
    if not name.strip():
        return "a file needs a name"
    return "this is a folder" if Path(name.strip()).expanduser().is_dir() else None
