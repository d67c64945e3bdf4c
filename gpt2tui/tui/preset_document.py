"""A preset that is open in the workbench: its file, the edits on top of it, and whether the file has moved on."""

from pathlib import Path

from gpt2tui.errors import Mistake, PresetError
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.files import LoadedPreset, PresetSource
from gpt2tui.preset.settings import defaults
from gpt2tui.tui import preset_library
from gpt2tui.tui.preset_editing import Checked, PresetEditing, check


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
        """Takes what the file says now, as a step that can be undone."""
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
