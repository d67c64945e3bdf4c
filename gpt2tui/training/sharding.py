"""FSDP2: each rank keeps a share of every weight, gradient and moment, and a block is whole only while it computes.

`fully_shard` is applied block by block, then to what is left: the embeddings, which stay tied because they are one
parameter, and the last layer norm. Imported only where it is asked for: DTensor takes seconds to import.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Replicate

from gpt2tui.model.gpt2 import GPT2
from gpt2tui.training import muon
from gpt2tui.training.muon import Muon


def shard(model: GPT2, world_size: int, *, reshard_after_forward: bool) -> None:
    """Leaves each rank its share of the parameters, in place; optimizers must be made anew.

    With `reshard_after_forward` the backward pass gathers each block again, which takes time instead of memory.
    """
    mesh = init_device_mesh(model.wte.weight.device.type, (world_size,))
    for block in model.h:
        fully_shard(block, mesh=mesh, reshard_after_forward=reshard_after_forward)
    fully_shard(model, mesh=mesh)
    register_fsdp_forward_method(model, "hidden")  # which evaluations call


@contextlib.contextmanager
def without_exchange(model: GPT2) -> Iterator[None]:
    """The context for every micro-batch of a step but the last: gradients are added up before they are divided."""
    sharded = cast(FSDPModule, model)
    sharded.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        sharded.set_requires_gradient_sync(True)


class ShardedMuon(Muon):
    """Muon where each rank has a share of every matrix: the updates are made whole before they are orthogonalised."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """As `Muon.step`."""
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        moves = 1.0 if found_inf is None else 1.0 - found_inf.double()
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[DTensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for parameters in muon.in_stacks(by_shape):
                self._update(parameters, group, found_inf, moves)

    def _update(
        self, parameters: Sequence[DTensor], group: dict[str, Any], found_inf: Tensor | None, moves: float | Tensor
    ) -> None:
        """Updates parameters of one shape."""
        updates = [self._moved_momentum(parameter, group["momentum"], found_inf) for parameter in parameters]
        stack = torch.stack([matrix for update in updates for matrix in muon.matrices_in(update)])
        orthogonal = self.orthogonalize(stack, muon.product_dtype(stack.device)).to(stack.dtype)
        places = iter(orthogonal.unbind())
        scale = muon.scale_of(parameters[0])
        for parameter, update in zip(parameters, updates, strict=True):
            for matrix in muon.matrices_in(update):
                matrix.copy_(next(places))
            replicated = DTensor.from_local(update, parameter.device_mesh, [Replicate()], run_check=False)
            own = replicated.redistribute(placements=parameter.placements).to_local()
            weight = parameter.to_local()
            weight.mul_(1 - group["lr"] * group["weight_decay"] * moves)
            weight.sub_(own * (group["lr"] * scale * moves))

    def _moved_momentum(self, parameter: DTensor, momentum: float, found_inf: Tensor | None) -> Tensor:
        """Adds the gradient to the momentum, where it is finite; returns Nesterov's update, whole."""
        state, gradient = self.state[parameter], cast(DTensor, parameter.grad)
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        buffer, own = state["momentum_buffer"].to_local(), gradient.to_local()
        if found_inf is not None:
            own = own.where(found_inf == 0, buffer)
        buffer.lerp_(own, 1 - momentum)
        update = DTensor.from_local(
            own.lerp(buffer, momentum),
            parameter.device_mesh,
            parameter.placements,
            run_check=False,
            shape=parameter.shape,
            stride=parameter.stride(),
        )
        return update.full_tensor()
