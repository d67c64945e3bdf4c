"""The run folder: creating it, locking it, finding it, and its run.json."""

import contextlib
import hashlib
import os
import platform
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gpt2tui import version
from gpt2tui.errors import CheckpointError, ResourceError, RunLockedError, UsageError
from gpt2tui.run import checkpoint
from gpt2tui.run.aliases import find_alias, read_aliases
from gpt2tui.system.files import free_name, open_regular, replace_text, runs_folder, without_home
from gpt2tui.system.numbers import as_json
from gpt2tui.system.terminal_text import printable, printable_value

LOCK = ".lock"
CHECKPOINTS = "checkpoints"
OUTPUT = "output.log"
"""What a process that trains without the workbench prints, where the workbench has started it."""
LATEST = "latest"
SWEEP_FILE = "sweep.json"
"""In a folder of runs that are one sweep; these are named FOLDER/RUN."""
MOST_SESSIONS = 100
"""How many resumes run.json describes, the last ones; events.jsonl has a `run_started` of each."""
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,99}(?<![.])")
TIMESTAMP = re.compile(r"\d{4}-\d{2}-\d{2}-\d{6}-")
BEFORE_INFO = ("events.jsonl", "preset.toml", "tokenizer.json", "tokenizer_config.json", "gpt2tui_tokenizer.json")
"""Files that may be in a run folder before run.json, which makes it a run."""


@dataclass
class Creation:
    """What the process that creates a run knows about its folder, so that it deletes only what it made."""

    found: frozenset[str] | None
    """The names that were in the folder before; None if the folder did not exist."""
    begun: bool = False
    """Whether training, and with it the run, has begun."""


@dataclass(frozen=True)
class Run:
    """A run folder and the paths in it."""

    folder: Path
    creation: Creation | None = field(default=None, compare=False, repr=False)
    """None for a run that another process has created."""

    @property
    def name(self) -> str:
        """The name of the run, which is the folder's; in a sweep SWEEP/NAME."""
        folder = self.folder.resolve()
        return f"{folder.parent.name}/{folder.name}" if (folder.parent / SWEEP_FILE).is_file() else folder.name

    @property
    def preset_file(self) -> Path:
        """The resolved preset, frozen."""
        return self.folder / "preset.toml"

    @property
    def events_file(self) -> Path:
        """All events, one JSON object per line."""
        return self.folder / "events.jsonl"

    @property
    def info_file(self) -> Path:
        """run.json: versions, device, git commit, command, data fingerprint, start time."""
        return self.folder / "run.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.folder / CHECKPOINTS

    def info(self) -> dict[str, Any]:
        """The content of run.json, empty if there is no such file. Raises CheckpointError when it is damaged."""
        return checkpoint.read_json(self.info_file) if self.info_file.exists() else {}


@contextlib.contextmanager
def locked(run: Run) -> Iterator[None]:
    """Holds the run's lock, which ends with the process. Raises RunLockedError when another process holds it."""
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
    """Whether a process holds the run's lock."""
    path = run.folder / LOCK
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # nobody on this machine can write to the folder
        return False
    lock.release()
    return False


def check_name(name: str) -> str:
    """The name for a run's folder. Raises UsageError for one that is no plain folder name on every system."""
    if NAME_PATTERN.fullmatch(name) is None or name == LATEST:
        raise UsageError(
            f"{printable_value(name)} cannot be the name of a run: a name has up to 100 letters, digits, and "
            f". _ + = -, begins with a letter or digit, and is not {LATEST}"
        )
    return name


def create(preset_name: str, folder: Path | None = None) -> Run:
    """Creates a run folder: `folder`, or `<runs>/<date>-<time>-<preset name>`.

    `folder` may contain an empty folder of checkpoints, a lock and OUTPUT, and the files of a process that was killed
    before training began. Raises UsageError when it contains anything else, ResourceError when it cannot be created.
    """
    try:
        if folder is not None:
            return _create_in(folder)
        new = new_folder(preset_name)
        (new / CHECKPOINTS).mkdir()
        return Run(new, Creation(None))
    except OSError as error:
        raise ResourceError(f"the run folder {folder or runs_folder()} cannot be created: {error.strerror}") from error


def new_folder(name: str) -> Path:
    """Makes `<runs>/<date>-<time>-<name>`, or the next free name like it. Raises OSError and ResourceError."""
    stem = f"{datetime.now():%Y-%m-%d-%H%M%S}-{re.sub(r'[^A-Za-z0-9._+=-]+', '-', name)}"
    for attempt in range(1, 1000):
        candidate = runs_folder() / (stem if attempt == 1 else f"{stem}-{attempt}")
        with contextlib.suppress(FileExistsError):
            candidate.mkdir(parents=True)
            return candidate
    raise ResourceError(f"no free name for a run like {stem} in {runs_folder()}")


