"""Merges an adapter from the Chat screen: asks for a folder, and exports base and adapter as one model into it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from textual.message import Message

from gpt2tui.errors import Gpt2TuiError, UsageError
from gpt2tui.tui.base import in_own_thread
from gpt2tui.tui.widgets.dialogs import AnyApp, TextDialog

if TYPE_CHECKING:
    from gpt2tui.export.writing import Export  # which imports torch


@dataclass
class MergeProgress(Message):
    """A merge has come to its next part."""

    doing: str


@dataclass
class MergeEnded(Message):
    """A merge is done, with how it was verified; or has failed with an error."""

    to: Path
    error: str
    checks: tuple[str, ...]


def check_adapter(reference: str) -> None:
    """Raises UsageError when a reference means a whole model, and CheckpointError when it means none."""
    from gpt2tui.run.model_lookup import find_here, is_adapter

    found = find_here(reference, verified=False)
    if found is None or not is_adapter(found.folder):
        raise UsageError(f"{reference} is a whole model already; only an adapter, which [lora] trains, can be merged")


async def ask_for_folder(app: AnyApp, group: str) -> Path | None:
    """Asks for the new folder; None when the user cancels. To be awaited in a worker."""
    dialog = TextDialog(
        "Merge the adapter",
        "Adds it to its base, in fp32, as one model that transformers loads; read back and run before it is done. The "
        "adapter stays. Into the new folder",
        f"{group}-merged",
        validate=_folder_error,
    )
    name = await app.push_screen_wait(dialog)
    return Path(name.strip()).expanduser() if name else None


def merge(reference: str, to: Path, post: Callable[[Message], object]) -> None:
    """Exports adapter and base as one model, in a thread of its own; posts MergeProgress, and MergeEnded at the end."""

    def work() -> "Export":
        from gpt2tui.export.writing import export, load_for_export

        def report(doing: str) -> None:
            post(MergeProgress(doing))

        report("reading the adapter and its base")
        model = load_for_export(reference, merge=True)
        return export(model, "huggingface", to, report=report)

    error = "an unexpected error, which the log has"
    checks: tuple[str, ...] = ()
    try:
        checks = tuple(map(str, in_own_thread(work, "merge").checked.verifications))
        error = ""
    except Gpt2TuiError as expected:
        error = str(expected)
    finally:
        post(MergeEnded(to, error, checks))


def _folder_error(name: str) -> str | None:
    if not name.strip():
        return "a folder needs a name"
    return "this exists already; a merge makes a new folder" if Path(name.strip()).expanduser().exists() else None
