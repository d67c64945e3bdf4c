"""The presets that are open in the workbench: their files, unsaved edits, and changes on disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt2tui.errors import Mistake, PresetError
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.files import LoadedPreset, PresetSource, flat
from gpt2tui.preset.settings import defaults
from gpt2tui.tui.presets import library as preset_library
from gpt2tui.tui.presets.library import ScannedPreset
from gpt2tui.tui.presets.values import Checked, PresetEditing, check_values


class PresetDocument:
    """One preset and its unsaved edits. Opening never fails: `unreadable` says why the file could not be read."""

    def __init__(self, source: PresetSource) -> None:
        self.source = source
        self.unreadable = ""
        self.file_mistakes: tuple[Mistake, ...] = ()
        """The mistakes in the file, with file, line and key."""
        self.unknown: tuple[str, ...] = ()
        """Keys in the file that are not settings, which saving removes."""
        self.stamp = preset_library.file_stamp(source.path)
        self.editing = PresetEditing(defaults())
        self._read()

    @property
    def name(self) -> str:
        """The preset's name."""
        return self.source.name

    @property
    def changed(self) -> bool:
        """Whether there are edits that are not in the file."""
        return self.editing.changed

    @property
    def changed_on_disk(self) -> bool:
        """Whether another program has written or deleted the file since it was read."""
        return preset_library.file_stamp(self.source.path) != self.stamp

    def check(self) -> Checked:
        """Validates the current values."""
        return check_values(self.editing.values)

    def loaded(self) -> LoadedPreset | None:
        """The preset with its unsaved edits, for training; None while it is not valid."""
        preset = None if self.unreadable else self.check().preset
        return LoadedPreset(self.name, preset, (self.source.path,)) if preset else None

    def reload(self) -> None:
        """Replaces the values by those of the file, as one step that can be undone."""
        before = self.editing
        self._read()
        if not self.unreadable:
            values, self.editing = self.editing.saved, before
            self.editing.replace(values)
            self.editing.mark_saved(values)

    def ignore_file(self) -> None:
        """Keeps the edits although the file has changed; saving will overwrite it."""
        self.stamp = preset_library.file_stamp(self.source.path)

    def save(self) -> str:
        """Writes the values to the preset's file. Returns a message about what could not be kept, else an empty text.

        Raises PresetError for values that are not valid and for a shipped preset, ResourceError when writing fails.
        """
        checked = self.check()
        if checked.preset is None:
            raise PresetError(*(Mistake(mistake, key) for key, mistake in checked.mistakes.items()))
        lost = preset_files.update(checked.preset, self.source.path)
        self.editing.mark_saved(self.editing.values)
        self.unreadable, self.file_mistakes, self.unknown = "", (), ()
        self.stamp = preset_library.file_stamp(self.source.path)
        return lost

    def save_as(self, path: Path) -> "PresetDocument":
        """Writes the values to another file. The edits move to its document, and this one returns to its own file."""
        other, saved = PresetDocument(PresetSource(path.stem, path, shipped=False)), self.editing.saved
        other.editing = self.editing
        other.save()
        self.editing = PresetEditing(saved)
        self._read()
        return other

    def renamed(self, path: Path) -> None:
        """Takes the new name of the file."""
        self.source = PresetSource(path.stem, path, shipped=False)

    def _read(self) -> None:
        try:
            file = preset_library.read_preset_file(self.source.path)
        except PresetError as error:
            self.unreadable, self.file_mistakes, self.unknown = str(error), (), ()
            self.stamp = preset_library.file_stamp(self.source.path)
            return
        self.unreadable, self.file_mistakes, self.unknown, self.stamp = "", file.mistakes, file.unknown, file.stamp
        self.editing = PresetEditing(file.values)


# ---- the list of all presets


@dataclass(frozen=True)
class PresetRow:
    """A row of the list; `size` is the number of parameters in a few characters."""

    id: str
    name: str
    shipped: bool
    size: str = ""
    changed: bool = False
    broken: bool = False
    overrides: bool = False
    """Whether this user's preset is used in place of a shipped one of the same name."""


FIRST_PRESET = "small"


def _order(preset: ScannedPreset) -> tuple[bool, bool, bool, int, str]:
    source, count = preset.source, preset.parameters
    return source.shipped, source.name != FIRST_PRESET, count is None, count or 0, source.name


