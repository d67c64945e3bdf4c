"""Renames and deletes run folders, and stops the process that trains in one."""

import os
import shutil
import signal

import psutil

from gpt2tui.errors import ResourceError, RunLockedError, UsageError
from gpt2tui.run.aliases import aliases_of, follow_rename
from gpt2tui.run.folder import LOCK, Run, check_name, is_locked, is_of_this_machine, locked
from gpt2tui.system.files import sync_folder
from gpt2tui.system.terminal_text import printable


def rename_run(run: Run, name: str) -> Run:
    """Gives a run's folder another name in the same place; returns the run there.

    Raises UsageError for a name that is wrong or taken, RunLockedError while a process holds the run, ResourceError
    when the disk refuses.
    """
    target = run.folder.with_name(check_name(name))
    if os.path.lexists(target):
        raise UsageError(f"{printable(target)} exists already; choose another name")
    with locked(run):
        try:
            before = run.folder.resolve()
            run.folder.rename(target)
            sync_folder(target.parent)
        except OSError as error:
            raise ResourceError(f"{printable(run.folder)} cannot be renamed: {error.strerror or error}") from error
        follow_rename(before, target)
    return Run(target)


def delete_run(run: Run) -> None:
    """Deletes a run folder.

    Raises RunLockedError while a process holds the run, UsageError for a link and for a run of which a checkpoint has
    a tag, ResourceError when the disk refuses. run.json goes first, under the lock: from then on the folder is no run
    that anybody could start to resume.
    """
    if run.folder.is_symlink():
        raise UsageError(f"{printable(run.folder)} is a link to a folder elsewhere; remove the link or that folder")
    if tags := [alias.name for alias in aliases_of(run.folder)]:
        raise UsageError(
            f"{printable(run.name)} has a checkpoint with the tag @{tags[0]}; to delete the run, first take it away: "
            f"gpt2tui runs untag {tags[0]}"
        )
    try:
        with locked(run):
            run.info_file.unlink()
            sync_folder(run.folder)
        shutil.rmtree(run.folder)
    except OSError as error:
        raise ResourceError(f"{printable(run.folder)} could not be deleted: {error.strerror or error}") from error


def stop_run(run: Run) -> int:
    """Sends SIGTERM to the process that trains the run, which then saves a checkpoint and ends; returns its id.

    Raises UsageError when no process trains the run, RunLockedError when one does that cannot be stopped from here: one
    of another machine or user, or one that run.json does not name for certain.
    """
    if not is_locked(run):
        raise UsageError(f"{run.name} is not being trained; there is nothing to stop")
    info = run.info()
    if not is_of_this_machine(info):
        raise RunLockedError(f"{run.name} is trained on another machine; stop it there")
    if os.name == "nt":
        raise RunLockedError(
            "Windows cannot ask another process to save and end; press Ctrl-C where the run is trained"
        )
    pid = info.get("pid")
    if type(pid) is not int or not _holds_lock(pid, run):
        raise RunLockedError(
            f"{run.name} is in use, but not by the process {pid} that its run.json names; end the right one by hand"
        )
    try:
        os.kill(pid, signal.SIGTERM)
    except OSError as error:
        raise RunLockedError(f"the process {pid} cannot be stopped: {error.strerror or error}") from error
    return pid


def _holds_lock(pid: int, run: Run) -> bool:
    """Whether a process has the run's lock file open: a process that only got the same id later has not."""
    lock = (run.folder / LOCK).resolve()
    try:
        return any(file.path == str(lock) for file in psutil.Process(pid).open_files())
    except (psutil.Error, ValueError):
        return False
