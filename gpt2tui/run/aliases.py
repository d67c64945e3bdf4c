"""Names for checkpoints: `aliases.toml` in the folder of runs, one line `NAME = "RUN@STEP"` for each.

RUN is the name of a folder beside the file, or the whole path of a run elsewhere. A checkpoint with a name is never
deleted: pruning keeps it, and its run cannot be deleted.
"""

import contextlib
import difflib
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tomli_w
from filelock import FileLock, Timeout

from gpt2tui.errors import ResourceError, RunLockedError, UsageError
from gpt2tui.system.files import open_regular, replace_text, runs_folder
from gpt2tui.system.terminal_text import printable, printable_value

FILE_NAME = "aliases.toml"
LARGEST_BYTES = 256 << 10
_NAME = re.compile(r"(?!\d+$)(?!(?:best|latest)$)[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LOCK_SECONDS = 5.0


@dataclass(frozen=True)
class Alias:
    """A name of a checkpoint."""

    name: str
    run: Path
    """The folder of the run."""
    step: int


def read_aliases(folder: Path | None = None) -> list[Alias]:
    """The names in a folder of runs, by default the usual one, in alphabetical order.

    Raises UsageError when the file is damaged or cannot be read.
    """
    folder = runs_folder() if folder is None else folder
    path = folder / FILE_NAME
    try:
        with open(open_regular(path), "rb") as file:  # noqa: PTH123 a descriptor
            content = file.read(LARGEST_BYTES + 1)
        if len(content) > LARGEST_BYTES:
            raise ValueError("it is too large")
        entries = tomllib.loads(content.decode("utf-8"))
        aliases = [_alias(folder, name, target) for name, target in entries.items()]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f'{printable(path)} cannot be read ({error}); each of its lines must be NAME = "RUN@STEP"'
        ) from error
    return sorted(aliases, key=lambda alias: alias.name)


def find_alias(name: str) -> Alias:
    """The alias of this name, without @. Raises UsageError with the nearest name."""
    aliases = {alias.name: alias for alias in read_aliases()}
    if name not in aliases:
        near = difflib.get_close_matches(name[:100], aliases, n=1, cutoff=0.5)
        if near:
            hint = f"did you mean @{near[0]}?"
        else:
            hint = f"the tags are {', '.join(f'@{a}' for a in aliases)}" if aliases else "no checkpoint has a tag"
        raise UsageError(f"there is no tag @{printable(name, 60)}; {hint}")
    return aliases[name]


def set_alias(name: str, run: Path, step: int) -> Alias | None:
    """Gives a checkpoint a name; returns what had it before.

    Raises UsageError for a name that is not allowed, RunLockedError while another process changes names, and
    ResourceError when the file cannot be written.
    """
    if _NAME.fullmatch(name) is None:
        raise UsageError(
            f"{printable_value(name)} cannot be a tag: a tag has up to 100 letters, digits and . _ -, begins with a "
            "letter or digit, is no number, and is not best or latest"
        )
    with _changing() as aliases:
        before = aliases.get(name)
        aliases[name] = Alias(name, run.resolve(), step)
    return before


def remove_alias(name: str) -> Alias:
    """Takes a name away; the checkpoint stays. Raises UsageError when there is none, and as `set_alias` does."""
    found = find_alias(name)
    with _changing() as aliases:
        aliases.pop(name, None)
    return found


def follow_rename(before: Path, after: Path) -> None:
    """Lets the names of a run's checkpoints follow when its folder gets another name. Raises as `set_alias` does."""
    if aliases_of(before):
        with _changing() as aliases:
            for name, alias in aliases.items():
                if alias.run == before.resolve():
                    aliases[name] = Alias(name, after.resolve(), alias.step)


def aliases_of(run: Path) -> list[Alias]:
    """The names of a run's checkpoints: in the usual folder of runs, and in the one that the run is in.

    Raises UsageError when a file is damaged.
    """
    folder = run.resolve()
    places = {runs_folder().resolve(), folder.parent}
    return [alias for place in sorted(places) for alias in read_aliases(place) if alias.run == folder]


def _alias(folder: Path, name: str, target: object) -> Alias:
    """Raises ValueError."""
    run, _, step = str(target).rpartition("@")
    if not run or not step.isdecimal() or _NAME.fullmatch(name) is None:
        raise ValueError(f"{name[:60]!r}: {str(target)[:100]!r}")
    return Alias(name, (folder / run).resolve(), int(step))


@contextlib.contextmanager
def _changing() -> Iterator[dict[str, Alias]]:
    """The names, which are written when the block ends; one process at a time."""
    folder = runs_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{FILE_NAME}.lock", timeout=_LOCK_SECONDS):
            aliases = {alias.name: alias for alias in read_aliases(folder)}
            yield aliases
            base = folder.resolve()
            lines = {
                alias.name: f"{alias.run.name if alias.run.parent == base else alias.run}@{alias.step}"
                for alias in sorted(aliases.values(), key=lambda alias: alias.name)
            }
            replace_text(folder / FILE_NAME, tomli_w.dumps(lines))
    except Timeout:
        raise RunLockedError(f"another process is changing {folder / FILE_NAME}; try again") from None
    except OSError as error:
        raise ResourceError(f"{folder / FILE_NAME} cannot be written: {error.strerror or error}") from error
