"""What is asked before a preset's file is written, copied, renamed or deleted, and then done.

Each is awaited in a worker, keeps the open presets right, and returns the preset to show after it, as
`OpenPresets.named` knows it, or None when nothing was changed. They raise what `library` raises when a file refuses.
"""

from collections.abc import Awaitable, Callable

from gpt2tui.system.terminal_text import printable
from gpt2tui.tui.presets import library as preset_library
from gpt2tui.tui.presets.document import OpenPresets, PresetDocument
from gpt2tui.tui.widgets.dialogs import AnyApp, ConfirmDialog, TextDialog

WRITE, SAVE_AS = "!Write", "Save as …"

Question = Callable[[AnyApp, OpenPresets, PresetDocument], Awaitable[str | None]]


async def save(app: AnyApp, open_presets: OpenPresets, document: PresetDocument) -> str | None:
    """Writes the preset's own file; a shipped one, and where it is preferred, under another name."""
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
    if document.moved_on and preset_library.stamp(document.source.path) is not None:
        text = f"{document.source.path} was written by another program since it was read here."
        return ConfirmDialog("Changed on disk", text, "Back", "!Write over it", SAVE_AS)
    if document.unknown:
        keys = printable(", ".join(document.unknown), 60)
        text = f"The file has what the form does not know ({keys}), which saving does not keep."
        return ConfirmDialog("Saving loses something", text, SAVE_AS, "!Save without", "Back")
    return None


async def save_as(app: AnyApp, open_presets: OpenPresets, document: PresetDocument) -> str | None:
    """Saves under another name, as a preset of the user's own, which then has the edits."""
    name = await _name(app, "Save as", "The name of your own preset:", preset_library.free_name(document.name))
    if name is None:
        return None
    saved = document.save_as(preset_library.path_of(name))
    open_presets.keep(saved)
    return _saved(app, saved)


async def duplicate(app: AnyApp, open_presets: OpenPresets, document: PresetDocument) -> str | None:
    """Copies the preset's file as it is, comments included."""
    note = " Unsaved changes stay where they are." if document.changed else ""
    name = await _name(app, "Duplicate", f"The name of the copy.{note}", preset_library.free_name(document.name))
    return None if name is None else str(preset_library.duplicate(document.source, name))


async def rename(app: AnyApp, open_presets: OpenPresets, document: PresetDocument) -> str | None:
    """Gives the user's own preset another name."""
    name = await _name(app, "Rename", "The new name:", document.name, document.name)
    if name is None or name == document.name:
        return None
    document.renamed(preset_library.rename(document.source, name))
    open_presets.keep(document)
    return str(document.source.path)


async def delete(app: AnyApp, open_presets: OpenPresets, document: PresetDocument) -> str | None:
    """Deletes the user's own preset; a shipped one of its name comes to light."""
    text = f"{document.source.path} will be gone. Runs made with it keep their own copy."
    if await app.push_screen_wait(ConfirmDialog(f"Delete {document.name}?", text, "Keep it", "!Delete")) != "!Delete":
        return None
    preset_library.delete(document.source)
    open_presets.drop(document)
    return document.name


async def reconcile_with_disk(app: AnyApp, open_presets: OpenPresets, document: PresetDocument) -> str | None:
    """For unsaved changes of a file that another program has written: keeps them, or takes the file's."""
    text = (
        f"{document.source.path} was written by another program, and here it has unsaved changes.\n\n"
        "Keep yours, and saving will write over the file; or take the file's, and undo brings yours back."
    )
    take = "Take the file's"
    if await app.push_screen_wait(ConfirmDialog("Changed on disk", text, "Keep mine", take)) == take:
        document.reload()
    else:
        document.ignore_file()
    return str(document.source.path)


async def _name(app: AnyApp, title: str, text: str, suggested: str, replaced: str | None = None) -> str | None:
    def mistake(name: str) -> str | None:
        return preset_library.why_not_a_name(name, replaced)

    return await app.push_screen_wait(TextDialog(title, text, suggested, validate=mistake))


def _saved(app: AnyApp, document: PresetDocument, lost: str = "") -> str:
    note = f"; {lost}" if lost else ""
    app.notify(f"saved {printable(document.name, 60)}{note}", timeout=10 if lost else 3, markup=False)
    return str(document.source.path)
