"""Deletes a run folder for good, and never one that some process trains."""

import shutil

from gpt2tui.errors import ResourceError, UsageError
from gpt2tui.run import folder as runs
from gpt2tui.run.folder import Run
from gpt2tui.system.files import sync_folder
from gpt2tui.system.terminal_text import printable


def delete(run: Run) -> None:
    """Raises RunLockedError while a process holds the run, UsageError for a link, ResourceError when the disk refuses.

    run.json goes first, under the lock: from then on the folder is no run that anybody could start to resume.
    """
    if run.folder.is_symlink():
        raise UsageError(f"{printable(run.folder)} is a link to a folder elsewhere; remove the link or that folder")
    try:
        with runs.locked(run):
            run.info_file.unlink()
            sync_folder(run.folder)
        shutil.rmtree(run.folder)
    except OSError as error:
        raise ResourceError(f"{printable(run.folder)} could not be deleted: {error.strerror or error}") from error
