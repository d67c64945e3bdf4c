"""The checkpoint folder: written atomically, verified before use, pruned after the next one is durable.

    step-00001000/
        model.safetensors  config.json         the published GPT-2 layout: transformers loads the folder as it is
        adapter_model.safetensors, adapter_config.json    of a LoRA run instead of the model: PEFT loads them
        tokenizer files                        AutoTokenizer loads it too
        training_state.safetensors             optimizer moments, as tensors
        trainer.json  preset.toml              progress of the training, and its settings
        MANIFEST.json                          list of the files, see `manifest`; written last

It is built in a temporary folder beside its final name, every file and the folder synced, then renamed. Checkpoints are
ordered by the step in the manifest; those whose run_id differs from the run.json beside the folder of checkpoints are
skipped. Nothing is ever pickled.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2tui.errors import CheckpointError, ResourceError, UsageError
from gpt2tui.run.aliases import aliases_of
from gpt2tui.run.manifest import MANIFEST, Checkpoint, Origin, Parent, file_entry, inspect, manifest_text
from gpt2tui.system.files import (
    free_name,
    is_utf8,
    open_regular,
    read_json,
    replace_text,
    sha256,
    sync_file,
    sync_folder,
)
from gpt2tui.system.numbers import as_json

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "MANIFEST",
    "Check",
    "Checkpoint",
    "Origin",
    "Parent",
    "at",
    "best",
    "best_of",
    "folder_name",
    "inspect",
    "is_unchanged",
    "load_tensors",
    "newest",
    "problems_in",
    "prunable",
    "prune",
    "read_json",
    "remove_leftovers",
    "saved_in",
    "set_aside",
    "verify",
    "write",
]

Check = Callable[[Path], Checkpoint]
"""`verify`, or `inspect`, which does not read the files. Both raise CheckpointError."""
RUN_INFO = "run.json"
TEMPORARY_PREFIX = ".writing-"
REPLACED_PREFIX = ".replaced-"
OTHER_RUN_PREFIX = "other-run-"
SET_ASIDE_PREFIX = "set-aside-"
LARGEST_HEADER_BYTES = 4 * 2**20  # of a safetensors file; that of GPT-2 XL has 0.1 MB
ATTEMPTS = 10
"""How often a reader searches again after a running training has deleted the checkpoint it found."""


def folder_name(step: int) -> str:
    """The folder name of the checkpoint of a step; sorts like the step."""
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
    metrics: Mapping[str, float | None],
    data_fingerprint: str,
    validation_sample: str | None = None,
    parent: Parent | None = None,
    origin: Origin | None = None,
) -> Checkpoint:
    """Writes the checkpoint of `step` into the folder `checkpoints` of an existing run; returns when it is durable.

    `tensors` maps a file's stem ("model" or "adapter_model", "training_state") to its named tensors, `documents` a
    file's name to its text, `trainer` becomes trainer.json; metrics that are not finite become null. Raises
    ResourceError if the run is gone, the disk is full or cannot be written; older checkpoints stay unchanged. A
    checkpoint of another run with the same name is moved aside, and `skipped` of the result says so.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    final = checkpoints / folder_name(step)
    building = checkpoints / f"{TEMPORARY_PREFIX}{folder_name(step)}-{os.getpid()}"
    try:
        shutil.rmtree(building, ignore_errors=True)
        checkpoints.mkdir(exist_ok=True)  # without parents: a run folder that was moved away is not created again
        building.mkdir()
        for stem, named in tensors.items():
            save_file(
                {k: v.contiguous() for k, v in named.items()},
                building / f"{stem}.safetensors",
                {"format": "pt"},
            )
        for name, text in documents.items():
            (building / name).write_text(text, encoding="utf-8", newline="\n")
        (building / "trainer.json").write_text(as_json(trainer, indent=2) + "\n", encoding="utf-8")
        save_tokenizer(building)
        files = {}
        for path in sorted(building.iterdir()):
            sync_file(path)
            files[path.name] = file_entry(path, sha256(path))
        text = manifest_text(
            kind="adapter" if "adapter_model" in tensors else "full",
            step=step,
            run_id=run_id,
            parent=parent,
            origin=origin,
            data_fingerprint=data_fingerprint,
            metrics=metrics,
            validation_sample=validation_sample,
            files=files,
        )
        replace_text(building / MANIFEST, text)
        written = inspect(building)
        moved = _move_other_run_aside(final, run_id)
        _put_in_place(building, final)
    except (OSError, SafetensorError, CheckpointError) as error:
        raise ResourceError(
            f"the checkpoint of step {step} could not be saved in {checkpoints}: {_why(error)}"
        ) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return replace(written, folder=final, skipped=moved)


def verify(folder: Path) -> Checkpoint:
    """`inspect`, and compares every file's SHA-256. Raises CheckpointError."""
    checkpoint = inspect(folder)
    for name, file in checkpoint.files.items():
        try:
            digest = sha256(folder / name)
        except OSError as error:
            raise CheckpointError(f"{folder} is damaged: {name} cannot be read: {error.strerror or error}") from error
        if digest != file.sha256:
            raise CheckpointError(f"{folder} is damaged: {name} does not have the SHA-256 that was written with it")
    return checkpoint