class OpenPresets:
    """The presets in the preset folders, and those opened from other folders.

    The document of a preset is kept, with its edits, once it is opened. Documents are identified by their paths.
    """

    def __init__(self) -> None:
        self._scanned: dict[Path, ScannedPreset] = {}
        self._documents: dict[Path, PresetDocument] = {}

    @property
    def documents(self) -> list[PresetDocument]:
        """The documents of all presets that were opened."""
        return list(self._documents.values())

    @property
    def sources(self) -> list[PresetSource]:
        """All presets in the order of the list: `small`, to begin with, then from small to large, the unknown last.

        The user's come first, so that theirs is found before a shipped one of the same name.
        """
        elsewhere = [d.source for d in self._documents.values() if d.source.path not in self._scanned]
        return [*elsewhere, *(preset.source for preset in sorted(self._scanned.values(), key=_order))]

    def update(self, presets: Sequence[ScannedPreset]) -> None:
        """Takes over the presets of a new scan of the folders."""
        self._scanned = {preset.source.path: preset for preset in presets}

    def refresh_names(self) -> None:
        """Lists the names in the folders again; sizes and mistakes of new presets follow with `update`."""
        self.update([self._scanned.get(source.path, ScannedPreset(source)) for source in preset_files.available()])

    def find(self, name: str, fallback: str) -> PresetSource | None:
        """A preset by its name or the path of its file, else the one called `fallback`, else the first preset."""
        self.refresh_names()
        sources = self.sources
        named = [source for source in sources if name in (source.name, str(source.path))]
        if not named and name.endswith(".toml") and Path(name).is_file():
            named = [PresetSource(Path(name).stem, Path(name), shipped=False)]
        fallbacks = [source for source in sources if source.name == fallback]
        return next(iter((*named, *fallbacks, *sources)), None)

    def document(self, source: PresetSource) -> PresetDocument:
        """The document of a preset, opened if needed."""
        if source.path not in self._documents:
            self._documents[source.path] = PresetDocument(source)
        return self._documents[source.path]

    def open_loaded(self, loaded: LoadedPreset) -> PresetDocument:
        """Opens a preset of several layers and overrides: the last layer's document, the rest as unsaved changes."""
        path = loaded.layers[-1].resolve()
        source = next((source for source in self.sources if source.path.resolve() == path), None)
        document = self.document(source or PresetSource(path.stem, path, shipped=False))
        document.editing.replace(flat(loaded.preset))
        return document

    def reference(self, document: PresetDocument) -> str:
        """The name, or the path where it is not in a preset folder, by which `find` finds it at the next start."""
        named = any(source.path == document.source.path for source in preset_files.available())
        return document.name if named else str(document.source.path)

    def add(self, document: PresetDocument) -> None:
        """Adds a document, or moves it to its new path."""
        self.remove(document)
        self._documents[document.source.path] = document

    def remove(self, document: PresetDocument) -> None:
        """Removes a document and its edits."""
        self._documents = {path: kept for path, kept in self._documents.items() if kept is not document}

    def neighbour(self, document: PresetDocument) -> str | None:
        """The path of the preset below a document in its group of the list, else above it, else of any."""
        sources = self.sources
        group = [s for s in sources if s.shipped == document.source.shipped]
        paths = [s.path for s in group]
        at = paths.index(document.source.path) if document.source.path in paths else len(paths)
        others = [*paths[at + 1 :], *reversed(paths[:at]), *(s.path for s in sources if s.path not in paths)]
        return str(others[0]) if others else None

    def rows(self, filter: str = "") -> list[PresetRow]:
        """The rows of presets whose names contain the text, ignoring case."""
        return [self._row(source) for source in self.sources if filter.casefold() in source.name.casefold()]

    def _row(self, source: PresetSource) -> PresetRow:
        scanned, document = self._scanned.get(source.path), self._documents.get(source.path)
        broken = bool(scanned and scanned.broken)
        if document is not None:
            broken = bool(document.unreadable or document.file_mistakes)
        return PresetRow(
            id=str(source.path),
            name=source.name,
            shipped=source.shipped,
            size=scanned.size if scanned else "",
            changed=document.changed if document else False,
            broken=broken,
            overrides=not source.shipped and preset_library.is_shipped_name(source.name),
        )