def _create_in(folder: Path) -> Run:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--run-dir {folder} is a file")
    run = Run(folder, Creation(frozenset(path.name for path in folder.iterdir()) if folder.exists() else None))
    if is_locked(run):
        raise RunLockedError(f"{folder} is in use by another process{_holder(run)}; choose another folder")
    if run.info_file.exists():
        raise UsageError(f"{folder} already holds a run; continue it with --resume {folder}, or choose another")
    found = (run.creation.found if run.creation else None) or frozenset()
    if CHECKPOINTS in found and any(run.checkpoints.iterdir()):
        raise UsageError(f"--run-dir {folder} holds checkpoints of something that is not a run; choose another")
    ours = {LOCK, CHECKPOINTS, OUTPUT}
    if {LOCK, CHECKPOINTS} <= found and not (run.events_file.exists() and run.events_file.stat().st_size):
        ours.update(BEFORE_INFO)  # a process was killed there while it prepared the run
    if not found <= ours:
        raise UsageError(f"--run-dir {folder} is not empty, and what is in it is not a run; choose another")
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    return run


def remove_unless_begun(run: Run) -> None:
    """Deletes what this process has put into a new run folder, unless training has begun."""
    if run.creation is None or run.creation.begun:
        return
    found = run.creation.found
    for name in {CHECKPOINTS, LOCK, *BEFORE_INFO} - (found or frozenset()):
        with contextlib.suppress(OSError):
            # rmdir, not rmtree: any checkpoints in it are not this process's, because training has not begun.
            (run.folder / name).rmdir() if name == CHECKPOINTS else (run.folder / name).unlink()
    if found is None:
        with contextlib.suppress(OSError):
            run.folder.rmdir()


def check_in_place(run: Run, run_id: str) -> None:
    """Raises ResourceError when the run's folder has been moved, or now contains another run."""
    try:
        found = checkpoint.read_json(run.info_file).get("run_id", run_id)
    except CheckpointError:
        if os.path.lexists(run.info_file):
            return  # it cannot be read, but it exists
        found = None
    if found != run_id:
        raise ResourceError(
            f"{run.folder} is no longer the folder of this run: it was moved, deleted or replaced, or its run.json "
            "was. Nothing more is saved; what was saved before is where the folder is now. Put it back, then resume "
            "with --resume"
        )


def write_info(
    run: Run,
    *,
    preset_name: str,
    command: Sequence[str],
    choices: Mapping[str, Any],
    data: dict[str, Any],
    parent: checkpoint.Parent | None = None,
    origin: checkpoint.Origin | None = None,
) -> str:
    """Writes run.json once, when training begins; returns the run's id, which its checkpoints carry.

    `choices` are the device, the precision and the compilation with their reasons and the number of threads, as they
    become entries.
    `parent` is the checkpoint of another run that a branch begins with, `origin` the weights that training started
    from.
    """
    run_id = uuid.uuid4().hex
    info = {
        "run_id": run_id,
        "parent": None if parent is None else asdict(parent),
        "origin": None if origin is None else asdict(origin),
        "preset": preset_name,
        "started": time.time(),
        **this_process(run_id),
        **_session(command, choices),
        "data": data,
    }
    replace_text(run.info_file, as_json(info, indent=2) + "\n")
    if run.creation is not None:
        run.creation.begun = True
    return run_id


def add_session(run: Run, *, step: int, command: Sequence[str], choices: Mapping[str, Any]) -> None:
    """Adds a resume at `step` to the `sessions` of run.json; its other entries stay those of the beginning.

    Only the process that holds the run is another one. Raises ResourceError when run.json cannot be written.
    """
    info = run.info()
    earlier = info.get("sessions")
    session = {"step": step, "started": time.time(), **_session(command, choices)}
    sessions = [*(earlier if isinstance(earlier, list) else []), session][-MOST_SESSIONS:]
    update_info(run, **this_process(str(info.get("run_id"))), sessions=sessions)


def _session(command: Sequence[str], choices: Mapping[str, Any]) -> dict[str, Any]:
    """With which program and on what a run is trained."""
    return {
        "command": [without_home(word) for word in command],
        "platform": platform.platform(),
        **({"torchrun": job} if (job := torchrun_job()) else {}),
        **choices,
        "git_commit": _git_commit(),
        "versions": {"gpt2tui": version.__version__, "python": platform.python_version(), **_versions()},
    }


