"""A user's note about a run: `note.txt` in its folder."""

from gpt2tui.errors import ResourceError
from gpt2tui.run.folder import Run
from gpt2tui.system.files import open_regular, replace_text

FILE_NAME = "note.txt"
LONGEST_CHARACTERS = 10_000


def read_note(run: Run) -> str:
    """The note, at most its first 10,000 characters; empty where there is none or it cannot be read."""
    try:
        descriptor = open_regular(run.folder / FILE_NAME)
    except OSError:
        return ""
    with open(descriptor, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 a descriptor
        return file.read(LONGEST_CHARACTERS).strip()


def write_note(run: Run, text: str) -> None:
    """Replaces the note; an empty text removes it. Raises ResourceError when the disk refuses."""
    path = run.folder / FILE_NAME
    try:
        if text.strip():
            replace_text(path, text.strip()[:LONGEST_CHARACTERS] + "\n")
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise ResourceError(f"{path} cannot be written: {error.strerror or error}") from error
