"""Activation checkpointing (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost"): memory for time.

Of each block only the input is kept, and the backward pass computes the rest of it again, with the same dropout.
"""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from gpt2tui.model.gpt2 import GPT2, Block
from gpt2tui.model.kv_cache import KVCache


class CheckpointedBlock(Block):
    """A block whose activations are computed again by the backward pass."""

    def forward(self, x: Tensor, cache: KVCache | None) -> Tensor:
        """(B, T, C) -> (B, T, C), as `Block.forward`."""
        if not torch.is_grad_enabled():
            return super().forward(x, cache)
        out: Tensor = checkpoint(super().forward, x, cache, use_reentrant=False)
        return out


def checkpoint_activations(network: GPT2) -> GPT2:
    """The same network, changed in place: its blocks are `CheckpointedBlock`. Parameters and results stay the same.

    Before the network is compiled, and before FSDP, which gathers a block once for both: the recomputation and the
    gradients.
    """
    for block in network.h:
        block.__class__ = CheckpointedBlock
    return network
