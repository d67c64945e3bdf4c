"""Generating one token at a time, faster than the network by itself.

A CPU waits for memory: weights in 16 bits take half the time. A GPU waits for the launches of some hundred small
kernels: a recorded graph of them takes one.
"""

import functools
import math
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt2tui.model.gpt2 import GPT2, Block
from gpt2tui.model.kv_cache import KVCache


class LogitsSource(Protocol):
    """What computes logits in place of the network while a text is generated."""

    def reads(self, texts: int, tokens: int) -> bool:
        """Whether it takes `tokens` of `texts` at once; where it does not, the network reads them."""

    @property
    def device(self) -> torch.device:
        """Where the tokens must be."""

    def logits(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Tokens after those in the cache -> the logits after the last, (B, V) fp32; the cache counts them."""


Product = Callable[[Tensor], Tensor]
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""(layer, queries, keys, values of one token: (B, H, 1, D) each) -> (B, H, 1, D), over all tokens so far."""


class Decoder:
    """Computes the next-token logits of `model` with matrices in `dtype`.

    Only the matrices are rounded, and where torch has no product of fp32 with them, their inputs; the residual stream,
    layer norms, attention and the cache keep their type. On a CPU products are summed in fp32, and fp16 is the better
    type: it has eight times the precision of bf16, and every x86-64-v3 or Arm core converts it while reading.
    """

    def __init__(self, model: GPT2, dtype: torch.dtype) -> None:
        """Copies the matrices, unless `dtype` is their own; ValueError when it cannot hold one of them."""
        self.model = model
        self.dtype = dtype
        self.device = model.wte.weight.device
        """Where the weights are."""
        self.packs = dtype == torch.float16 and self.device.type == "cpu" and has_packed_products()
        self._head = self._product(model.wte.weight, None)
        self._products: dict[nn.Module, Product] = {
            module: self._product(module.weight, module.bias)
            for module in model.modules()
            if isinstance(module, nn.Linear)
        }

    def _product(self, weight: Tensor, bias: Tensor | None) -> Product:
        """x (..., in) -> (..., out), fp32: times the transposed weight (out, in), rounded, plus bias (out,)."""
        rounded = weight.detach().to(self.dtype)
        if self.dtype != weight.dtype and not rounded.isfinite().all():
            raise ValueError(f"a weight does not fit into {self.dtype}")
        if self.packs:
            packed = torch.ops.quantized.linear_prepack_fp16(weight.detach(), bias)
            return functools.partial(_packed_product, packed)
        if self.dtype == torch.float32:
            return lambda x: F.linear(x, rounded, bias)

        def product(x: Tensor) -> Tensor:
            y = F.linear(x.to(self.dtype), rounded).float()
            return y if bias is None else y + bias

        return product

    def reads(self, texts: int, tokens: int) -> bool:
        """One token of one text, or of several where products of several rows with rounded weights are fast too."""
        return tokens == 1 and (texts == 1 or self.packs)

    @torch.inference_mode()
    def logits(self, token: Tensor, cache: KVCache) -> Tensor:
        """Token (B, 1) int64 -> (B, V) fp32; appends its keys and values to the cache, like the model.

        If an activation overflows the type, the model computes this token instead.
        """
        past = cache.length

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(q, *cache.append(layer, k, v))  # over (B, H, past + 1, D)

        logits = self._logits(token, self.model.wpe.weight[past], attend)
        return self._checked(logits, token, cache)

    def _checked(self, logits: Tensor, token: Tensor, cache: KVCache) -> Tensor:
        """Counts the token, whose keys and values are in the cache; the model's logits where these overflowed."""
        if self.packs or self.dtype == torch.float32 or logits.isfinite().all():
            cache.advance(1)
            return logits
        return self.model.logits(self.model.hidden(token, cache)[:, -1])

    def _logits(self, token: Tensor, position: Tensor, attend: Attend) -> Tensor:
        """Token (B, 1) and the embedding of its position -> (B, V) fp32."""
        network = self.model
        x = network.wte(token) + position  # (B, 1, C)
        for block in network.h:
            x = self._block(block, x, attend)  # type: ignore[arg-type]
        logits: Tensor = self._head(network.ln_f(x)[:, 0])
        return logits

    def _block(self, block: Block, x: Tensor, attend: Attend) -> Tensor:
        """(B, 1, C) -> (B, 1, C)."""
        attention, products = block.attn, self._products
        qkv = products[attention.c_attn](block.ln_1(x))  # (B, 1, 3C)
        q, k, v = qkv.view(len(x), 3, attention.n_head, 1, attention.head_dim).unbind(1)  # (B, H, 1, D) each
        y = attend(attention.layer, q, k, v)
        x = x + products[attention.c_proj](y.reshape(x.shape))
        hidden = F.gelu(products[block.mlp.c_fc](block.ln_2(x)), approximate="tanh")  # (B, 1, 4C)
        return x + products[block.mlp.c_proj](hidden)


def has_packed_products() -> bool:
    """Whether torch has FBGEMM's products of fp32 with fp16 matrices that are packed for them: on x86."""
    return "fbgemm" in torch.backends.quantized.supported_engines


def _packed_product(packed: Any, x: Tensor) -> Tensor:
    y: Tensor = torch.ops.quantized.linear_dynamic_fp16(x, packed)
    return y


class _Recording(NamedTuple):
    """A recorded graph, what it reads and what it writes. It reaches `length` positions of the cache."""

    graph: torch.cuda.CUDAGraph
    length: int
    token: Tensor
    position: Tensor
    logits: Tensor


class GraphDecoder(Decoder):
    """The same on a CUDA device, of any number of texts: the kernels of a token are recorded once, as a CUDA graph.

    A recording belongs to a cache. It reads a fixed number of its positions, which doubles as the text grows, and masks
    those that are not filled yet. Nothing may train in the same process: while it records, torch's generator of the
    device, from which dropout draws, refuses to be seeded.
    """

    SHORTEST = 128
    _one_at_a_time = threading.Lock()

    def __init__(self, model: GPT2, dtype: torch.dtype) -> None:
        """As `Decoder`."""
        super().__init__(model, dtype)
        self._recordings: WeakKeyDictionary[KVCache, _Recording] = WeakKeyDictionary()

    def reads(self, texts: int, tokens: int) -> bool:
        """One token of each text."""
        return tokens == 1

    @torch.inference_mode()
    def logits(self, token: Tensor, cache: KVCache) -> Tensor:
        """Tokens (B, 1) int64 -> (B, V) fp32; appends their keys and values to the cache, like the model."""
        recording = self._recordings.get(cache)
        if recording is None or cache.length >= recording.length:
            recording = self._recordings[cache] = self._record(cache, len(token))
        recording.token.copy_(token)
        recording.position.fill_(cache.length)
        recording.graph.replay()
        return self._checked(recording.logits.clone(), token, cache)

    def _record(self, cache: KVCache, texts: int) -> _Recording:
        """The graph of one more token, at any position from the cache's own to the recording's length."""
        length = self.SHORTEST
        while length <= cache.length:
            length *= 2
        length = min(length, cache.max_length)
        token = torch.zeros(texts, 1, dtype=torch.int64, device=self.device)
        position = torch.full((1,), cache.length, device=self.device)
        # On a stream of its own, as graphs are recorded. The first run loads kernels and makes cuBLAS's workspace.
        stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        current = torch.cuda.current_stream(self.device)
        graph = torch.cuda.CUDAGraph()
        with self._one_at_a_time, torch.cuda.device(self.device):
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                self.fixed_length_logits(token, position, cache, length)
                graph.capture_begin(capture_error_mode="thread_local")  # other threads may allocate meanwhile
                try:
                    logits = self.fixed_length_logits(token, position, cache, length)
                finally:
                    graph.capture_end()
            current.wait_stream(stream)
        return _Recording(graph, length, token, position, logits)

    def fixed_length_logits(self, token: Tensor, position: Tensor, cache: KVCache, length: int) -> Tensor:
        """Token (B, 1) at a position (1,) -> (B, V) fp32, by work that is the same at each position below `length`.

        Writes the keys and values into the cache, which counts nothing.
        """
        # Plain products: of one query with a mask, the attention kernels of a GPU take twice as long.
        bias = torch.zeros(length, device=token.device).masked_fill_(
            torch.arange(length, device=token.device) > position, -math.inf
        )

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = cache.keys[layer], cache.values[layer]  # (B, H, max_length, D)
            keys.index_copy_(2, position, k)
            values.index_copy_(2, position, v)
            scores = (q * q.size(-1) ** -0.5) @ keys[:, :, :length].mT + bias  # (B, H, 1, length)
            weights: Tensor = scores.softmax(-1)
            return weights @ values[:, :, :length]

        return self._logits(token, self.model.wpe(position), attend)
