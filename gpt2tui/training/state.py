"""What a checkpoint holds beyond the weights, so that a resumed run is bit for bit the uninterrupted one."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gpt2tui import checkpoint
from gpt2tui.checkpoint import Checkpoint
from gpt2tui.errors import CheckpointError
from gpt2tui.training.optimizers import Optimizers

OPTIMIZER = "optimizer."
RNG = "rng."


def collect(optimizers: Optimizers, device: torch.device) -> dict[str, Tensor]:
    """Optimizer moments and the states of the random generators, as named tensors; the moments are not copies."""
    tensors = {OPTIMIZER + name: tensor for name, tensor in optimizers.state_tensors().items()}
    tensors[RNG + "cpu"] = torch.get_rng_state()
    if device.type == "cuda":
        tensors[RNG + "cuda"] = torch.cuda.get_rng_state(device)
    return tensors


def restore(tensors: Mapping[str, Tensor], optimizers: Optimizers, device: torch.device) -> list[str]:
    """Puts back what `collect` took; returns what to tell a person about it.

    A checkpoint from another kind of device has no state for this one's generator; then the run goes on from the
    seed's, which is sound but not bit-exact. Raises CheckpointError when it belongs to another model or optimizer.
    """
    needed = {RNG + "cpu", RNG + "cuda"} if device.type == "cuda" else {RNG + "cpu"}
    moments = {name.removeprefix(OPTIMIZER): t for name, t in tensors.items() if name.startswith(OPTIMIZER)}
    try:
        optimizers.load_state_tensors(moments)
        if RNG + "cpu" in tensors:
            torch.set_rng_state(tensors[RNG + "cpu"])
        if device.type == "cuda" and RNG + "cuda" in tensors:
            torch.cuda.set_rng_state(tensors[RNG + "cuda"], device)
    except (ValueError, RuntimeError, TypeError) as error:
        raise CheckpointError(f"the training state does not fit this preset: {error}") from error
    if needed <= tensors.keys():
        return []
    return ["the checkpoint has no random state for this device: the run goes on, but not bit for bit as it would have"]


def scaler_numbers(scaler: torch.amp.GradScaler | None) -> dict[str, Any] | None:
    """The loss scale of fp16, as plain numbers."""
    return None if scaler is None else scaler.state_dict()


def read_numbers(saved: Checkpoint) -> dict[str, Any]:
    """A checkpoint's trainer.json. Raises CheckpointError when it does not hold what resuming needs."""
    numbers = checkpoint.read_json(saved.folder / "trainer.json")
    sound = (
        isinstance(numbers.get("data_fingerprint"), str)
        and numbers.get("step") == saved.step
        and type(numbers.get("seconds")) in (int, float)
        and type(numbers.get("learning_rate_factor", 1.0)) in (int, float)
        and all(numbers.get(key) is None or type(numbers[key]) is float for key in ("best_val_loss", "val_loss"))
        and all(numbers.get(key) is None or isinstance(numbers[key], dict) for key in ("stream", "scaler"))
        and _is_time_budget(numbers.get("time_budget"))
    )
    if not sound:
        raise CheckpointError(
            f"{saved.folder / 'trainer.json'} does not hold the numbers of a run at step {saved.step}"
        )
    return numbers


def _is_time_budget(numbers: Any) -> bool:
    if numbers is None:
        return True
    return (
        isinstance(numbers, dict)
        and all(type(numbers.get(key)) in (int, float) and numbers[key] >= 0 for key in ("seconds", "spent"))
        and all(type(numbers.get(key)) is int and numbers[key] > 0 for key in ("most_iterations", "num_iterations"))
    )
