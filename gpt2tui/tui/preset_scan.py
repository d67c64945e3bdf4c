"""Looks at the folders of presets: which there are, how large their models are, which are broken. For a thread."""

from collections.abc import Iterable
from dataclasses import dataclass

from gpt2tui.errors import Gpt2TuiError
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.files import PresetSource
from gpt2tui.system.numbers import compact
from gpt2tui.tui import preset_library
from gpt2tui.tui.preset_library import Stamp


@dataclass(frozen=True)
class ScannedPreset:
    """A preset's size in a few characters, empty while it is not known, and whether its file is wrong."""

    source: PresetSource
    size: str = ""
    broken: bool = False


class PresetScan:
    """Reads only files that have changed since it last looked."""

    def __init__(self) -> None:
        self._known: dict[tuple[PresetSource, Stamp], ScannedPreset] = {}

    def look(self, extra: Iterable[PresetSource] = ()) -> list[ScannedPreset]:
        """All presets that can be named, and `extra` ones that still exist."""
        sources = preset_files.available()
        paths = {source.path for source in sources}
        elsewhere = [source for source in extra if source.path not in paths and source.path.exists()]
        found = {}
        for source in (*elsewhere, *sources):
            key = (source, preset_library.stamp(source.path))
            found[key] = self._known.get(key) or _scan(source)
        self._known = found
        return list(found.values())


def _scan(source: PresetSource) -> ScannedPreset:
    try:
        count = preset_files.check(source.path).preset.known_parameters
    except Gpt2TuiError:
        return ScannedPreset(source, broken=True)
    return ScannedPreset(source, compact(count) if count else "")
