"""An export: built beside its place, read back and run, and put in its place only when it is the model."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpt2tui.errors import ResourceError, UsageError
from gpt2tui.export import gguf, huggingface, onnx, tensorrt, weights
from gpt2tui.export.verification import GREEDY_TOKENS, Checked, Dtype, Reference
from gpt2tui.generation import TextModel, load
from gpt2tui.model_files import find
from gpt2tui.run.model_lookup import is_adapter
from gpt2tui.system.files import sha256, sync_file, sync_folder

MODULES = {"huggingface": huggingface, "safetensors": weights, "gguf": gguf, "onnx": onnx, "tensorrt": tensorrt}
REQUIREMENTS = {"gguf": gguf.require_exportable, "onnx": onnx.require_exportable, "tensorrt": onnx.require_exportable}
STORED_TYPES: Mapping[str, tuple[Dtype, ...]] = {"onnx": ("fp32", "int8"), "tensorrt": ("fp32",)}
"""Of the formats that do not store fp32, fp16 and bf16."""
SUFFIXES = {"safetensors": ".safetensors", "gguf": ".gguf"}
"""Of the formats that are one file; the others are folders."""


@dataclass(frozen=True)
class ExportedFile:
    """A file of an export."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Export:
    """A verified export in its place."""

    path: Path
    format: str
    dtype: Dtype
    parameters: int
    files: tuple[ExportedFile, ...]
    checked: Checked

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "path": str(self.path),
            "format": self.format,
            "dtype": self.dtype,
            "parameters": self.parameters,
            "files": [asdict(file) for file in self.files],
            "verified": [asdict(found) | {"greedy_tokens": GREEDY_TOKENS} for found in self.checked.verifications],
            "not_run_in": list(self.checked.not_run_in),
            "notes": list(self.checked.notes),
            "quantization": None if self.checked.quantization is None else asdict(self.checked.quantization),
        }


def load_for_export(reference: str, *, merge: bool) -> TextModel:
    """The model that a CHECKPOINT argument means, on the CPU in fp32; an adapter with `merge` alone, added to its base.

    Raises UsageError for an adapter without `merge` and a whole model with it, and as `generation.load` does.
    """
    found = find(reference)
    if merge and not is_adapter(found.folder):
        raise UsageError(f"{found.folder} is a whole model already, not an adapter: leave out --merge")
    if is_adapter(found.folder) and not merge:
        raise UsageError(f"{found.folder} is an adapter, which PEFT loads as it is; --merge adds it to its base")
    return load(found.hub_id or str(found.folder), device="cpu", precision="fp32")


def export(
    model: TextModel,
    export_format: str,
    to: Path,
    dtype: Dtype = "fp32",
    report: Callable[[str], None] = lambda _: None,
) -> Export:
    """Writes a model (on the CPU, in fp32) to a new file or folder `to`, when it has been read back and run.

    `report` is called with what is being done. Raises UsageError when `to` exists or the format cannot hold the model,
    CheckpointError when what was read back is not the model, ResourceError when it cannot be written; then nothing is
    left.
    """
    module: Any = MODULES[export_format]
    suffix = SUFFIXES.get(export_format)
    if to.exists() and (suffix or not to.is_dir() or any(to.iterdir())):
        raise UsageError(f"--to {to} exists already; choose another {'file' if suffix else 'folder'}")
    if suffix and to.suffix != suffix:
        raise UsageError(f"--to {to} must end in {suffix}, by which other programs know the format")
    stored = STORED_TYPES.get(export_format, ("fp32", "fp16", "bf16"))
    if dtype not in stored:
        raise UsageError(f"--format {export_format} has no --dtype {dtype}; choose {' or '.join(stored)}")
    if export_format in REQUIREMENTS:
        REQUIREMENTS[export_format](model)
    with _new_folder_beside(to) as building:
        path = building / to.name if suffix else building
        report(f"writing {export_format} in {dtype}")
        module.write(model, path, dtype)
        report("reading it back and running it")
        checked = module.check(model, path, dtype, Reference(model))
        written = sorted(building.iterdir())
        for file in written:
            sync_file(file)
        files = tuple(ExportedFile(file.name, file.stat().st_size, sha256(file)) for file in written)
        sync_folder(building)
        os.replace(path, to)  # noqa: PTH105 a folder replaces an empty one
        sync_folder(to.parent)
    return Export(to, export_format, dtype, model.num_parameters, files, checked)


@contextmanager
def _new_folder_beside(to: Path) -> Iterator[Path]:
    """A new folder in that of `to`, which is removed at the end with what is left in it."""
    building = to.with_name(f".{to.name}.{os.getpid()}.unverified")
    try:
        building.mkdir(parents=True)
        yield building
    except OSError as error:
        raise ResourceError(f"{to} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