def is_unchanged(checkpoint: Checkpoint) -> bool:
    """Whether the folder still has the same manifest and sizes."""
    try:
        return inspect(checkpoint.folder).files == checkpoint.files
    except CheckpointError:
        return False


def saved_in(checkpoints: Path) -> list[Checkpoint]:
    """The valid checkpoints of a run, by step, oldest first.

    Damaged ones and those of another run (by the run.json beside the folder) are left out, here and in every other
    function that searches for checkpoints.
    """
    return _find_all(checkpoints, _run_id_beside(checkpoints))[0]


def problems_in(checkpoints: Path) -> list[str]:
    """Why `saved_in` leaves out a checkpoint, for each."""
    return _find_all(checkpoints, _run_id_beside(checkpoints))[1]


def best_of(saved: Collection[Checkpoint]) -> Checkpoint | None:
    """The checkpoint with the lowest val_loss in its manifest, the later of two equal ones; None without any.

    Among those that were measured over the validation sample of the newest one.
    """
    return next(iter(_by_quality(saved)), None)


def newest(checkpoints: Path, check: Check = verify) -> Checkpoint:
    """The newest checkpoint whose digests match; its `skipped` says why newer ones were not chosen.

    With `inspect` as the `check` its sizes match, here and in the two functions below. Raises CheckpointError with the
    reasons when there is none.
    """
    return _first_valid(checkpoints, lambda saved: list(reversed(saved)), check)


def best(checkpoints: Path, check: Check = verify) -> Checkpoint:
    """The valid checkpoint with the lowest val_loss, else the newest. Raises CheckpointError when there is none."""

    def in_order(saved: list[Checkpoint]) -> list[Checkpoint]:
        rated = _by_quality(saved)
        return [*rated, *(c for c in reversed(saved) if c not in rated)]

    return _first_valid(checkpoints, in_order, check)


def at(checkpoints: Path, step: int, check: Check = verify) -> Checkpoint:
    """The checkpoint of a step. Raises CheckpointError when there is none or it is damaged."""
    saved = saved_in(checkpoints)
    for found in saved:
        if found.step == step:
            return check(found.folder)
    there = f"it has those of the steps {', '.join(str(c.step) for c in saved)}" if saved else "it has none"
    damaged = [problem for problem in problems_in(checkpoints) if folder_name(step) in problem]
    message = f"{checkpoints.parent} has no valid checkpoint of step {step}; {there}"
    raise CheckpointError("\n".join([message, *damaged]))


def set_aside(folder: Path) -> Path:
    """Renames a checkpoint so that it is kept but no longer one of its run; returns its new folder.

    Raises ResourceError when it cannot be renamed.
    """
    aside = free_name(folder.with_name(f"{SET_ASIDE_PREFIX}{folder.name}"))
    try:
        folder.rename(aside)
    except OSError as error:
        raise ResourceError(f"{folder} cannot be renamed to {aside.name}: {error.strerror or error}") from error
    return aside


def load_tensors(path: Path) -> dict[str, "Tensor"]:
    """The named tensors of a safetensors file, on the CPU. Raises CheckpointError, or that memory does not suffice."""
    from safetensors import SafetensorError
    from safetensors.torch import load, load_file

    try:
        _check_header(path)
        # The library opens no path that is not UTF-8.
        return load_file(path) if is_utf8(path) else load(path.read_bytes())
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        if "allocate memory" in str(error):
            raise
        # A RuntimeError: torch cannot map the file, as when it was deleted after its header was read.
        raise CheckpointError(f"{path} cannot be read as safetensors: {error}") from error


def _check_header(path: Path) -> None:
    """Raises CheckpointError when the header, whose size is in the first 8 bytes, is larger than any GPT-2's."""
    with open(open_regular(path, follow_links=True), "rb") as file:  # noqa: PTH123 a descriptor
        size = int.from_bytes(file.read(8), "little")
    if size > LARGEST_HEADER_BYTES:
        raise CheckpointError(
            f"{path} cannot be read as safetensors: its header of {size:,} bytes is not that of a GPT-2 model"
        )


def prune(checkpoints: Path, *, run_id: str, keep: int, protected: Collection[int] = ()) -> None:
    """Deletes the run's checkpoints except the newest `keep`, the best, tagged ones, and those of `protected` steps.

    Raises nothing. Each is renamed first, so that a half-deleted folder is not taken for a checkpoint. While the file
    of tags cannot be read, none is deleted.
    """
    with contextlib.suppress(UsageError):
        for checkpoint in prunable(checkpoints, run_id=run_id, keep=keep, protected=protected):
            doomed = checkpoints / f"{TEMPORARY_PREFIX}deleting-{checkpoint.folder.name}"
            try:
                checkpoint.folder.replace(doomed)
            except OSError:
                continue
            shutil.rmtree(doomed, ignore_errors=True)


