"""A checkpoint's manifest, which is written last: its files, its run, and its metrics.

format_version  2; format 1, without kinds, parent, fingerprint and metrics, is still read
kind            "full", or "adapter": factors that belong to the weights of the origin
step, run_id    which update of which run
parent          the run id and step it was resumed from, or null
origin          the weights that its run started from, or null; absent in older checkpoints
data_fingerprint
metrics         by name, finite numbers or null
validation_sample  what val_loss was measured over; absent in older checkpoints
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
from gpt2tui.system.files import read_json

FORMAT_VERSION = 2
MANIFEST = "MANIFEST.json"
CheckpointKind = Literal["full", "adapter"]
NEEDED: Mapping[CheckpointKind, tuple[str, ...]] = {
    "full": ("model.safetensors", "config.json", "trainer.json", "preset.toml"),
    "adapter": ("adapter_model.safetensors", "adapter_config.json", "config.json", "trainer.json", "preset.toml"),
}

FileKind = Literal["weights", "config", "tokenizer", "training_state", "trainer", "preset"]
FILE_KINDS: Mapping[str, FileKind] = {
    "model.safetensors": "weights",
    "adapter_model.safetensors": "weights",
    "config.json": "config",
    "adapter_config.json": "config",
    "training_state.safetensors": "training_state",
    "trainer.json": "trainer",
    "preset.toml": "preset",
}
"""All other files of a checkpoint are the tokenizer's."""


@dataclass(frozen=True)
class Parent:
    """The checkpoint from which a run was resumed."""

    run_id: str
    step: int


@dataclass(frozen=True)
class Origin:
    """The weights that a run started from at its step 0."""

    source: str
    """A folder, or an id of the Hugging Face Hub."""
    sha256: str
    """Of the file of the weights; of several files that of their digests."""
    run_id: str | None = None
    """The run and the step of the checkpoint that they are; None for a model of another program."""
    step: int | None = None

    def __str__(self) -> str:
        """The source, with the step of a checkpoint unless its folder says it."""
        return self.source if self.step is None or "step-" in self.source else f"{self.source}, step {self.step:,}"


@dataclass(frozen=True)
class CheckpointFile:
    """A file of a checkpoint as listed in its manifest."""

    kind: FileKind
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose manifest parses and whose files have the listed sizes."""

    folder: Path
    step: int
    run_id: str
    files: Mapping[str, CheckpointFile]
    metrics: Mapping[str, float] = field(default_factory=dict)
    """val_loss (nats per token), perplexity, bits_per_byte, measured at this step; unknown ones are absent."""
    validation_sample: str | None = None
    """What val_loss was measured over: losses over different samples do not compare. None where it is not known."""
    parent: Parent | None = None
    origin: Origin | None = None
    data_fingerprint: str | None = None
    """Of the training corpus; None in format 1, which has it in trainer.json."""
    kind: CheckpointKind = "full"
    skipped: tuple[str, ...] = ()
    """Why other checkpoints were not chosen before it, or were moved out of its place."""

    @property
    def bytes(self) -> int:
        """The size on disk."""
        return sum(file.bytes for file in self.files.values())

    @property
    def val_loss(self) -> float | None:
        """In nats per token, over the fixed sample of the validation text; None when it was not measured."""
        return self.metrics.get("val_loss")


def file_entry(path: Path, digest: str) -> CheckpointFile:
    """The manifest's entry for a file."""
    return CheckpointFile(FILE_KINDS.get(path.name, "tokenizer"), path.stat().st_size, digest)


def manifest_text(
    *,
    kind: CheckpointKind,
    step: int,
    run_id: str,
    parent: Parent | None,
    origin: Origin | None,
    data_fingerprint: str,
    metrics: Mapping[str, float | None],
    validation_sample: str | None,
    files: Mapping[str, CheckpointFile],
) -> str:
    """The manifest of a checkpoint; metrics that are not finite become null."""
    manifest = {
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "step": step,
        "run_id": run_id,
        "parent": asdict(parent) if parent else None,
        "origin": asdict(origin) if origin else None,
        "data_fingerprint": data_fingerprint,
        "metrics": {name: value if _is_finite(value) else None for name, value in metrics.items()},
        "validation_sample": validation_sample,
        "files": {name: asdict(file) for name, file in files.items()},
    }
    return json.dumps(manifest, indent=2, allow_nan=False) + "\n"


