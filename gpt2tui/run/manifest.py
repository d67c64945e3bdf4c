"""A checkpoint's manifest, which is written last: what the folder holds, of which run, and how good it is.

format_version  2; format 1, which had neither kinds nor parent, fingerprint and metrics, is still read
kind            "full", or "adapter", which this version cannot load
step, run_id    which update of which run
parent          the run id and step it was resumed or started from, or null
data_fingerprint
metrics         by name, finite numbers or null
validation_sample  what val_loss was measured over; absent when nobody has said so
files           name -> kind, size in bytes, SHA-256
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from gpt2tui.errors import CheckpointError
from gpt2tui.system.files import open_regular

FORMAT_VERSION = 2
MANIFEST = "MANIFEST.json"
LARGEST_JSON_BYTES = 64 * 2**20
NEEDED = ("model.safetensors", "config.json", "trainer.json", "preset.toml")

FileKind = Literal["weights", "config", "tokenizer", "training_state", "trainer", "preset"]
FILE_KINDS: Mapping[str, FileKind] = {
    "model.safetensors": "weights",
    "config.json": "config",
    "training_state.safetensors": "training_state",
    "trainer.json": "trainer",
    "preset.toml": "preset",
}
"""All other files of a checkpoint are the tokenizer's."""


@dataclass(frozen=True)
class Parent:
    """The checkpoint that a run was resumed from, or started from."""

    run_id: str
    step: int


@dataclass(frozen=True)
class CheckpointFile:
    """A file of a checkpoint as its manifest has it."""

    kind: FileKind
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose manifest parses and whose files have the sizes it names."""

    folder: Path
    step: int
    run_id: str
    files: Mapping[str, CheckpointFile]
    metrics: Mapping[str, float] = field(default_factory=dict)
    """val_loss (nats per token), perplexity, bits_per_byte, measured at this very step; what is not known is absent."""
    validation_sample: str | None = None
    """What val_loss was measured over: losses over different samples do not compare. None where it is not known."""
    parent: Parent | None = None
    data_fingerprint: str | None = None
    """Of the corpus it was trained on; format 1 has it in trainer.json only."""
    skipped: tuple[str, ...] = ()
    """What was wrong with others that might have been chosen before it, or stood in its place."""

    @property
    def bytes(self) -> int:
        """What it takes on disk."""
        return sum(file.bytes for file in self.files.values())

    @property
    def val_loss(self) -> float | None:
        """In nats per token, over the fixed sample of the validation text; None when it was not measured."""
        return self.metrics.get("val_loss")


def file_entry(path: Path, digest: str) -> CheckpointFile:
    """What a manifest says of a file in its folder."""
    return CheckpointFile(FILE_KINDS.get(path.name, "tokenizer"), path.stat().st_size, digest)


def manifest_text(
    *,
    step: int,
    run_id: str,
    parent: Parent | None,
    data_fingerprint: str,
    metrics: Mapping[str, float | None],
    validation_sample: str | None,
    files: Mapping[str, CheckpointFile],
) -> str:
    """The manifest of a full checkpoint; metrics that are not finite become null."""
    manifest = {
        "format_version": FORMAT_VERSION,
        "kind": "full",
        "step": step,
        "run_id": run_id,
        "parent": asdict(parent) if parent else None,
        "data_fingerprint": data_fingerprint,
        "metrics": {name: value if _is_finite(value) else None for name, value in metrics.items()},
        "validation_sample": validation_sample,
        "files": {name: asdict(file) for name, file in files.items()},
    }
    return json.dumps(manifest, indent=2, allow_nan=False) + "\n"


def inspect(folder: Path) -> Checkpoint:
    """Reads a checkpoint's manifest, of format 1 or 2, and compares sizes; digests are for `verify`.

    Raises CheckpointError naming the first thing that is wrong.
    """
    path = folder / MANIFEST
    if path.is_symlink() or not path.is_file():
        raise CheckpointError(f"{folder} is not a checkpoint: it has no {MANIFEST} (it is written last)")
    manifest = read_json(path)
    version = manifest.get("format_version")
    if version not in (1, FORMAT_VERSION):
        raise CheckpointError(
            f"{folder} has checkpoint format {version!r}; this version of gpt2tui reads formats 1 and {FORMAT_VERSION}"
        )
    if version != 1 and manifest.get("kind") == "adapter":
        raise CheckpointError(f"{folder} holds an adapter, which this version of gpt2tui cannot load")
    try:
        found = _of_format_1(folder, manifest) if version == 1 else _of_format_2(folder, manifest)
    except (KeyError, TypeError, AttributeError, ValueError):
        raise CheckpointError(f"{path} is not a manifest of gpt2tui") from None
    for name in sorted({*found.files, *NEEDED}):
        # A manifest from elsewhere must not make us read outside its own folder, and may name what no path can be.
        if name != Path(name).name or os.path.islink(folder / name):  # noqa: PTH114 does not raise
            raise CheckpointError(f"{path} names a file outside its folder: {name[:100]!r}")
        size = _size(folder / name)
        if name not in found.files or size is None:
            raise CheckpointError(f"{folder} is damaged: {name[:100]} is missing")
        if size != found.files[name].bytes:
            raise CheckpointError(f"{folder} is damaged: {name} has {size:,} bytes, not {found.files[name].bytes:,}")
    return found


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of bounded size, from a regular file. Raises CheckpointError."""
    try:
        with open(open_regular(path, follow_links=True), "rb") as file:  # noqa: PTH123 a descriptor
            content = file.read(LARGEST_JSON_BYTES + 1)
        if len(content) > LARGEST_JSON_BYTES:
            raise CheckpointError(f"{path} is too large to be what its name says")
        value = json.loads(content.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} does not hold a JSON object")
    return value


