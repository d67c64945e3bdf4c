"""The run folder: create it, hold its lock, find it again."""

import contextlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gpt2tui import __version__, checkpoint
from gpt2tui.durable import replace_text
from gpt2tui.errors import ResourceError, RunLockedError, UsageError
from gpt2tui.folders import runs_folder

LOCK = ".lock"


@dataclass(frozen=True)
class Run:
    """A run folder by its parts."""

    folder: Path

    @property
    def name(self) -> str:
        """The folder's name, which is the run's."""
        return self.folder.resolve().name

    @property
    def preset_file(self) -> Path:
        """The resolved preset, frozen."""
        return self.folder / "preset.toml"

    @property
    def events_file(self) -> Path:
        """Every event, one JSON object a line."""
        return self.folder / "events.jsonl"

    @property
    def info_file(self) -> Path:
        """Versions, device, git commit, command, data fingerprint, start time."""
        return self.folder / "run.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.folder / "checkpoints"

    def info(self) -> dict[str, Any]:
        """run.json, empty while it is not written. Raises CheckpointError when it is damaged."""
        return checkpoint.read_json(self.info_file) if self.info_file.exists() else {}


@contextlib.contextmanager
def locked(run: Run) -> Iterator[None]:
    """Holds the run for this process. Raises RunLockedError when another one does; dies with the process."""
    lock = FileLock(run.folder / LOCK)
    try:
        lock.acquire(timeout=0.5)
    except Timeout:
        raise RunLockedError(
            f"{run.folder} is in use by another process{_holder(run)}; stop it first, or choose another run"
        ) from None
    except OSError as error:
        raise ResourceError(f"{run.folder} cannot be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()


def is_locked(run: Run) -> bool:
    """Whether some process holds the run now."""
    path = run.folder / LOCK
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # a folder that nobody here may write to is not being written to from here
        return False
    lock.release()
    return False


def create(preset_name: str, folder: Path | None = None) -> Run:
    """Makes a new run folder: the one given, else `<runs>/<date>-<time>-<preset name>`.

    Raises UsageError when the folder given already holds something, ResourceError when it cannot be made.
    """
    try:
        if folder is not None:
            run = Run(folder)
            if folder.exists() and not folder.is_dir():
                raise UsageError(f"--run-dir {folder} is a file")
            if is_locked(run):
                raise RunLockedError(f"{folder} is in use by another process{_holder(run)}; choose another folder")
            if run.info_file.exists():
                raise UsageError(f"{folder} already holds a run; continue it with --resume {folder}, or choose another")
            if folder.exists() and any(path.name not in (LOCK, "checkpoints") for path in folder.iterdir()):
                raise UsageError(f"--run-dir {folder} is not empty, and what is in it is not a run; choose another")
            run.checkpoints.mkdir(parents=True, exist_ok=True)
            return run
        stem = f"{datetime.now():%Y-%m-%d-%H%M%S}-{re.sub(r'[^A-Za-z0-9._-]+', '-', preset_name)}"
        for attempt in range(1, 1000):
            candidate = runs_folder() / (stem if attempt == 1 else f"{stem}-{attempt}")
            try:
                candidate.mkdir(parents=True)
            except FileExistsError:
                continue
            (candidate / "checkpoints").mkdir()
            return Run(candidate)
    except OSError as error:
        raise ResourceError(f"the run folder {folder or runs_folder()} cannot be made: {error.strerror}") from error
    raise ResourceError(f"no free name for a run like {stem} in {runs_folder()}")


def remove_unless_begun(run: Run, *, made: bool) -> None:
    """Deletes a run folder in which training never began; of one that was not `made` for it, what we put in it."""
    if run.info_file.exists():
        return
    if made:
        shutil.rmtree(run.folder, ignore_errors=True)
    else:
        shutil.rmtree(run.checkpoints, ignore_errors=True)
        (run.folder / LOCK).unlink(missing_ok=True)


def write_info(
    run: Run, *, preset_name: str, command: Sequence[str], device: str, precision: str, data: dict[str, Any]
) -> str:
    """Writes run.json once, when training begins; returns the run's id, which its checkpoints carry."""
    info = {
        "run_id": uuid.uuid4().hex,
        "preset": preset_name,
        "command": list(command),
        "started": time.time(),
        **this_process(),
        "platform": platform.platform(),
        "device": device,
        "precision": precision,
        "data": data,
        "git_commit": _git_commit(),
        "versions": {"gpt2tui": __version__, "python": platform.python_version(), **_versions()},
    }
    replace_text(run.info_file, json.dumps(info, indent=2) + "\n")
    return str(info["run_id"])


def this_process() -> dict[str, Any]:
    """Who holds the run, for the message to whoever else wants it."""
    return {"pid": os.getpid(), "host": platform.node()}


def update_info(run: Run, **changes: Any) -> None:
    """Changes single entries of run.json, such as the process that goes on with the run."""
    try:
        replace_text(run.info_file, json.dumps({**run.info(), **changes}, indent=2) + "\n")
    except OSError as error:
        raise ResourceError(f"{run.info_file} cannot be written: {error.strerror or error}") from error


def find(reference: str) -> Run:
    """The run of a path or of a name under the runs folder. Raises UsageError with the nearest names."""
    for folder in (Path(reference), runs_folder() / reference):
        if (folder / "run.json").is_file():
            return Run(folder)
        if is_locked(Run(folder)):
            raise RunLockedError(f"{folder} is in use by another process, which still prepares its data")
    from difflib import get_close_matches

    names = [run.name for run in all_runs()]
    near = get_close_matches(reference, names, n=3, cutoff=0.4)
    hint = f"; did you mean {' or '.join(near)}?" if near else f"; there are {len(names)} runs in {runs_folder()}"
    raise UsageError(f"there is no run {reference}{hint}")


def all_runs() -> list[Run]:
    """The runs in the runs folder, by name, which begins with the date."""
    return [Run(path.parent) for path in sorted(runs_folder().glob("*/run.json"))]


def _holder(run: Run) -> str:
    with contextlib.suppress(Exception):
        info = run.info()
        return f" (process {info['pid']} on {info['host']})"
    return ""


def _versions() -> dict[str, str]:
    versions = {}
    for name in ("torch", "numpy", "datasets", "tiktoken", "tokenizers", "safetensors"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _git_commit() -> str | None:
    """The commit of the working folder, None outside a repository or without git."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def command_line() -> list[str]:
    """The command that started this process, as one would type it."""
    return ["gpt2tui", *sys.argv[1:]]
