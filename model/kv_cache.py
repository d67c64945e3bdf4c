"""The keys and values of earlier tokens, so that generation computes each token only once."""

import torch
from torch import Tensor

from gpt2tui.model.config import GPT2Config


class KVCache:
    """Preallocated keys and values of every layer, (n_layer, B, n_head, max_length, head_dim) each.

    `length` is how many positions are filled. The network writes the new positions of each layer and then
    advances once; a caller only resets.
    """

    def __init__(
        self,
        config: GPT2Config,
        batch_size: int,
        max_length: int | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Room for `max_length` positions (default: n_positions), in `dtype` (default: torch's default)."""
        self.max_length = config.n_positions if max_length is None else max_length
        if not 1 <= self.max_length <= config.n_positions:
            raise ValueError(f"max_length {max_length} is not between 1 and n_positions = {config.n_positions}")
        shape = (config.n_layer, batch_size, config.n_head, self.max_length, config.head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.length = 0

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Write (B, n_head, T, head_dim) after the past; returns both, (B, n_head, length + T, head_dim)."""
        end = self.length + keys.size(2)
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, tokens: int) -> None:
        """Count the positions that every layer has written."""
        self.length += tokens
        assert self.length <= self.max_length

    def take(self, other: "KVCache") -> None:
        """Hold what another cache of one text holds, for each of its own texts."""
        assert other.keys.size(1) == 1
        self.length = other.length
        self.keys[:, :, :, : self.length] = other.keys[:, :, :, : self.length]
        self.values[:, :, :, : self.length] = other.values[:, :, :, : self.length]

    def reset(self) -> None:
        """Forget all positions; the memory stays allocated."""
        self.length = 0