def _of_format_2(folder: Path, manifest: Mapping[str, Any]) -> Checkpoint:
    """Raises KeyError, TypeError, AttributeError or ValueError when it is no such manifest."""
    parent, fingerprint = manifest["parent"], manifest["data_fingerprint"]
    files = {name: CheckpointFile(f["kind"], f["bytes"], f["sha256"]) for name, f in manifest["files"].items()}
    metrics = {name: value for name, value in manifest["metrics"].items() if value is not None}
    found = Checkpoint(
        folder,
        manifest["step"],
        manifest["run_id"],
        files,
        metrics,
        manifest.get("validation_sample"),
        None if parent is None else Parent(parent["run_id"], parent["step"]),
        fingerprint,
    )
    is_sound = (
        manifest["kind"] == "full"
        and isinstance(fingerprint, str)
        and isinstance(found.validation_sample, str | None)
        and all(isinstance(file.kind, str) for file in files.values())
        and (found.parent is None or _is_place(found.parent.run_id, found.parent.step))
    )
    return _checked(found, is_sound)


def _of_format_1(folder: Path, manifest: Mapping[str, Any]) -> Checkpoint:
    """The same of the older format, whose only metric is the val_loss and whose files have no kinds."""
    files = {
        name: CheckpointFile(FILE_KINDS.get(name, "tokenizer"), f["bytes"], f["sha256"])
        for name, f in manifest["files"].items()
    }
    val_loss = manifest.get("val_loss")
    metrics = {} if val_loss is None else {"val_loss": val_loss}
    return _checked(Checkpoint(folder, manifest["step"], manifest["run_id"], files, metrics))


def _checked(found: Checkpoint, is_sound: bool = True) -> Checkpoint:
    """Raises ValueError when a manifest's values cannot be what they stand for."""
    is_sound = (
        is_sound
        and _is_place(found.run_id, found.step)
        and all(type(file.bytes) is int and isinstance(file.sha256, str) for file in found.files.values())
        and all(_is_finite(value) for value in found.metrics.values())
    )
    if not is_sound:
        raise ValueError
    return found


def _is_place(run_id: object, step: object) -> bool:
    return isinstance(run_id, str) and type(step) is int and step >= 0


def _is_finite(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _size(path: Path) -> int | None:
    """The size of a regular file; None where there is none, or none can be: the name may come from elsewhere."""
    try:
        return path.stat().st_size if path.is_file() else None
    except (OSError, ValueError):
        return None