def torchrun_job() -> str | None:
    """The id of the torchrun that started this process, the same in all its restarts; None without one."""
    job = os.environ.get("TORCHELASTIC_RUN_ID")
    return None if job in (None, "", "none") else job


def of_torchrun(job: str) -> Run | None:
    """The run that was begun or resumed last under a torchrun, in the runs folder; None if there is none."""

    def last_job(run: Run) -> Any:
        with contextlib.suppress(CheckpointError):
            info = run.info()
            sessions = info.get("sessions")
            session = sessions[-1] if isinstance(sessions, list) and sessions else info
            return session.get("torchrun") if isinstance(session, dict) else None
        return None

    return max((run for run in all_runs() if last_job(run) == job), key=started, default=None)


def this_process(run_id: str) -> dict[str, Any]:
    """The entries of run.json that say which process holds the run; a hash stands for the name of the machine."""
    return {"pid": os.getpid(), "host": _host_hash(run_id)}


def is_of_this_machine(info: dict[str, Any]) -> bool:
    """Whether the process in run.json is, as far as it says, one of this machine; older runs hold its name."""
    return info.get("host") in (None, platform.node(), _host_hash(str(info.get("run_id"))))


def _host_hash(run_id: str) -> str:
    return hashlib.sha256(f"{run_id}:{platform.node()}".encode()).hexdigest()[:16]


def update_info(run: Run, **changes: Any) -> None:
    """Changes single entries of run.json, such as the process that resumes the run."""
    try:
        replace_text(run.info_file, as_json({**run.info(), **changes}, indent=2) + "\n")
    except OSError as error:
        raise ResourceError(f"{run.info_file} cannot be written: {error.strerror or error}") from error


def earlier_preset_file(run: Run, step: int) -> Path:
    """A new file for the preset with which the run was trained before it was resumed at `step` with another."""
    return free_name(run.folder / f"preset-{step:08d}.toml")


def find(reference: str) -> Run:
    """The run that a path, a name in the runs folder, a unique beginning of a name, or `latest` (begun last) means.

    The part of a name after date and time is a name too. Raises UsageError with the nearest names.
    """
    for folder in (Path(reference), runs_folder() / reference):
        if (folder / "run.json").is_file():
            return Run(folder)
        if is_locked(Run(folder)):
            raise RunLockedError(f"{folder} is in use by another process, which is still preparing its data")
    from difflib import get_close_matches

    if runs_folder() in Path(reference).parents:
        reference = Path(reference).relative_to(runs_folder()).as_posix()
    known = all_runs()
    if reference == LATEST and known:
        return max(known, key=started)
    names = [run.name for run in known]
    short = [TIMESTAMP.sub("", name) for name in names]
    pairs = list(zip(known, names, short, strict=True))
    matching = [run for run, _, after in pairs if after == reference] or [
        run for run, *both in pairs if reference and any(name.startswith(reference) for name in both)
    ]
    if len(matching) == 1:
        return matching[0]
    if matching:
        listed = ", ".join(run.name for run in matching[:5]) + (", ..." if len(matching) > 5 else "")
        raise UsageError(f"{len(matching)} runs have names that begin with {reference}: {listed}; write more of it")
    near = get_close_matches(reference, names, n=3, cutoff=0.4)
    near_short = [names[short.index(name)] for name in get_close_matches(reference, short, n=3, cutoff=0.6)]
    latest = get_close_matches(reference, [LATEST] if known else [], cutoff=0.7)
    near = list(dict.fromkeys([*latest, *near_short, *near]))[:3]
    if near:
        hint = f"; did you mean {' or '.join(near)}?"
    else:
        hint = (
            f"; there are {len(names)} runs in {runs_folder()}" if names else f"; there are no runs in {runs_folder()}"
        )
    raise UsageError(f"there is no run {reference}{hint}")


def find_with_checkpoint(
    reference: str, check: checkpoint.Check = checkpoint.verify
) -> tuple[Run, checkpoint.Checkpoint | None]:
    """The run and the checkpoint that RUN@STEP, RUN@best, RUN@latest, a tag (@NAME) or a checkpoint's folder means.

    None where only a run is named: its newest valid one. `check` says how thoroughly a checkpoint is looked at. Raises
    UsageError as `find` does, and CheckpointError when the run has no such checkpoint or it is damaged.
    """
    if reference.startswith("@") and reference[1:] not in ("best", LATEST) and not reference[1:].isdecimal():
        alias = find_alias(reference[1:])
        run = Run(alias.run)
        if not run.info_file.is_file():
            raise CheckpointError(f"{reference} is a checkpoint of {alias.run}, which is no longer there")
        return run, checkpoint.at(run.checkpoints, alias.step, check)
    folder = Path(reference).resolve()
    if folder.parent.name == CHECKPOINTS and (folder / checkpoint.MANIFEST).is_file():
        return find(str(folder.parent.parent)), check(folder)
    try:
        return find(reference), None
    except UsageError as error:
        name, at, step = reference.rpartition("@")
        if not at:
            raise
        if not (step in ("best", LATEST) or step.isdecimal()):
            raise (_no_step(name, step) or error) from None
    if not name:
        raise UsageError(f"{reference} names no run; write RUN@{step}, for example {LATEST}@{step}")
    run = find(name)
    if step == "best":
        return run, checkpoint.best(run.checkpoints, check)
    return run, None if step == LATEST else checkpoint.at(run.checkpoints, int(step), check)


