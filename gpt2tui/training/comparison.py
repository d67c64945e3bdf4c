"""What compiling and recording have in common: tried before a run beside the plain way, they leave no trace."""

import contextlib
import statistics
from collections.abc import Callable

import torch


def random_states_kept(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Random states of the CPU and of `device` are afterwards what they were."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def median_seconds(ours: Callable[[], float], theirs: Callable[[], float], pairs: int) -> tuple[float, float]:
    """The median of what each of two ways says it took, asked in turns."""
    seconds = [(ours(), theirs()) for _ in range(pairs)]
    first, second = (statistics.median(each) for each in zip(*seconds, strict=True))
    return first, second
