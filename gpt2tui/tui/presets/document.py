"""A preset that is open in the workbench: its file, the edits on top of it, and whether the file has moved on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gpt2tui.errors import Mistake, PresetError
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.files import LoadedPreset, PresetSource, flat
from gpt2tui.preset.settings import defaults
from gpt2tui.tui.presets import library as preset_library
from gpt2tui.tui.presets.library import ScannedPreset
from gpt2tui.tui.presets.values import Checked, PresetEditing, check


class PresetDocument:
    """One preset's edits, kept while others are looked at. Opening never fails: `unreadable` says why it could not."""

    def __init__(self, source: PresetSource) -> None:
        self.source = source
        self.unreadable = ""
        self.file_mistakes: tuple[Mistake, ...] = ()
        """What the file itself says wrongly, with file, line and key."""
        self.unknown: tuple[str, ...] = ()
        """Keys of the file that are no settings, which saving drops."""
        self.stamp = preset_library.stamp(source.path)
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
    def moved_on(self) -> bool:
        """Whether the file was written, or deleted, by somebody else since it was read."""
        return preset_library.stamp(self.source.path) != self.stamp

    def check(self) -> Checked:
        """Validates the values as they stand."""
        return check(self.editing.values)

    def loaded(self) -> LoadedPreset | None:
        """The preset as it stands, for training; None while it is not valid."""
        preset = None if self.unreadable else self.check().preset
        return LoadedPreset(self.name, preset, (self.source.path,)) if preset else None

    def reload(self) -> None:
        """Takes what the file says now, as per step that can be undone."""
        before = self.editing
        self._read()
        if not self.unreadable:
            values, self.editing = self.editing.saved, before
            self.editing.replace(values)
            self.editing.mark_saved(values)

    def ignore_file(self) -> None:
        """Keeps the edits although the file has changed; saving will write over it."""
        self.stamp = preset_library.stamp(self.source.path)

    def save(self) -> str:
        """Writes the values to the preset's own file. Returns what of the file could not be kept, in words.

        Raises PresetError while they are not valid and for a shipped preset, ResourceError when the disk refuses.
        """
        checked = self.check()
        if checked.preset is None:
            raise PresetError(*(Mistake(mistake, key) for key, mistake in checked.mistakes.items()))
        lost = preset_files.update(checked.preset, self.source.path)
        self.editing.mark_saved(self.editing.values)
        self.unreadable, self.file_mistakes, self.unknown = "", (), ()
        self.stamp = preset_library.stamp(self.source.path)
        return lost

    def save_as(self, path: Path) -> "PresetDocument":
        """Writes the values to another file and gives the edits to its document; this one is as its file again."""
        other, saved = PresetDocument(PresetSource(path.stem, path, shipped=False)), self.editing.saved
        other.editing = self.editing
        other.save()
        self.editing = PresetEditing(saved)
        self._read()
        return other

    def renamed(self, path: Path) -> None:
        """The file has another name now."""
        self.source = PresetSource(path.stem, path, shipped=False)

    def _read(self) -> None:
        try:
            file = preset_library.read(self.source.path)
        except PresetError as error:
            self.unreadable, self.file_mistakes, self.unknown = str(error), (), ()
            self.stamp = preset_library.stamp(self.source.path)
            return
        self.unreadable, self.file_mistakes, self.unknown, self.stamp = "", file.mistakes, file.unknown, file.stamp
        self.editing = PresetEditing(file.values)


# ---- all presets there are, and the documents of those that were opened. No screen


@dataclass(frozen=True)
class PresetRow:
    """What a list shows of a preset; `size` is its parameters in a few characters."""

    id: str
    name: str
    shipped: bool
    size: str = ""
    changed: bool = False
    broken: bool = False


class OpenPresets:
    """The presets of the folders as they were last looked at, and those opened from elsewhere.

    A document is kept from the first look at its preset on, with its edits; its path is what tells it from others.
    """

    def __init__(self) -> None:
        self._scanned: dict[Path, ScannedPreset] = {}
        self._documents: dict[Path, PresetDocument] = {}

    @property
    def documents(self) -> list[PresetDocument]:
        """All that were opened."""
        return list(self._documents.values())

    @property
    def sources(self) -> list[PresetSource]:
        """All presets; those opened from elsewhere first."""
        elsewhere = [d.source for d in self._documents.values() if d.source.path not in self._scanned]
        return [*elsewhere, *(preset.source for preset in self._scanned.values())]

    def take(self, presets: Sequence[ScannedPreset]) -> None:
        """The folders as they are now."""
        self._scanned = {preset.source.path: preset for preset in presets}

    def list_again(self) -> None:
        """The names in the folders as they are now; what else there is to know of new ones follows with `take`."""
        self.take([self._scanned.get(source.path, ScannedPreset(source)) for source in preset_files.available()])

    def named(self, name: str, otherwise: str) -> PresetSource | None:
        """A preset by name or by the path of its file, else the one called `otherwise`, else the first there is."""
        self.list_again()
        sources = self.sources
        named = [source for source in sources if name in (source.name, str(source.path))]
        if not named and name.endswith(".toml") and Path(name).is_file():
            named = [PresetSource(Path(name).stem, Path(name), shipped=False)]
        fallback = [source for source in sources if source.name == otherwise]
        return next(iter((*named, *fallback, *sources)), None)

    def document(self, source: PresetSource) -> PresetDocument:
        """The document of a preset, opened when it is not yet."""
        if source.path not in self._documents:
            self._documents[source.path] = PresetDocument(source)
        return self._documents[source.path]

    def open_loaded(self, loaded: LoadedPreset) -> PresetDocument:
        """A preset of several layers and overrides: the last layer's document, the rest as unsaved changes."""
        path = loaded.layers[-1].resolve()
        source = next((source for source in self.sources if source.path.resolve() == path), None)
        document = self.document(source or PresetSource(path.stem, path, shipped=False))
        document.editing.replace(flat(loaded.preset))
        return document

    def reference(self, document: PresetDocument) -> str:
        """What `named` finds it by at the next start: its name, or the path of one from elsewhere."""
        named = any(source.path == document.source.path for source in preset_files.available())
        return document.name if named else str(document.source.path)

    def keep(self, document: PresetDocument) -> None:
        """A document that was made elsewhere, or has another path now."""
        self.drop(document)
        self._documents[document.source.path] = document

    def drop(self, document: PresetDocument) -> None:
        """Forgets a document and its edits."""
        self._documents = {path: kept for path, kept in self._documents.items() if kept is not document}

    def rows(self, filter: str = "") -> list[PresetRow]:
        """A row for each preset whose name has the text, in any case."""
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
        )
