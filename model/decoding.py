"""Writing one token at a time is bound by memory: a copy of the weights in 16 bits is read in half the time."""

import threading
import warnings
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import GPT2Config
from model.cuda_graphs import Record, Work, record
from model.gpt2 import GPT2, Block
from model.kv_cache import KVCache

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""The layer, and q, k, v of the new token, (B, H, 1, D) each -> (B, H, 1, D)."""


class Decoder:
    """What `model` computes for the next token of one sequence, from weights in `dtype`.

    Only the matrices are rounded, and what they are multiplied with; the residual stream, layer norms, attention and
    the cache stay as they are. On a CPU products are summed in fp32 and fp16 is the type to take: it has eight times
    the precision of bf16, and every x86-64-v3 or Arm core converts it as it reads.
    """

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

    def takes(self, batch_size: int) -> bool:
        """Whether it is for so many sequences."""
        return batch_size == 1

    def open_cache(self, batch_size: int, max_length: int) -> KVCache:
        """An empty cache for `logits`, with room for `max_length` positions or more."""
        return self.model.new_cache(batch_size, max_length)

    def close_cache(self, cache: KVCache) -> None:
        """Nobody needs it any more."""

    @torch.inference_mode()
    def logits(self, token: Tensor, cache: KVCache) -> Tensor:
        """Token (B, 1) int64 -> (B, V) fp32; its keys and values are added to the cache, as the model itself does.

        An activation that does not fit into the type makes this one token go through the model instead.
        """
        past = cache.length
        logits = self._next_logits(token, cache)
        cache.advance(1)
        if logits.isfinite().all():
            return logits
        cache.truncate(past)
        return self.model.logits(self.model.hidden(token, cache)[:, -1])

    def _next_logits(self, token: Tensor, cache: KVCache) -> Tensor:
        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(q, *cache.append(layer, k, v))  # over (B, H, past + 1, D)

        return self._forward(token, self.model.wpe.weight[cache.length], attend)

    def _forward(self, token: Tensor, position: Tensor, attend: Attend) -> Tensor:
        """Token (B, 1) at a position of this embedding (C,) -> (B, V)."""
        network = self.model
        x = network.wte(token) + position  # (B, 1, C)
        for block in network.h:
            x = self._block(block, x, attend)  # type: ignore[arg-type]
        return F.linear(network.ln_f(x)[:, 0].to(self.dtype), self.embedding).float()  # (B, V)

    def _block(self, block: Block, x: Tensor, attend: Attend) -> Tensor:
        """(B, 1, C) -> (B, 1, C)."""
        attention = block.attn
        qkv = self._linear(attention.c_attn, block.ln_1(x))  # (B, 1, 3C)
        q, k, v = qkv.view(len(x), 3, attention.n_head, 1, attention.head_dim).unbind(1)  # (B, H, 1, D) each
        y = attend(attention.layer, q, k, v)  # (B, H, 1, D)
        x = x + self._linear(attention.c_proj, y.reshape(x.shape))
        hidden = F.gelu(self._linear(block.mlp.c_fc, block.ln_2(x)), approximate="tanh")  # (B, 1, 4C)
        return x + self._linear(block.mlp.c_proj, hidden)

    def _linear(self, module: nn.Module, x: Tensor) -> Tensor:
        """(B, 1, in) -> (B, 1, out), fp32."""
        y = F.linear(x.to(self.dtype), self.matrices[module]).float()
        bias: Tensor | None = module.bias  # type: ignore[assignment]
        return y if bias is None else y + bias


class StaticCache(KVCache):
    """A cache with the rest of what a recorded token reads and writes, always in the same memory."""

    def __init__(self, config: GPT2Config, batch_size: int, max_length: int, like: Tensor) -> None:
        """Room for B sequences on the device of `like` and in its type."""
        super().__init__(config, batch_size, max_length, device=like.device, dtype=like.dtype)
        self.token = torch.zeros(batch_size, 1, dtype=torch.int64, device=like.device)
        self.position = torch.zeros(1, dtype=torch.int64, device=like.device)
        self.logits = torch.zeros(batch_size, config.vocab_size or 0, device=like.device)
        self.places = torch.arange(max_length, device=like.device)
        self.work: Work | None = None
        """Reads `token` at `position` and writes `logits`, once it is recorded."""


class RecordedDecoder(Decoder):
    """The same for any number of sequences on a GPU, the network launched as one piece of work a token.

    Attention looks at all places of the cache, through a mask: what is recorded cannot know how many are filled.
    """

    SHORTEST = 256  # positions; caches have so many, or a power of two times that, or all
    KEPT_BYTES = 2**31  # of caches that wait for the next text, with their recordings

    def __init__(self, model: GPT2, dtype: torch.dtype, record: Record = record) -> None:
        super().__init__(model, dtype)
        self._record = record
        self._free: list[StaticCache] = []
        self._lock = threading.Lock()  # texts may be written side by side, each with a cache of its own

    def takes(self, batch_size: int) -> bool:
        """Any number."""
        return True

    def open_cache(self, batch_size: int, max_length: int) -> KVCache:
        """One that is kept with its recording, else a new one."""
        with self._lock:
            fitting = [c for c in self._free if len(c.token) == batch_size and c.max_length >= max_length]
            if fitting:
                cache = min(fitting, key=lambda cache: cache.max_length)
                self._free.remove(cache)
                cache.reset()
                return cache
        length = self.SHORTEST
        while length < max_length:
            length *= 2
        config = self.model.config
        return StaticCache(config, batch_size, min(length, config.n_positions), self.model.wte.weight)

    def close_cache(self, cache: KVCache) -> None:
        """Keeps it for a later text, while there is not too much of them; those of long ago go first."""
        assert isinstance(cache, StaticCache)
        with self._lock:
            self._free.append(cache)
            while sum(cache.nbytes for cache in self._free) > self.KEPT_BYTES:
                self._free.pop(0)

    def _next_logits(self, token: Tensor, cache: KVCache) -> Tensor:
        assert isinstance(cache, StaticCache)
        cache.token.copy_(token)
        cache.position.fill_(cache.length)
        if cache.work is None:
            cache.work = self._recorded(cache)
        cache.work()
        return cache.logits.clone()  # the next token overwrites them

    def _recorded(self, cache: StaticCache) -> Work:
        def work() -> None:
            reached = (cache.places <= cache.position)[None, None, None]  # (1, 1, 1, max_length)

            def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
                keys = cache.keys[layer].index_copy_(2, cache.position, k)  # (B, H, max_length, D)
                values = cache.values[layer].index_copy_(2, cache.position, v)
                return F.scaled_dot_product_attention(q, keys, values, attn_mask=reached)

            cache.logits.copy_(self._forward(cache.token, self.model.wpe(cache.position)[0], attend))

        try:
            return self._record(work, cache.token.device)
        except RuntimeError as error:
            warnings.warn(f"tokens are not written as CUDA graphs: {error}", RuntimeWarning, stacklevel=2)
            return work
