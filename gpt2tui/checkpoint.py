"""The checkpoint folder: written whole or not at all, verified before use, pruned after the next one is safe.

    step-00001000/
        model.safetensors  config.json         the published GPT-2 layout: transformers loads the folder as it is
        tokenizer files                        AutoTokenizer loads it too
        training_state.safetensors             optimizer moments and random states, as tensors
        trainer.json  preset.toml              where training stands, and what defines it
        MANIFEST.json                          format version, step, run id, size and SHA-256 of each file; written last

It is built in a temporary folder beside its final name, every file and the folder synced, then renamed. Discovery
goes by the step in the manifest. Nothing is ever pickled.
"""

import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2tui.durable import replace_text, sha256, sync_file, sync_folder
from gpt2tui.errors import CheckpointError, ResourceError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT_VERSION = 1
MANIFEST = "MANIFEST.json"
LARGEST_JSON_BYTES = 64 * 2**20
NEEDED = ("model.safetensors", "config.json", "trainer.json", "preset.toml")
TEMPORARY_PREFIX = ".writing-"
REPLACED_PREFIX = ".replaced-"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose manifest parses and whose files have the sizes it names."""

    folder: Path
    step: int
    run_id: str
    val_loss: float | None
    files: Mapping[str, tuple[int, str]]  # name -> (size in bytes, SHA-256)
    passed_over: tuple[str, ...] = ()  # what was wrong with those that would have been chosen before it

    @property
    def bytes(self) -> int:
        """What it takes on disk."""
        return sum(size for size, _ in self.files.values())


def folder_name(step: int) -> str:
    """The name of the checkpoint of a step; sorts like the step."""
    return f"step-{step:08d}"


def write(
    checkpoints: Path,
    *,
    step: int,
    run_id: str,
    tensors: Mapping[str, Mapping[str, "Tensor"]],
    documents: Mapping[str, str],
    trainer: Mapping[str, Any],
    save_tokenizer: Callable[[Path], None],
) -> Checkpoint:
    """Writes the checkpoint of `step` into the folder `checkpoints` and returns it once it is durable.

    `tensors` maps a file's stem ("model", "training_state") to its named tensors, `documents` a file's name to its
    text, `trainer` becomes trainer.json. Raises ResourceError when the disk is full or cannot be written; what was
    there before stays as it was.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    final = checkpoints / folder_name(step)
    building = checkpoints / f"{TEMPORARY_PREFIX}{folder_name(step)}-{os.getpid()}"
    try:
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        for stem, named in tensors.items():
            save_file(
                {k: v.contiguous() for k, v in named.items()},
                building / f"{stem}.safetensors",
                {"format": "pt"},
            )
        for name, text in documents.items():
            (building / name).write_text(text, encoding="utf-8", newline="\n")
        (building / "trainer.json").write_text(json.dumps(trainer, indent=2) + "\n", encoding="utf-8")
        save_tokenizer(building)
        files = {}
        for path in sorted(building.iterdir()):
            sync_file(path)
            files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
        manifest = {
            "format_version": FORMAT_VERSION,
            "step": step,
            "run_id": run_id,
            "val_loss": trainer.get("val_loss"),
            "files": files,
        }
        replace_text(building / MANIFEST, json.dumps(manifest, indent=2) + "\n")
        _put_in_place(building, final)
    except (OSError, SafetensorError) as error:
        raise ResourceError(
            f"the checkpoint of step {step} could not be saved in {checkpoints}: {_why(error)}"
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return inspect(final)


def inspect(folder: Path) -> Checkpoint:
    """Reads a checkpoint's manifest and compares sizes; digests are for `verify`.

    Raises CheckpointError naming the first thing that is wrong.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise CheckpointError(f"{folder} is not a checkpoint: it has no {MANIFEST} (it is written last)")
    manifest = read_json(path)
    try:
        version = manifest["format_version"]
        if version != FORMAT_VERSION:
            raise CheckpointError(
                f"{folder} has checkpoint format {version!r}; this version of gpt2tui reads format {FORMAT_VERSION}"
            )
        step, run_id, val_loss = manifest["step"], manifest["run_id"], manifest.get("val_loss")
        files = {name: (entry["bytes"], entry["sha256"]) for name, entry in manifest["files"].items()}
        well_formed = (
            type(step) is int
            and step >= 0
            and isinstance(run_id, str)
            and (val_loss is None or (isinstance(val_loss, float) and math.isfinite(val_loss)))
            and all(type(size) is int and isinstance(digest, str) for size, digest in files.values())
        )
    except (KeyError, TypeError, AttributeError):
        well_formed = False
    if not well_formed:
        raise CheckpointError(f"{path} is not a manifest of gpt2tui")
    for name in sorted({*files, *NEEDED}):
        # A manifest from elsewhere must not make us read outside its own folder, and may name what no path can be.
        if name != Path(name).name or os.path.islink(folder / name):  # noqa: PTH114 does not raise
            raise CheckpointError(f"{path} names a file outside its folder: {name[:100]!r}")
        size = _size(folder / name)
        if name not in files or size is None:
            raise CheckpointError(f"{folder} is damaged: {name[:100]} is missing")
        if size != files[name][0]:
            raise CheckpointError(f"{folder} is damaged: {name} has {size:,} bytes, not {files[name][0]:,}")
    return Checkpoint(folder, step, run_id, val_loss, files)


def verify(folder: Path) -> Checkpoint:
    """`inspect`, and every file's SHA-256. Raises CheckpointError; one flipped bit is enough."""
    checkpoint = inspect(folder)
    for name, (_, digest) in checkpoint.files.items():
        if sha256(folder / name) != digest:
            raise CheckpointError(f"{folder} is damaged: {name} does not have the SHA-256 that was written with it")
    return checkpoint


def saved_in(checkpoints: Path) -> list[Checkpoint]:
    """The valid checkpoints in a run's folder of them, by step, oldest first; damaged ones are left out."""
    return [checkpoint for checkpoint in _inspect_all(checkpoints) if isinstance(checkpoint, Checkpoint)]


def damaged_in(checkpoints: Path) -> list[CheckpointError]:
    """What is wrong with the checkpoints that are not valid."""
    return [error for error in _inspect_all(checkpoints) if isinstance(error, CheckpointError)]


def newest(checkpoints: Path) -> Checkpoint:
    """The newest checkpoint whose digests hold; what is wrong with others is in its `passed_over`.

    Raises CheckpointError when there is none, saying why.
    """
    problems = [str(error) for error in damaged_in(checkpoints)]
    for checkpoint in reversed(saved_in(checkpoints)):
        try:
            return replace(verify(checkpoint.folder), passed_over=tuple(problems))
        except CheckpointError as error:
            problems.append(str(error))
    raise CheckpointError("\n".join([f"{checkpoints.parent} has no valid checkpoint", *problems]))


def best(checkpoints: Path) -> Checkpoint:
    """The checkpoint with the lowest held-out loss, else the newest. Raises CheckpointError when there is none."""
    problems: list[str] = []
    for checkpoint in sorted(
        (c for c in saved_in(checkpoints) if c.val_loss is not None), key=lambda c: (c.val_loss, -c.step)
    ):
        try:
            return replace(verify(checkpoint.folder), passed_over=tuple(problems))
        except CheckpointError as error:
            problems.append(str(error))
    return newest(checkpoints)


def load_tensors(path: Path) -> dict[str, "Tensor"]:
    """The named tensors of a safetensors file, on the CPU. Raises CheckpointError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of bounded size. Raises CheckpointError."""
    try:
        if path.stat().st_size > LARGEST_JSON_BYTES:
            raise CheckpointError(f"{path} is too large to be what its name says")
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} does not hold a JSON object")
    return value


