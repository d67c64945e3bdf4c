"""Saving, copying, renaming and deleting presets, with the dialogs that ask before.

Each function is awaited in a worker, updates the open presets, and returns the name or path of the preset to show
next, for `OpenPresets.find`, or None when nothing was changed. They raise the errors of `library`.
"""

from collections.abc import Awaitable, Callable

from gpt2tui.system.terminal_text import printable
from gpt2tui.tui.presets import library as preset_library
from gpt2tui.tui.presets.document import OpenPresets, PresetDocument
from gpt2tui.tui.widgets.dialogs import AnyApp, ConfirmDialog, TextDialog

WRITE, SAVE_AS, OVERRIDE = "!Write", "Save as …", "!Override"

Question = Callable[[AnyApp, OpenPresets, PresetDocument], Awaitable[str | None]]


async def save(app: AnyApp, open_presets: OpenPresets, document: PresetDocument) -> str | None:
    """Writes the preset's file; a shipped preset, or if the user prefers, under another name."""
    question = _before_saving(document)
    answer = await app.push_screen_wait(question) if question else SAVE_AS if document.source.shipped else WRITE
    if answer == SAVE_AS:
        return await save_as(app, open_presets, document)
    if answer is None or not answer.startswith("!"):
        return None
    return _saved(app, document, document.save())


def _before_saving(document: PresetDocument) -> ConfirmDialog | None:
    if document.source.shipped:
        return None
    if document.changed_on_disk and preset_library.file_stamp(document.source.path) is not None:
        text = f"Another program has written {document.source.path} since it was read here."
        return ConfirmDialog("Changed on disk", text, "Back", "!Overwrite", SAVE_AS)
    if document.unknown:
        keys = printable(", ".join(document.unknown), 60)
        text = f"The file has keys that are not settings ({keys}). Saving removes them."
        return ConfirmDialog("Saving removes keys", text, SAVE_AS, "!Save without", "Back")
    return None


async def save_as(app: AnyApp, open_presets: OpenPresets, document: PresetDocument) -> str | None:
    """Saves under another name, as a user's preset, which then has the edits."""
    name = await _name(app, "Save as", "The name of your own preset:", preset_library.free_name(document.name))
    if name is None:
        return None
    saved = document.save_as(preset_library.path_of(name))
    open_presets.add(saved)
    return _saved(app, saved)


async def duplicate(app: AnyApp, open_presets: OpenPresets, document: PresetDocument) -> str | None:
    """Copies the preset's file unchanged, with its comments."""
    note = " Unsaved changes are not copied." if document.changed else ""
    name = await _name(app, "Duplicate", f"The name of the copy.{note}", preset_library.free_name(document.name))
    return None if name is None else str(preset_library.duplicate(document.source, name))


async def rename(app: AnyApp, open_presets: OpenPresets, document: PresetDocument) -> str | None:
    """Renames a user's preset."""
    name = await _name(app, "Rename", "The new name:", document.name, document.name)
    if name is None or name == document.name:
        return None
    document.renamed(preset_library.rename(document.source, name))
    open_presets.add(document)
    return str(document.source.path)


async def delete(app: AnyApp, open_presets: OpenPresets, document: PresetDocument) -> str | None:
    """Deletes a user's preset; a shipped preset of the same name is then visible again."""
    text = f"{document.source.path} will be deleted. Runs trained with it keep their own copy."
    if preset_library.is_shipped_name(document.name):
        text += f" The shipped {document.name} is used again."
    if await app.push_screen_wait(ConfirmDialog(f"Delete {document.name}?", text, "Keep it", "!Delete")) != "!Delete":
        return None
    neighbour = open_presets.neighbour(document)
    preset_library.delete(document.source)
    open_presets.remove(document)
    return neighbour


async def reconcile_with_disk(app: AnyApp, open_presets: OpenPresets, document: PresetDocument) -> str | None:
    """For a file with unsaved changes that another program has written: keeps the changes or reloads the file."""
    text = (
        f"Another program has written {document.source.path}, which has unsaved changes here.\n\n"
        "Keep your changes, and saving will overwrite the file; or reload the file, and undo restores your changes."
    )
    reload = "Reload the file"
    if await app.push_screen_wait(ConfirmDialog("Changed on disk", text, "Keep mine", reload)) == reload:
        document.reload()
    else:
        document.ignore_file()
    return str(document.source.path)


async def _name(app: AnyApp, title: str, text: str, suggested: str, replaced: str | None = None) -> str | None:
    """Asks for the name of a user's preset, and again before one takes the place of a shipped preset."""

    def mistake(name: str) -> str | None:
        return preset_library.why_not_a_name(name, replaced)

    while (name := await app.push_screen_wait(TextDialog(title, text, suggested, validate=mistake))) is not None:
        if name == replaced or not preset_library.is_shipped_name(name):
            return name
        warning = (
            f"{name} is a shipped preset. Yours would be used in its place wherever a preset is named, also by "
            f"gpt2tui --preset {name}, until yours is deleted or renamed."
        )
        answer = await app.push_screen_wait(
            ConfirmDialog(f"Override the shipped {name}?", warning, "Choose another name", OVERRIDE)
        )
        if answer is None or answer == OVERRIDE:
            return name if answer == OVERRIDE else None
    return None


def _saved(app: AnyApp, document: PresetDocument, lost: str = "") -> str:
    note = f"; {lost}" if lost else ""
    app.notify(f"saved {printable(document.name, 60)}{note}", timeout=10 if lost else 3, markup=False)
    return str(document.source.path)
