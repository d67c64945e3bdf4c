"""Where `data.source` is a path: relative to a folder, absolute, under the home folder, or moved."""

import glob
import os
from collections.abc import Iterator
from pathlib import Path

NAMED = ("python-stdlib", "python-docstrings", "wikitext-103", "wikitext-2", "data.mix")
RUN_ANCESTORS = 3
"""How many folders above a run's are searched for its corpus: runs/NAME in a project has two."""


def is_path(source: object) -> bool:
    """Whether a source is a path or a glob on this machine, not the name of a corpus."""
    if not isinstance(source, str) or not source or "\0" in source:
        return False
    return source not in NAMED and not source.startswith("hf:") and "://" not in source


def absolute(source: str, folder: Path) -> str:
    """A path or glob relative to `folder` as an absolute one; other sources, and globs below brackets, unchanged."""
    if not is_path(source) or source.startswith("~") or Path(source).is_absolute():
        return source
    if glob.has_magic(source) and glob.has_magic(str(folder)):
        return source
    return os.path.abspath(folder / source)  # noqa: PTH100 resolve() would follow links and change names


def portable(source: str) -> str:
    """An absolute path under the user's home folder as `~/...`: no home path is written into a run."""
    if not is_path(source) or not Path(source).is_absolute():
        return source
    try:
        home = Path.home()
    except RuntimeError:  # there is none
        return source
    below = Path(source)
    if home == Path(home.anchor) or not below.is_relative_to(home):
        return source
    return f"~/{below.relative_to(home).as_posix()}"


def placed(source: str) -> str:
    """The source as a run keeps it: it depends on no working folder any more, nor names the home folder."""
    found = absolute(source, Path.cwd())
    return portable(found) if exists(found) else source


def exists(source: str) -> bool:
    """Whether a path is there, or a glob matches something."""
    try:
        path = Path(source).expanduser()
        return path.exists() or (glob.has_magic(source) and any(glob.iglob(str(path), recursive=True)))  # noqa: PTH207
    except (OSError, ValueError, RuntimeError):
        return False


def find_moved(source: str, run_folder: Path) -> str | None:
    """Where a path that is gone may be now: the same last names below the working folder or a folder above the run's.

    The longest match first; None without one. Whether it is the same text is for its fingerprint to decide.
    """
    parts = Path(source).parts
    bases = [Path.cwd(), *run_folder.resolve().parents[:RUN_ANCESTORS]]
    return next((found for found in _candidates(parts, bases) if exists(found)), None)


def _candidates(parts: tuple[str, ...], bases: list[Path]) -> Iterator[str]:
    for first in range(1, len(parts)):
        for base in bases:
            yield str(base.joinpath(*parts[first:]))
