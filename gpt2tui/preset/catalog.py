"""Which presets exist and where: the user's own first, then the shipped ones."""

import contextlib
import difflib
from dataclasses import dataclass
from pathlib import Path

from gpt2tui.errors import PresetError
from gpt2tui.system.files import config_folder
from gpt2tui.system.terminal_text import printable, printable_value


@dataclass(frozen=True)
class PresetSource:
    """A preset that can be asked for by name."""

    name: str
    path: Path
    shipped: bool


def shipped_folder() -> Path:
    """The presets that come with the program, never written: in a wheel, or beside a checkout's packages."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "presets"
    return installed if installed.is_dir() else package.parent / "presets"


def user_folder() -> Path:
    """The user's own presets; it need not exist yet."""
    return config_folder() / "presets"


def available() -> list[PresetSource]:
    """All presets, the user's before the shipped; one of the user's hides a shipped one of its name."""
    user = [PresetSource(path.stem, path, shipped=False) for path in sorted(user_folder().glob("*.toml"))]
    shipped = [PresetSource(path.stem, path, shipped=True) for path in sorted(shipped_folder().glob("*.toml"))]
    hidden = {source.name for source in user}
    return user + [source for source in shipped if source.name not in hidden]


def find(preset: str | Path) -> Path:
    """The file of a preset: a name, or a path to a file. A known name wins over a file in the current folder.

    Raises PresetError with the nearest names and the list of all when there is no such preset.
    """
    path = Path(preset)
    if isinstance(preset, Path) or _looks_like_a_path(preset):
        return path
    sources = available()
    for source in sources:
        if source.name == preset:
            return source.path
    with contextlib.suppress(OSError):  # too long to be a file's name
        if preset and path.exists():
            return path
    names = [source.name for source in sources]
    raise PresetError(f"no preset is called {printable_value(preset)}{_nearest(preset, names)}")


def find_base(extends: str, extending: Path) -> Path:
    """The file that `extends = "..."` in another file means: a name, or a path relative to that file.

    A preset of the user's that extends its own name builds on the shipped preset that it hides.
    """
    if _looks_like_a_path(extends):
        return extending.parent / extends
    if extends == extending.stem:
        shipped = shipped_folder() / f"{extends}.toml"
        return shipped if shipped.is_file() else extending
    return find(extends)


def missing(path: Path) -> PresetError:
    """The error for a preset file that is not there, with the name that may have been meant."""
    names = [source.name for source in available()]
    return PresetError(f"{printable(path)}: there is no such file{_nearest(path.stem, names)}")


def _looks_like_a_path(preset: str) -> bool:
    return preset.endswith(".toml") or "/" in preset or "\\" in preset


def _nearest(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name[:100], names, n=2, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else "."
    return f"{hint}\nPresets: {', '.join(names)}. A path to a .toml file works too."