def inspect(folder: Path) -> Checkpoint:
    """Reads a checkpoint's manifest, of format 1 or 2, and compares sizes; `verify` compares digests too.

    Raises CheckpointError for the first problem.
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
    try:
        found = _of_format_1(folder, manifest) if version == 1 else _of_format_2(folder, manifest)
    except (KeyError, TypeError, AttributeError, ValueError):
        raise CheckpointError(f"{path} is not a manifest of gpt2tui") from None
    for name in sorted({*found.files, *NEEDED[found.kind]}):
        # A manifest from elsewhere must not lead outside its folder, and may contain names that are not valid paths.
        if name != Path(name).name or os.path.islink(folder / name):  # noqa: PTH114 does not raise
            raise CheckpointError(f"{path} names a file outside its folder: {name[:100]!r}")
        size = _size(folder / name)
        if name not in found.files or size is None:
            raise CheckpointError(f"{folder} is damaged: {name[:100]} is missing")
        if size != found.files[name].bytes:
            raise CheckpointError(f"{folder} is damaged: {name} has {size:,} bytes, not {found.files[name].bytes:,}")
    return found


def _of_format_2(folder: Path, manifest: Mapping[str, Any]) -> Checkpoint:
    """Raises KeyError, TypeError, AttributeError or ValueError when the manifest is not sound."""
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
        origin_of(manifest),
        fingerprint,
        manifest["kind"],
    )
    is_sound = (
        manifest["kind"] in NEEDED
        and (found.kind == "full" or found.origin is not None)
        and isinstance(fingerprint, str)
        and isinstance(found.validation_sample, str | None)
        and all(isinstance(file.kind, str) for file in files.values())
        and (found.parent is None or _is_run_and_step(found.parent.run_id, found.parent.step))
    )
    return _checked(found, is_sound)


def origin_of(description: Mapping[str, Any]) -> Origin | None:
    """The origin in a manifest or in a run.json. Raises ValueError or KeyError when it is not sound."""
    origin = description.get("origin")
    if origin is None:
        return None
    found = Origin(origin["source"], origin["sha256"], origin["run_id"], origin["step"])
    is_checkpoint = _is_run_and_step(found.run_id, found.step)
    if not (isinstance(found.source, str) and isinstance(found.sha256, str)):
        raise ValueError
    if not is_checkpoint and not (found.run_id is None and found.step is None):
        raise ValueError
    return found


def _of_format_1(folder: Path, manifest: Mapping[str, Any]) -> Checkpoint:
    """The older format, whose only metric is val_loss and whose files have no kinds. Raises the same."""
    files = {
        name: CheckpointFile(FILE_KINDS.get(name, "tokenizer"), f["bytes"], f["sha256"])
        for name, f in manifest["files"].items()
    }
    val_loss = manifest.get("val_loss")
    metrics = {} if val_loss is None else {"val_loss": val_loss}
    return _checked(Checkpoint(folder, manifest["step"], manifest["run_id"], files, metrics))


def _checked(found: Checkpoint, is_sound: bool = True) -> Checkpoint:
    """Returns `found`. Raises ValueError when its values have wrong types or ranges."""
    is_sound = (
        is_sound
        and _is_run_and_step(found.run_id, found.step)
        and all(type(file.bytes) is int and isinstance(file.sha256, str) for file in found.files.values())
        and all(_is_finite(value) for value in found.metrics.values())
    )
    if not is_sound:
        raise ValueError
    return found


def _is_run_and_step(run_id: object, step: object) -> bool:
    return isinstance(run_id, str) and type(step) is int and step >= 0


def _is_finite(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _size(path: Path) -> int | None:
    """The size of a regular file; None if there is none or the name is not a valid path."""
    try:
        return path.stat().st_size if path.is_file() else None
    except (OSError, ValueError):
        return None