def prunable(checkpoints: Path, *, run_id: str, keep: int, protected: Collection[int] = ()) -> list[Checkpoint]:
    """The checkpoints that `prune` deletes. Raises UsageError when the file of tags cannot be read."""
    saved, _ = _find_all(checkpoints, run_id)
    kept = {c.step for c in saved[-keep:]} | set(protected) | {a.step for a in aliases_of(checkpoints.parent)}
    if (best := best_of(saved)) is not None:
        kept.add(best.step)
    return [checkpoint for checkpoint in saved if checkpoint.step not in kept]


def remove_leftovers(checkpoints: Path) -> None:
    """Removes what a killed process left half written or half deleted; the caller holds the run's lock.

    A checkpoint that was to be replaced is restored if its replacement is missing.
    """
    for path in checkpoints.glob(f"{REPLACED_PREFIX}*"):
        final = checkpoints / path.name.removeprefix(REPLACED_PREFIX)
        if not final.exists():
            path.replace(final)
        shutil.rmtree(path, ignore_errors=True)
    for path in checkpoints.glob(f"{TEMPORARY_PREFIX}*"):
        shutil.rmtree(path, ignore_errors=True)


def _by_quality(saved: Collection[Checkpoint]) -> list[Checkpoint]:
    """Those with a val_loss over the validation sample of the newest of them, the best first."""
    measured = sorted((c for c in saved if c.val_loss is not None), key=lambda checkpoint: checkpoint.step)
    same = [c for c in reversed(measured) if c.validation_sample == measured[-1].validation_sample]
    return sorted(same, key=lambda checkpoint: checkpoint.metrics["val_loss"])


def _run_id_beside(checkpoints: Path) -> str | None:
    """The run_id in the run.json beside the folder of checkpoints; None if it is unknown."""
    try:
        run_id = read_json(checkpoints.parent / RUN_INFO).get("run_id")
    except CheckpointError:
        return None
    return run_id if isinstance(run_id, str) else None


def _find_all(checkpoints: Path, run_id: str | None) -> tuple[list[Checkpoint], list[str]]:
    """The valid checkpoints by step, and what is wrong with the other folders.

    Those of another run than `run_id` are not valid here. One that is deleted or replaced while we look is nothing to
    complain about.
    """
    saved: list[Checkpoint] = []
    problems: list[str] = []
    for folder in _folders(checkpoints):
        try:
            try:
                found = inspect(folder)
            except CheckpointError:
                if not folder.exists():
                    continue
                found = inspect(folder)  # it may just have been replaced; a damaged one fails again
        except CheckpointError as error:
            if folder.exists():
                problems.append(str(error))
            continue
        if run_id is not None and found.run_id != run_id:
            problems.append(f"{folder} is a checkpoint of another run ({found.run_id[:100]})")
        else:
            saved.append(found)
    return sorted(saved, key=lambda checkpoint: checkpoint.step), problems


def _folders(checkpoints: Path) -> list[Path]:
    try:
        return sorted(path for path in checkpoints.iterdir() if path.name.startswith("step-"))
    except OSError:  # there is no such folder, or no longer
        return []


def _first_valid(
    checkpoints: Path, in_order: Callable[[list[Checkpoint]], list[Checkpoint]], check: Check
) -> Checkpoint:
    """The first checkpoint that passes the check; searches again when a running training has deleted some meanwhile."""
    for _ in range(ATTEMPTS):
        saved, problems = _find_all(checkpoints, _run_id_beside(checkpoints))
        vanished = False
        for checkpoint in in_order(saved):
            try:
                return replace(check(checkpoint.folder), skipped=tuple(problems))
            except CheckpointError as error:
                if checkpoint.folder.exists():
                    problems.append(str(error))
                else:
                    vanished = True
        if not vanished:
            break
    if not problems:
        raise CheckpointError(
            f"{checkpoints.parent} has no checkpoint yet: a run saves one every training.checkpoint_frequency steps, "
            "and at its end; another run is named as gpt2tui runs list shows it"
        )
    raise CheckpointError("\n".join([f"{checkpoints.parent} has no valid checkpoint", *problems]))


def _move_other_run_aside(final: Path, run_id: str) -> tuple[str, ...]:
    """Renames a checkpoint of another run that has the name of the new one; returns a warning about it."""
    try:
        owner = read_json(final / MANIFEST).get("run_id")
    except CheckpointError:
        return ()
    if owner == run_id or not isinstance(owner, str):
        return ()
    aside = free_name(final.with_name(f"{OTHER_RUN_PREFIX}{final.name}"))
    final.rename(aside)
    return (f"{final} was a checkpoint of another run; it is now {aside}",)


def _put_in_place(building: Path, final: Path) -> None:
    replaced = building.with_name(f"{REPLACED_PREFIX}{final.name}")
    sync_folder(building)
    if final.exists():  # a damaged one, or one from before the run was resumed at an earlier step
        final.replace(replaced)
    building.replace(final)
    sync_folder(final.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _why(error: Exception) -> str:
    code = getattr(error, "errno", None)
    full = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the quota is used up",
        errno.EFBIG: "a file would be too large",
    }
    if code in full:
        return full[code]
    if "os error 28" in str(error):  # safetensors reports errno only in its message
        return full[errno.ENOSPC]
    if "os error 27" in str(error):
        return full[errno.EFBIG]
    return str(error)