def prune(checkpoints: Path, *, keep: int, protected: Collection[int] = ()) -> None:
    """Deletes all but the newest `keep`, the best, and those of the `protected` steps. Raises nothing.

    Each is first renamed, so that a half-deleted one is never taken for a checkpoint.
    """
    saved = saved_in(checkpoints)
    kept = {c.step for c in saved[-keep:]} | set(protected)
    if rated := [c for c in saved if c.val_loss is not None]:
        kept.add(min(rated, key=lambda c: (c.val_loss, -c.step)).step)
    for checkpoint in saved:
        if checkpoint.step not in kept:
            doomed = checkpoints / f"{TEMPORARY_PREFIX}deleting-{checkpoint.folder.name}"
            try:
                checkpoint.folder.replace(doomed)
            except OSError:
                continue
            shutil.rmtree(doomed, ignore_errors=True)


def remove_leftovers(checkpoints: Path) -> None:
    """Clears up after a killed process; the caller holds the run's lock.

    What was half written or half deleted goes. A checkpoint that was about to be replaced comes back when its
    replacement never arrived.
    """
    for path in checkpoints.glob(f"{REPLACED_PREFIX}*"):
        final = checkpoints / path.name.removeprefix(REPLACED_PREFIX)
        if not final.exists():
            path.replace(final)
        shutil.rmtree(path, ignore_errors=True)
    for path in checkpoints.glob(f"{TEMPORARY_PREFIX}*"):
        shutil.rmtree(path, ignore_errors=True)


def _inspect_all(checkpoints: Path) -> Iterator[Checkpoint | CheckpointError]:
    found: list[Checkpoint] = []
    for folder in sorted(checkpoints.glob("step-*")):
        try:
            found.append(inspect(folder))
        except CheckpointError as error:
            yield error
    yield from sorted(found, key=lambda checkpoint: checkpoint.step)


def _put_in_place(building: Path, final: Path) -> None:
    replaced = building.with_name(f"{REPLACED_PREFIX}{final.name}")
    sync_folder(building)
    if final.exists():  # a damaged one, or one of a run that was resumed from further back
        final.replace(replaced)
    building.replace(final)
    sync_folder(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _size(path: Path) -> int | None:
    """The size of a regular file; None where there is none, or none can be: the name may come from elsewhere."""
    try:
        return path.stat().st_size if path.is_file() else None
    except (OSError, ValueError):
        return None


def _why(error: Exception) -> str:
    code = getattr(error, "errno", None)
    full = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the quota is used up",
        errno.EFBIG: "a file would be too large",
    }
    if code in full:
        return full[code]
    if "os error 28" in str(error):  # safetensors reports errno only in words
        return full[errno.ENOSPC]
    if "os error 27" in str(error):
        return full[errno.EFBIG]
    return str(error)
