"""Moves a training out of the workbench: a process of its own resumes it from its newest checkpoint."""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from gpt2tui.errors import Gpt2TuiError, ResourceError, UsageError
from gpt2tui.run.folder import OUTPUT, Run
from gpt2tui.run.summary import summarize
from gpt2tui.system.files import open_regular, runs_folder
from gpt2tui.system.terminal_text import printable

COMMAND = (sys.executable, "-P", "-m", "gpt2tui", "--headless", "--log-format", "text", "--force", "--resume")
"""It is forced, because the workbench may not have given back its memory yet."""
_LAST_BYTES = 8000


def train_in_background(run: Run, poll_seconds: float = 0.1) -> str:
    """Has a new process, in a session of its own, resume a run that was stopped; returns what to tell the user.

    It returns when that process trains. Between the workbench and it nobody holds the run's lock; if another process
    takes it meanwhile, the new one ends, and so with any other reason. Raises UsageError when the run was not stopped,
    ResourceError with the last line that the process has printed when it ends before it trains.
    """
    state = summarize(run).state
    if state != "stopped":
        raise UsageError(f"{run.name} is {state}, so there is nothing to leave running")
    process = started_beside([*COMMAND, str(run.folder.absolute())], run)
    while process.poll() is None:
        if _is_trained_by(run, process.pid):
            return farewell(run, process.pid)
        time.sleep(poll_seconds)
    lines = printed(run)
    last = lines[-1] if lines else f"it ended with exit code {process.returncode}"
    raise ResourceError(f"the process that was to train {run.name} has ended: {last}")


def farewell(run: Run, pid: int) -> str:
    """What to tell the user who leaves a run that this process trains."""
    is_found_by_name = run.folder.resolve() == (runs_folder() / run.name).resolve()
    reference = run.name if is_found_by_name else shlex.quote(printable(run.folder.absolute()))
    return (
        f"{run.name} trains on in process {pid}; {OUTPUT} in its folder has its output\n"
        f"come back: gpt2tui attach {reference}\nend it: gpt2tui runs stop {reference}"
    )


def started_beside(
    command: Sequence[str], run: Run, settings: Mapping[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """Starts a process in a session of its own; what it prints is added to OUTPUT in the run's folder.

    `settings` are its environment, which is that of this process where left out. Raises ResourceError.
    """
    output = run.folder / OUTPUT
    try:
        descriptor = open_regular(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=subprocess.STDOUT,
                env=settings,
                start_new_session=True,  # the end of the terminal is no signal to it
                creationflags=getattr(subprocess, "DETACHED_PROCESS", 0),  # the same on Windows
            )
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ResourceError(f"no process could be started: {error.strerror or error} ({printable(output)})") from error


def printed(run: Run) -> list[str]:
    """The last lines in OUTPUT that are not empty, safe to print; none where it cannot be read."""
    try:
        with open(open_regular(run.folder / OUTPUT), "rb") as file:  # noqa: PTH123 a descriptor
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LAST_BYTES))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [printable(line) for line in lines if line.strip()]


def _is_trained_by(run: Run, pid: int) -> bool:
    """Whether that process has begun to train the run, which it writes to run.json."""
    try:
        return run.info().get("pid") == pid
    except (Gpt2TuiError, OSError):  # replaced at this moment, where that is not atomic
        return False
