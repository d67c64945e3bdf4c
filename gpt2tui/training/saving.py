"""Checkpoints saved in the background: copied between two steps, then written and synced by a thread of their own."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt2tui.device import is_out_of_memory, synchronize
from gpt2tui.errors import ResourceError, is_out_of_threads
from gpt2tui.run import checkpoint
from gpt2tui.run import folder as runs
from gpt2tui.run.checkpoint import Checkpoint, Origin, Parent
from gpt2tui.system.host_memory import free_bytes
from gpt2tui.system.threads import lower_priority

SHARE_OF_FREE_MEMORY = 0.5  # the most that a copy may take


@dataclass(frozen=True)
class Snapshot:
    """The contents of a checkpoint; nothing in it may change before it is written."""

    step: int
    run_id: str
    weights: Mapping[str, Tensor]  # published names and layouts, or PEFT's
    is_adapter: bool
    training_state: Mapping[str, Tensor]
    documents: Mapping[str, str]
    trainer: Mapping[str, Any]
    metrics: Mapping[str, float]
    validation_sample: str
    data_fingerprint: str
    parent: Parent | None
    origin: Origin | None = None


@dataclass(frozen=True)
class Saved:
    """The result of saving a checkpoint: the checkpoint, or the error."""

    step: int
    seconds: float  # from before the copy until it was durable
    checkpoint: Checkpoint | None
    error: ResourceError | None


class Buffers:
    """Host memory that is reused for every copy: touching new pages takes most of the time of a copy."""

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] = {}
        self.reserved = False
        self._reserving: threading.Thread | None = None

    def reserve(self, tensors: Mapping[str, Tensor]) -> None:
        """Allocates memory for copies of these tensors in a thread, if there is room."""
        self.reserved = True
        if self._has_room(tensors):
            thread = threading.Thread(target=self._allocate, args=(dict(tensors),), name="memory", daemon=True)
            if _started(thread):
                self._reserving = thread

    def copy(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """Copies of the tensors on the CPU, valid until the next copy; None when there is no room for them."""
        if self._reserving is not None:
            self._reserving.join()
        try:
            return self._copy(tensors) if self._has_room(tensors) else None
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _copy(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        copies = {}
        for name, tensor in tensors.items():
            source = tensor.detach()
            if name not in self._tensors:
                self._tensors[name] = _memory_for(source)
            copies[name] = self._tensors[name].copy_(source, non_blocking=source.is_cuda)
        for device in {tensor.device for tensor in tensors.values()}:
            synchronize(device)
        return copies

    def _has_room(self, tensors: Mapping[str, Tensor]) -> bool:
        missing = sum(tensor.nbytes for name, tensor in tensors.items() if name not in self._tensors)
        return missing <= SHARE_OF_FREE_MEMORY * free_bytes()

    def _allocate(self, tensors: Mapping[str, Tensor]) -> None:
        lower_priority()
        for name, tensor in tensors.items():
            try:
                memory = _memory_for(tensor)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                return  # the copy asks again, and says so
            memory.reshape(-1).view(torch.uint8).numpy().fill(0)  # torch would start a team of OpenMP threads
            self._tensors[name] = memory


class Saver:
    """Writes one snapshot at a time into a run's folder of checkpoints, then prunes old ones."""

    def __init__(self, checkpoints: Path, *, keep: int, save_tokenizer: Callable[[Path], None]) -> None:
        self.checkpoints = checkpoints
        self.keep = keep
        self.save_tokenizer = save_tokenizer
        self.protected: set[int] = set()
        """Steps whose checkpoints are never pruned."""
        self.buffers = Buffers()
        self._thread: threading.Thread | None = None
        self._saved: Saved | None = None
        self._bug: BaseException | None = None

    def begin(self, snapshot: Snapshot, started: float) -> None:
        """Starts writing; `started` is time.perf_counter() from before the copy. Call `wait` before the next `begin`.

        Where the system refuses another thread, it writes at once, in the caller's.
        Raises ResourceError when the run's folder has been moved or replaced, because no later attempt can succeed.
        """
        assert self._thread is None, "two checkpoints at once"
        runs.check_in_place(runs.Run(self.checkpoints.parent), snapshot.run_id)
        # A daemon, so that a second Ctrl-C ends the process at once; a half-written folder is no checkpoint.
        thread = threading.Thread(target=self._write_in_background, args=(snapshot, started), name="checkpoint")
        thread.daemon = True
        if _started(thread):
            self._thread = thread
        else:
            self._write(snapshot, started)

    def finished(self) -> Saved | None:
        """The result of the last `begin`, returned once; None while it is being written, and without one."""
        return None if self._thread is not None and self._thread.is_alive() else self.wait()

    def wait(self) -> Saved | None:
        """Waits for the last `begin` and returns its result; None without one. Raises errors that are bugs."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        saved, self._saved = self._saved, None
        if self._bug is not None:
            bug, self._bug = self._bug, None
            raise bug
        return saved

    def _write_in_background(self, snapshot: Snapshot, started: float) -> None:
        # No torch arithmetic here: a second team of OpenMP threads would slow down the training's.
        lower_priority()
        self._write(snapshot, started)

    def _write(self, snapshot: Snapshot, started: float) -> None:
        written: Checkpoint | None = None
        error: ResourceError | None = None
        try:
            written = checkpoint.write(
                self.checkpoints,
                step=snapshot.step,
                run_id=snapshot.run_id,
                tensors={
                    "adapter_model" if snapshot.is_adapter else "model": snapshot.weights,
                    "training_state": snapshot.training_state,
                },
                documents=snapshot.documents,
                trainer=snapshot.trainer,
                save_tokenizer=self.save_tokenizer,
                metrics=snapshot.metrics,
                validation_sample=snapshot.validation_sample,
                data_fingerprint=snapshot.data_fingerprint,
                parent=snapshot.parent,
                origin=snapshot.origin,
            )
            checkpoint.prune(self.checkpoints, run_id=snapshot.run_id, keep=self.keep, protected=self.protected)
        except ResourceError as caught:
            error = caught
        except BaseException as caught:  # raised by `wait`, in the training thread
            self._bug = caught
            return
        self._saved = Saved(snapshot.step, time.perf_counter() - started, written, error)


def _memory_for(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)


def _started(thread: threading.Thread) -> bool:
    """Starts a thread; False where the system has no more of them."""
    try:
        thread.start()
    except RuntimeError as error:
        if not is_out_of_threads(error):
            raise
        return False
    return True
