"""The folder of a sweep: its runs are folders in it, and sweep.json lists them.

runs/<date>-<time>-<name>/
    sweep.json           the runs in their order, each with its swept settings and its seed; the options
    presets/NUMBER/      the resolved preset of each run, frozen when the sweep began
    logs/RUN.log         what each run has printed
    RUN/                 a run folder like any other
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from gpt2tui.errors import CheckpointError, Gpt2TuiError, ResourceError, RunLockedError, UsageError
from gpt2tui.run.folder import SWEEP_FILE, TIMESTAMP, Run, all_runs, new_folder
from gpt2tui.system.files import read_json, replace_text, runs_folder
from gpt2tui.system.numbers import as_json

FORMAT_VERSION = 1
PRESETS, LOGS = "presets", "logs"
LOCK = "sweep.lock"
"""Another name than that of a run's lock: a sweep is no run that prepares its data."""


@dataclass(frozen=True)
class SweptRun:
    """A run of a sweep: the name of its folder, that of its preset below the sweep folder, its settings and its seed.

    `seed` is None where all runs have that of the preset.
    """

    name: str
    preset: str
    settings: Mapping[str, str]
    seed: int | None


@dataclass(frozen=True)
class Sweep:
    """A sweep folder and its runs, in the order in which they are trained."""

    folder: Path
    runs: tuple[SweptRun, ...]
    jobs: int
    force: bool

    @property
    def name(self) -> str:
        """The name of the sweep, which is the folder's."""
        return self.folder.resolve().name

    def run(self, swept: SweptRun) -> Run:
        """The folder of one of its runs, which may not exist yet."""
        return Run(self.folder / swept.name)

    def log(self, swept: SweptRun) -> Path:
        """The file of what a run has printed."""
        return self.folder / LOGS / f"{swept.name}.log"


def create(
    name: str, folder: Path | None, runs: Sequence[SweptRun], presets: Sequence[str], *, jobs: int, force: bool
) -> Sweep:
    """Creates the sweep folder, `folder` or one in the runs folder, with the text of the preset of each run.

    Raises UsageError for a folder that is not empty, ResourceError when the disk refuses.
    """
    try:
        if folder is None:
            folder = new_folder(name)
        elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"--run-dir {folder} is not an empty folder; choose another for the sweep")
        (folder / LOGS).mkdir(parents=True)
        for run, text in zip(runs, presets, strict=True):
            (folder / run.preset).parent.mkdir(parents=True)
            replace_text(folder / run.preset, text)
        described = {"format_version": FORMAT_VERSION, "jobs": jobs, "force": force, "runs": [asdict(r) for r in runs]}
        replace_text(folder / SWEEP_FILE, as_json(described, indent=2) + "\n")
    except OSError as error:
        raise ResourceError(f"the sweep folder {folder} cannot be written: {error.strerror or error}") from error
    return Sweep(folder, tuple(runs), jobs, force)


def read(folder: Path) -> Sweep:
    """The sweep in a folder. Raises CheckpointError when its sweep.json is damaged or of another version."""
    path = folder / SWEEP_FILE
    described = read_json(path)
    if described.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(f"{path} has another format than this version of gpt2tui reads, {FORMAT_VERSION}")
    try:
        runs = tuple(_read_run(each) for each in described["runs"])
        return Sweep(folder, runs, max(1, int(described["jobs"])), described["force"] is True)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); its runs can be resumed one by one") from error


def planned_runs(folder: Path) -> int:
    """How many runs the sweep in a folder is of; 0 where it cannot be read."""
    try:
        return len(read(folder).runs)
    except (Gpt2TuiError, OSError, ValueError):
        return 0


def _read_run(described: dict[str, Any]) -> SweptRun:
    name, preset, seed = str(described["name"]), str(described["preset"]), described["seed"]
    if Path(name).name != name or ".." in Path(preset).parts or Path(preset).is_absolute():
        raise ValueError(f"{name} is no name of a run")
    settings = {str(key): str(value) for key, value in described["settings"].items()}
    return SweptRun(name, preset, settings, None if seed is None else int(seed))


def find(reference: str) -> Path | None:
    """The sweep folder that a path, a name in the runs folder, or a unique beginning of a name means.

    None where it means no sweep, or a run that is in none too.
    """
    for folder in (Path(reference), runs_folder() / reference):
        if (folder / SWEEP_FILE).is_file():
            return folder
        if (folder / "run.json").is_file():
            return None
    sweeps = [path.parent for path in sorted(runs_folder().glob(f"*/{SWEEP_FILE}"))]
    names = [folder.name for folder in sweeps] + [run.name for run in all_runs() if "/" not in run.name]
    both = [(name, TIMESTAMP.sub("", name)) for name in names]
    matching = [number for number, (_, after) in enumerate(both) if after == reference] or [
        number for number, pair in enumerate(both) if reference and any(name.startswith(reference) for name in pair)
    ]
    return sweeps[matching[0]] if len(matching) == 1 and matching[0] < len(sweeps) else None


def sweep_of(run_folder: Path) -> str | None:
    """The name of the sweep that a run belongs to; None for a run by itself."""
    parent = run_folder.resolve().parent
    return parent.name if (parent / SWEEP_FILE).is_file() else None


@contextlib.contextmanager
def locked(sweep: Sweep) -> Iterator[None]:
    """Holds the sweep's lock. Raises RunLockedError when another process trains the sweep."""
    lock = FileLock(sweep.folder / LOCK)
    try:
        lock.acquire(timeout=0.5)
    except Timeout:
        raise RunLockedError(f"the sweep {sweep.name} is being trained by another process; stop it first") from None
    except OSError as error:
        raise ResourceError(f"{sweep.folder} cannot be written: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()
