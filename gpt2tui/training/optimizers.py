"""AdamW and Muon over the right parameters: matrices decay, biases and layer norms do not."""

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from gpt2tui.preset.schema import OptimizerTable
from gpt2tui.training.distributed import share_of
from gpt2tui.training.muon import Muon

WRAPPERS = ("_orig_mod", "module", "_checkpoint_wrapped_module")


class AdamW(torch.optim.AdamW):
    """torch.optim.AdamW, which does not load torch's compiler: that takes two seconds, and few runs are compiled.

    torch wraps these two methods so that compiled code leaves them alone.
    """

    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient; `closure` is ignored."""
        inspect.unwrap(torch.optim.AdamW.step)(self)


class Optimizers:
    """The optimizers of a run as one: learning rates, step, and state as named tensors."""

    def __init__(self, model: nn.Module, table: OptimizerTable, muon: type[Muon] = Muon) -> None:
        """Splits the parameters of `model`, wrapped or not, by the preset's [optimizer] table.

        Muon takes the matrices in the blocks, AdamW everything else. What is frozen is left out.
        """
        self.table = table
        named = [(_unwrapped(name), p) for name, p in model.named_parameters() if p.requires_grad]
        matrices = [(name, p) for name, p in named if p.ndim >= 2]
        vectors = [(name, p) for name, p in named if p.ndim < 2]
        hidden = [(name, p) for name, p in matrices if table.name == "muon" and name.startswith("h.")]
        rest = [(name, p) for name, p in matrices if not (table.name == "muon" and name.startswith("h."))]
        groups: list[dict[str, Any]] = [
            {"params": rest, "weight_decay": table.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.all: list[tuple[torch.optim.Optimizer, float]] = [
            (
                AdamW(
                    [group for group in groups if group["params"]],
                    lr=table.lr,
                    betas=(table.beta1, table.beta2),
                    fused=True,
                ),
                table.lr,
            )
        ]
        """Each optimizer with its peak learning rate."""
        if hidden:
            of_blocks = muon(hidden, lr=table.muon_lr, weight_decay=table.weight_decay, momentum=table.muon_momentum)
            self.all.append((of_blocks, table.muon_lr))

    def set_learning_rate(self, factor: float) -> float:
        """Sets the rate of each to `factor` times its peak; returns AdamW's."""
        for optimizer, peak in self.all:
            for group in optimizer.param_groups:
                group["lr"] = peak * factor
        return self.table.lr * factor

    def step(self, found_inf: Tensor | None = None) -> None:
        """Updates the weights.

        With `found_inf`, a scalar in fp32 on the device, no weight, moment or step counter changes where it is 1; the
        CPU does not wait for it.
        """
        for optimizer, _ in self.all:
            # A gradient scaler sets this attribute of torch's fused optimizers; our Muon reads it too.
            optimizer.found_inf = found_inf  # type: ignore[attr-defined]
            optimizer.step()

    def zero_grad(self) -> None:
        """Drops the gradients, so that the next backward pass writes instead of adding."""
        for optimizer, _ in self.all:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None

    def state_tensors(self) -> dict[str, Tensor]:
        """The moments as `<parameter>.<moment>` tensors; scalars as 0-d tensors."""
        return {
            f"{name}.{key}": torch.as_tensor(value)
            for optimizer, name, parameter in self._named_parameters()
            for key, value in optimizer.state.get(parameter, {}).items()
        }

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restores the moments; an empty dictionary is the state of an optimizer before its first step.

        Raises ValueError when the names, shapes or types are not those of this model and optimizer.
        """
        if not tensors:
            return
        expected = dict(self._expected_state())
        if wrong := sorted(set(expected) ^ set(tensors)):
            raise ValueError(f"the optimizer state has other tensors than this optimizer: {', '.join(wrong[:4])}")
        for key, shape in expected.items():
            if tensors[key].shape != shape:
                raise ValueError(f"{key} has shape {tuple(tensors[key].shape)}, not {tuple(shape)}")
            if tensors[key].dtype != torch.float32:
                raise ValueError(f"{key} is {tensors[key].dtype}, not torch.float32")
        for optimizer, name, parameter in self._named_parameters():
            found = {key: tensors[f"{name}.{key}"] for key in _state_keys(optimizer)}
            optimizer.state[parameter] = {
                # The step counter too: fused optimizers keep it there.
                key: copied if key == "step" else share_of(copied, parameter)
                for key, copied in ((key, tensor.to(parameter.device, copy=True)) for key, tensor in found.items())
            }

    def _expected_state(self) -> list[tuple[str, torch.Size]]:
        return [
            (f"{name}.{key}", torch.Size() if key == "step" else parameter.shape)
            for optimizer, name, parameter in self._named_parameters()
            for key in _state_keys(optimizer)
        ]

    def _named_parameters(self) -> Iterator[tuple[torch.optim.Optimizer, str, Tensor]]:
        for optimizer, _ in self.all:
            for group in optimizer.param_groups:
                for name, parameter in zip(group["param_names"], group["params"], strict=True):
                    yield optimizer, name, parameter


def _unwrapped(name: str) -> str:
    """A parameter's name in the network itself: torch.compile, DDP and activation checkpointing each add a level."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _state_keys(optimizer: torch.optim.Optimizer) -> tuple[str, ...]:
    return ("momentum_buffer",) if isinstance(optimizer, Muon) else ("step", "exp_avg", "exp_avg_sq")