def _no_step(name: str, step: str) -> UsageError | None:
    """What is wrong with RUN@`step` where that is no step; None where the run does not exist either."""
    try:
        run = find(name)
    except UsageError:
        return None
    tag = f"; the tag is written @{step}" if step in {alias.name for alias in read_aliases()} else ""
    return UsageError(
        f"{printable(step, 60)} is no checkpoint of {run.name}: after @ stands a step, best or {LATEST}{tag}"
    )


def resume_point(run: Run) -> checkpoint.Checkpoint | None:
    """The newest valid checkpoint; None if the run never saved one, so that it resumes at step 0.

    A branch that was killed before it had a checkpoint of its own begins with its parent's again. Raises
    CheckpointError when there are checkpoints but none is valid, when saved checkpoints are gone, or the parent's is.
    """
    try:
        return checkpoint.newest(run.checkpoints)
    except CheckpointError:
        if checkpoint.problems_in(run.checkpoints) or _has_saved(run):
            raise
    parent = run.info().get("parent")
    return _parent_checkpoint(run, parent) if isinstance(parent, dict) else None


def _parent_checkpoint(branch: Run, parent: dict[str, Any]) -> checkpoint.Checkpoint:
    """The checkpoint that a branch began with, in the run with that id among all runs and those beside the branch."""
    beside = [Run(path.parent) for path in sorted(branch.folder.resolve().parent.glob("*/run.json"))]
    for run in [*all_runs(), *beside]:
        with contextlib.suppress(CheckpointError):
            if run.info().get("run_id") == parent.get("run_id"):
                return checkpoint.at(run.checkpoints, parent["step"])
    raise CheckpointError(
        f"the run {branch.name} has no checkpoint, and the one it began with, of step {parent.get('step')} of the run "
        f"with id {parent.get('run_id')}, was not found; delete {branch.folder} and branch again"
    )


def all_runs(folder: Path | None = None) -> list[Run]:
    """The runs in a folder and in its sweeps, by default the runs folder, by name, which begins with the date."""
    folder = folder or runs_folder()
    sweeps = [path.parent for path in folder.glob(f"*/{SWEEP_FILE}")]
    return [Run(path.parent) for path in sorted([p for f in (folder, *sweeps) for p in f.glob("*/run.json")])]


def _holder(run: Run) -> str:
    with contextlib.suppress(Exception):
        info = run.info()
        return f" (process {info['pid']}{'' if is_of_this_machine(info) else ' on another machine'})"
    return ""


def started(run: Run) -> float:
    """When the run began, in seconds since the Unix epoch; 0 when that is not known."""
    with contextlib.suppress(CheckpointError):
        started = run.info().get("started")
        return started if isinstance(started, float) else 0.0
    return 0.0


def _versions() -> dict[str, str]:
    versions = {}
    for name in ("torch", "numpy", "datasets", "tiktoken", "tokenizers", "safetensors"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def _has_saved(run: Run) -> bool:
    """Whether the run has ever saved a checkpoint, by its events."""
    try:
        with open(open_regular(run.events_file), "rb") as file:  # noqa: PTH123 a descriptor
            return any(b'"event": "checkpoint_saved"' in line for line in file)
    except OSError:
        return False


def _git_commit() -> str | None:
    """The commit of the checkout that this program runs from; None if it is installed."""
    root = Path(version.__file__).resolve().parent.parent
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--show-toplevel", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
            stdin=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    top, _, commit = done.stdout.strip().partition("\n")
    # An environment inside another project's checkout would give that project's commit.
    return commit if Path(top) == root else None


def command_line() -> list[str]:
    """The command line that started this process: ours, or a script's or notebook's that imports the package."""
    program = sys.argv[0] if sys.argv else ""
    is_ours = Path(program).name.removesuffix(".exe") in ("gpt2tui", "__main__.py")
    return ["gpt2tui", *sys.argv[1:]] if is_ours else ["python", *sys.argv]
