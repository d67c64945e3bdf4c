"""Whether a run fits: what it needs of memory and disk, term by term, against what is free, before it starts."""

import dataclasses
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from gpt2tui.data.readiness import ASSUMED_CHAR_VOCAB_SIZE
from gpt2tui.device import choose_device, choose_precision
from gpt2tui.errors import DoesNotFitError
from gpt2tui.estimate import count_parameters
from gpt2tui.memory_advice import advice_for_memory, step_memory
from gpt2tui.preset.schema import Preset
from gpt2tui.system.host_memory import free_bytes
from gpt2tui.system.numbers import byte_size
from gpt2tui.training.rank_costs import sharded_memory

CLOSE = 0.85
"""A run that needs more than this share of what is free may not fit: the estimate is within about 15 %."""
WORTH_A_TRIAL = 0.5
"""From this share of the free memory on, shapes are tried before the first step. Below it no error of the estimate
matters, and a run begins at once."""


@dataclass(frozen=True)
class Need:
    """Bytes that a run needs of one thing, by kind, and how many of it are free; `advice` is what to change."""

    of: str
    terms: Mapping[str, int]
    free: int
    advice: str

    @property
    def total(self) -> int:
        """The bytes of all kinds."""
        return sum(self.terms.values())

    @property
    def share(self) -> float:
        """The bytes needed as a share of the free ones."""
        return self.total / max(self.free, 1)

    def __str__(self) -> str:
        terms = sorted(self.terms.items(), key=lambda term: -term[1])
        shown = ", ".join(f"{name.replace('_', ' ')} {byte_size(size)}" for name, size in terms if size)
        return (
            f"{self.of}: needs about {byte_size(self.total)}, {byte_size(self.free)} are free: {shown}\n{self.advice}"
        )


def check_fit(preset: Preset, run_folder: Path, saved_checkpoints: int = 0, ranks: int = 1) -> None:
    """Raises DoesNotFitError where a run needs more than CLOSE of what is free of memory or disk.

    It is that of one of `ranks`. A vocabulary that is not known yet is assumed to be small. `saved_checkpoints` are in
    the run's folder already.
    """
    device = choose_device(preset.training.device)
    full = preset.with_vocab_size(preset.known_vocab_size or ASSUMED_CHAR_VOCAB_SIZE)
    needs = [memory_need(full, device, ranks), disk_need(full, run_folder, saved_checkpoints)]
    if large := [need for need in needs if need.share > CLOSE]:
        raise DoesNotFitError("\n".join(map(str, large)), close=all(need.share <= 1 for need in large))


def memory_need(preset: Preset, device: torch.device, ranks: int = 1) -> Need:
    """The memory that a training step takes on its device; `preset` has its vocab_size."""
    precision, free = choose_precision(preset, device), free_bytes_on(device)
    needed = step_memory(preset, precision, on_host=device.type != "cuda")
    needed = sharded_memory(needed, preset, count_parameters(preset.model).token_embedding, ranks)
    advice = advice_for_memory(preset, precision, free, on_host=device.type != "cuda")
    return Need(f"memory on {device}", dataclasses.asdict(needed), free, advice)


def free_bytes_on(device: torch.device) -> int:
    """The bytes of the device's memory that this process can still get; its own cache of freed blocks counts."""
    if device.type != "cuda":
        return free_bytes()
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + cached


def disk_need(preset: Preset, run_folder: Path, saved_checkpoints: int = 0) -> Need:
    """The disk space for the checkpoints still to come that are kept at the same time."""
    size, training = checkpoint_bytes(preset), preset.training
    every = training.checkpoint_frequency or training.num_iterations
    most = -(-training.num_iterations // every)
    kept = training.keep_checkpoints + 2  # the best, and the new one before an old one is deleted
    count = max(1, min(most, kept) - saved_checkpoints)
    place = next(folder for folder in (run_folder, *run_folder.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(place).free
    keep = min(free // size - 2, training.keep_checkpoints - 1) if size else 0
    advice = f"set training.keep_checkpoints = {keep}, " if keep >= 1 and count > 1 else ""
    advice += f"free some space in {place}, or choose another disk with --run-dir"
    return Need(f"disk for {count} checkpoint{'s' if count > 1 else ''}", {"checkpoints": count * size}, free, advice)


def checkpoint_bytes(preset: Preset) -> int:
    """The size of a checkpoint: weights and moments."""
    memory = step_memory(preset, "fp32")
    return memory.weights + memory.optimizer
