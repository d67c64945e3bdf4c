"""Generating one token at a time is bound by memory bandwidth: reading weights in 16 bits takes half the time."""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt2tui.model.gpt2 import GPT2, Block
from gpt2tui.model.kv_cache import KVCache


class LogitsSource(Protocol):
    """What computes logits in place of the network while a text is generated."""

    reads_prompts: bool
    """Whether it takes (B, T) tokens, a prompt too; else one token (1, 1)."""

    @property
    def device(self) -> torch.device:
        """Where the tokens must be."""

    def logits(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Tokens after those in the cache -> the logits after the last, (B, V) fp32; the cache counts them."""


class Decoder:
    """Computes the next-token logits of `model` for one sequence, with matrices in `dtype`.

    Only the matrices and their inputs are rounded; the residual stream, layer norms, attention and the cache keep
    their type. On a CPU products are summed in fp32, and fp16 is the better type: it has eight times the precision of
    bf16, and every x86-64-v3 or Arm core converts it while reading.
    """

    reads_prompts = False

    def __init__(self, model: GPT2, dtype: torch.dtype) -> None:
        """Copies the matrices; ValueError when `dtype` cannot hold one of them."""
        self.model = model
        self.dtype = dtype
        self.embedding = self._rounded(model.wte.weight)
        self.matrices: dict[nn.Module, Tensor] = {
            module: self._rounded(module.weight) for module in model.modules() if isinstance(module, nn.Linear)
        }

    def _rounded(self, weight: Tensor) -> Tensor:
        rounded = weight.detach().to(self.dtype)
        if not rounded.isfinite().all():
            raise ValueError(f"a weight does not fit into {self.dtype}")
        return rounded

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.embedding.device

    @torch.inference_mode()
    def logits(self, token: Tensor, cache: KVCache) -> Tensor:
        """Token (1, 1) int64 -> (1, V) fp32; appends its keys and values to the cache, like the model.

        If an activation overflows the type, the model computes this token instead.
        """
        network, past = self.model, cache.length
        x = network.wte(token) + network.wpe.weight[past]  # (1, 1, C)
        for block in network.h:
            x = self._block(block, x, cache)  # type: ignore[arg-type]
        cache.advance(1)
        logits = F.linear(network.ln_f(x)[:, 0].to(self.dtype), self.embedding).float()  # (1, V)
        if logits.isfinite().all():
            return logits
        cache.truncate(past)
        return network.logits(network.hidden(token, cache)[:, -1])

    def _block(self, block: Block, x: Tensor, cache: KVCache) -> Tensor:
        """(1, 1, C) -> (1, 1, C)."""
        attention = block.attn
        qkv = self._linear(attention.c_attn, block.ln_1(x))  # (1, 1, 3C)
        q, k, v = qkv.view(1, 3, attention.n_head, 1, attention.head_dim).unbind(1)  # (1, H, 1, D) each
        y = F.scaled_dot_product_attention(q, *cache.append(attention.layer, k, v))  # over (1, H, past + 1, D)
        x = x + self._linear(attention.c_proj, y.reshape(x.shape))
        hidden = F.gelu(self._linear(block.mlp.c_fc, block.ln_2(x)), approximate="tanh")  # (1, 1, 4C)
        return x + self._linear(block.mlp.c_proj, hidden)

    def _linear(self, module: nn.Module, x: Tensor) -> Tensor:
        """(1, 1, in) -> (1, 1, out), fp32."""
        y = F.linear(x.to(self.dtype), self.matrices[module]).float()
        bias: Tensor | None = module.bias  # type: ignore[assignment]
        return y if bias is None else y + bias
