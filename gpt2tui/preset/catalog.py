"""Finds presets by name: the user's own first, then the shipped ones."""

import contextlib
import difflib
from dataclasses import dataclass
from pathlib import Path

from gpt2tui.errors import PresetError
from gpt2tui.system.files import config_folder
from gpt2tui.system.terminal_text import printable, printable_value


@dataclass(frozen=True)
class PresetSource:
    """A preset that has a name, and its file."""

    name: str
    path: Path
    shipped: bool


def shipped_folder() -> Path:
    """The folder of the shipped presets, which are read-only: in the installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "presets"
    return installed if installed.is_dir() else package.parent / "presets"


def user_folder() -> Path:
    """The folder of the user's own presets; it may not exist yet."""
    return config_folder() / "presets"


def available() -> list[PresetSource]:
    """All presets, the user's before the shipped ones. A user's preset hides the shipped one of the same name."""
    user = [PresetSource(path.stem, path, shipped=False) for path in sorted(user_folder().glob("*.toml"))]
    shipped = [PresetSource(path.stem, path, shipped=True) for path in sorted(shipped_folder().glob("*.toml"))]
    hidden = {source.name for source in user}
    return user + [source for source in shipped if source.name not in hidden]


def find(preset: str | Path) -> Path:
    """The file of a preset, given its name or a path. A known name wins over a file in the current folder.

    Raises PresetError with the nearest names and the list of all names when there is no such preset.
    """
    path = Path(preset)
    if isinstance(preset, Path) or _looks_like_a_path(preset):
        return path
    sources = available()
    for source in sources:
        if source.name == preset:
            return source.path
    with contextlib.suppress(OSError):  # too long for a file name
        if preset and path.exists():
            return path
    names = [source.name for source in sources]
    raise PresetError(f"no preset is called {printable_value(preset)}{_suggestion(preset, names)}")


def find_base(extends: str, extending: Path) -> Path:
    """The file of `extends = "..."` in the file `extending`: a name, or a path relative to that file.

    A user's preset that extends its own name builds on the shipped preset that it hides.
    """
    if _looks_like_a_path(extends):
        return extending.parent / extends
    if extends == extending.stem:
        shipped = shipped_folder() / f"{extends}.toml"
        return shipped if shipped.is_file() else extending
    return find(extends)


def missing_file(path: Path) -> PresetError:
    """The error for a preset file that does not exist, with the nearest names."""
    names = [source.name for source in available()]
    return PresetError(f"{printable(path)}: there is no such file{_suggestion(path.stem, names)}")


def _looks_like_a_path(preset: str) -> bool:
    return preset.endswith(".toml") or "/" in preset or "\\" in preset


def _suggestion(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name[:100], names, n=2, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else "."
    return f"{hint}\nPresets: {', '.join(names)}. A path to a .toml file works too."
