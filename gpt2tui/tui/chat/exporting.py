"""Exports a model from the Chat screen: asks for format and place, and writes it in a thread."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import OptionList

from gpt2tui.errors import Gpt2TuiError
from gpt2tui.tui.base import in_own_thread
from gpt2tui.tui.widgets.dialogs import AnyApp, Dialog, DialogBox, TextDialog

if TYPE_CHECKING:
    from gpt2tui.export.verification import Dtype  # which imports torch
    from gpt2tui.export.writing import Export


@dataclass(frozen=True)
class ExportFormat:
    """A format, the type of its weights, what it is for, and how the name of its file ends; a folder's has no end."""

    name: str
    dtype: "Dtype"
    meaning: str
    suffix: str = ""


FORMATS = (
    ExportFormat("huggingface", "fp32", "a folder for transformers, with a model card"),
    ExportFormat("onnx", "fp32", "a folder for onnxruntime and onnxruntime-genai"),
    ExportFormat("onnx", "int8", "the same in 8 bits, with its loss in perplexity"),
    ExportFormat("tensorrt", "fp32", "ONNX with the command for trtexec"),
    ExportFormat("gguf", "fp16", "one file for llama.cpp", ".gguf"),
    ExportFormat("safetensors", "fp32", "the weights alone", ".safetensors"),
)


@dataclass
class ExportProgress(Message):
    """An export has come to its next part."""

    doing: str


@dataclass
class ExportEnded(Message):
    """An export is done, with how it was verified; or has failed with an error."""

    to: Path
    error: str
    checks: tuple[str, ...]


class FormatDialog(Dialog[ExportFormat | None]):
    """A list of FORMATS; returns the chosen one, None on escape."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Back")]

    def compose(self) -> ComposeResult:
        """A line for each format."""
        with DialogBox() as box:
            box.border_title = "Export as"
            box.border_subtitle = "⏎ choose · esc back"
            yield OptionList(*(f"{each.name:<12}{each.dtype:<5} {each.meaning}" for each in FORMATS), markup=False)

    @on(OptionList.OptionSelected)
    def take(self, event: OptionList.OptionSelected) -> None:
        """Returns the format of the line."""
        event.stop()
        self.dismiss(FORMATS[event.option_index])


def is_adapter_reference(reference: str) -> bool:
    """Whether a reference means an adapter. Raises CheckpointError when it means no model."""
    from gpt2tui.run.model_lookup import find_here, is_adapter

    found = find_here(reference, verified=False)
    return found is not None and is_adapter(found.folder)


async def ask(app: AnyApp, group: str, is_adapter: bool) -> tuple[ExportFormat, Path] | None:
    """Asks for the format and the new file or folder; None when the user cancels. To be awaited in a worker."""
    chosen = await app.push_screen_wait(FormatDialog())
    if chosen is None:
        return None
    text = "Read back and run before it is done. "
    if is_adapter:
        text = f"Adds the adapter to its base, as one model; the adapter stays. {text}"
    dialog = TextDialog(
        "Merge the adapter and export" if is_adapter else "Export",
        f"{text}Into the new {'file' if chosen.suffix else 'folder'}",
        f"{group}-{'merged' if is_adapter else chosen.name}{chosen.suffix}",
        validate=_name_error,
    )
    name = await app.push_screen_wait(dialog)
    return (chosen, Path(name.strip()).expanduser()) if name else None


def export_model(
    reference: str, is_adapter: bool, chosen: ExportFormat, to: Path, post: Callable[[Message], object]
) -> None:
    """Exports a model in a thread of its own; posts ExportProgress, and ExportEnded at the end."""

    def work() -> "Export":
        from gpt2tui.export.writing import export, load_for_export

        def report(doing: str) -> None:
            post(ExportProgress(doing))

        report("reading the model")
        model = load_for_export(reference, merge=is_adapter)
        return export(model, chosen.name, to, chosen.dtype, report)

    error = "an unexpected error, which the log has"
    checks: tuple[str, ...] = ()
    try:
        checks = in_own_thread(work, "export").checked.lines()
        error = ""
    except Gpt2TuiError as expected:
        error = str(expected)
    finally:
        post(ExportEnded(to, error, checks))


def _name_error(name: str) -> str | None:
    if not name.strip():
        return "it needs a name"
    return "this exists already; an export is new" if Path(name.strip()).expanduser().exists() else None
