"""Checkpoints that do not hold up training: copied at a step boundary, written and synced by a thread of their own."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from gpt2tui.device import wait_for
from gpt2tui.errors import ResourceError
from gpt2tui.run import checkpoint
from gpt2tui.run import folder as runs
from gpt2tui.run.checkpoint import Checkpoint, Parent

NICENESS = 10
SHARE_OF_FREE_MEMORY = 0.5  # a copy that would take more is not made


@dataclass(frozen=True)
class Snapshot:
    """All that a checkpoint holds, in tensors and texts that nobody changes before it is written."""

    step: int
    run_id: str
    model: Mapping[str, Tensor]  # published names and layouts
    training_state: Mapping[str, Tensor]
    documents: Mapping[str, str]
    trainer: Mapping[str, Any]
    metrics: Mapping[str, float]
    validation_sample: str
    data_fingerprint: str
    parent: Parent | None


@dataclass(frozen=True)
class Saved:
    """A checkpoint that is on the disk, or why it is not."""

    step: int
    seconds: float  # from the copy to the moment when it was durable
    checkpoint: Checkpoint | None
    error: ResourceError | None


class Buffers:
    """Memory on the host that one copy after another is made into: the first touch of a page costs most of a copy."""

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] = {}
        self.reserved = False
        self._reserving: threading.Thread | None = None

    def reserve(self, tensors: Mapping[str, Tensor]) -> None:
        """Gets the memory for copies of these tensors ready beside the training, where there is room."""
        self.reserved = True
        if self._has_room(tensors):
            self._reserving = threading.Thread(target=self._touch, args=(dict(tensors),), name="memory", daemon=True)
            self._reserving.start()

    def copy(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
        """The tensors under their names, on the CPU, overwritten by the next copy; None when there is no room."""
        if self._reserving is not None:
            self._reserving.join()
        if not self._has_room(tensors):
            return None
        copies = {}
        for name, tensor in tensors.items():
            source = tensor.detach()
            if name not in self._tensors:
                self._tensors[name] = _memory_for(source)
            copies[name] = self._tensors[name].copy_(source, non_blocking=source.is_cuda)
        for device in {tensor.device for tensor in tensors.values()}:
            wait_for(device)
        return copies

    def _has_room(self, tensors: Mapping[str, Tensor]) -> bool:
        missing = sum(tensor.nbytes for name, tensor in tensors.items() if name not in self._tensors)
        return missing <= SHARE_OF_FREE_MEMORY * psutil.virtual_memory().available

    def _touch(self, tensors: Mapping[str, Tensor]) -> None:
        _give_way()
        for name, tensor in tensors.items():
            memory = _memory_for(tensor)
            memory.reshape(-1).view(torch.uint8).numpy().fill(0)  # not torch's, which would begin a team of threads
            self._tensors[name] = memory


class Saver:
    """Writes one snapshot at a time into a run's folder of checkpoints, then prunes those that are not kept."""

    def __init__(self, checkpoints: Path, *, keep: int, save_tokenizer: Callable[[Path], None]) -> None:
        self.checkpoints = checkpoints
        self.keep = keep
        self.save_tokenizer = save_tokenizer
        self.protected: set[int] = set()
        """The steps whose checkpoints are not pruned, however old."""
        self.buffers = Buffers()
        self._thread: threading.Thread | None = None
        self._saved: Saved | None = None
        self._bug: BaseException | None = None

    def begin(self, snapshot: Snapshot, started: float) -> None:
        """Starts writing; `started` is time.perf_counter() from before the copy. The last one must be waited for.

        Raises ResourceError when the run's folder is no longer where it was: no later attempt can succeed.
        """
        assert self._thread is None, "two checkpoints at once"
        runs.check_in_place(runs.Run(self.checkpoints.parent), snapshot.run_id)
        # A daemon: a second Ctrl-C ends the process at once, and what is half written is never taken for a checkpoint.
        self._thread = threading.Thread(target=self._write, args=(snapshot, started), name="checkpoint", daemon=True)
        self._thread.start()

    def finished(self) -> Saved | None:
        """What has become of the last one, told once; None while it is being written, or when there is none."""
        return None if self._thread is None or self._thread.is_alive() else self.wait()

    def wait(self) -> Saved | None:
        """The same once it is written; None when there is none."""
        if self._thread is None:
            return None
        self._thread.join()
        self._thread = None
        saved, self._saved = self._saved, None
        if self._bug is not None:
            bug, self._bug = self._bug, None
            raise bug
        return saved

    def _write(self, snapshot: Snapshot, started: float) -> None:
        # No arithmetic of torch in here: a second team of OpenMP threads would slow the training's down.
        _give_way()
        written: Checkpoint | None = None
        error: ResourceError | None = None
        try:
            written = checkpoint.write(
                self.checkpoints,
                step=snapshot.step,
                run_id=snapshot.run_id,
                tensors={"model": snapshot.model, "training_state": snapshot.training_state},
                documents=snapshot.documents,
                trainer=snapshot.trainer,
                save_tokenizer=self.save_tokenizer,
                metrics=snapshot.metrics,
                validation_sample=snapshot.validation_sample,
                data_fingerprint=snapshot.data_fingerprint,
                parent=snapshot.parent,
            )
            checkpoint.prune(self.checkpoints, run_id=snapshot.run_id, keep=self.keep, protected=self.protected)
        except ResourceError as caught:
            error = caught
        except BaseException as caught:  # shown to whoever waits, in the thread that trains
            self._bug = caught
            return
        self._saved = Saved(snapshot.step, time.perf_counter() - started, written, error)


def _memory_for(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)


def _give_way() -> None:
    """Lets this thread have what the training leaves; only Linux knows it of a single thread."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
