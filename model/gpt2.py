"""GPT-2 (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners").

As in GPT-1 (Radford et al. 2018) it is decoder only: every token looks back, never ahead; positions are learned, like
words; the embedding of a word is also its output weight (Press and Wolf 2017). New in GPT-2 (section 2.3 of the paper):
- the layer norm stands before each sub-block, on the branch, and once more at the end; the residual stream is
  never normalised itself;
- the projections that write into the residual stream start smaller, by 1/sqrt(2 n_layer), because 2 n_layer
  of them are added up.
Linear layers are x W^T + b here; the published checkpoints hold W transposed (see huggingface.py).

Shapes: B sequences, T tokens each, C = n_embd, V = vocab_size, H = n_head, D = C / H.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gpt2tui.model.config import INITIAL_STD, LAYER_NORM_EPSILON, GPT2Config
from gpt2tui.model.kv_cache import KVCache
from gpt2tui.model.loss import Reduction, linear_cross_entropy


class Attention(nn.Module):
    """Causal multi-head self-attention with one fused projection to queries, keys and values."""

    def __init__(self, config: GPT2Config, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.n_head = config.n_head
        self.head_dim = config.head_dim
        self.dropout = config.dropout
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.resid_dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, cache: KVCache | None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        B, T, C = x.shape
        qkv = self.c_attn(x).view(B, T, 3, self.n_head, self.head_dim)  # (B, T, 3, H, D)
        q, k, v = qkv.transpose(1, 3).unbind(2)  # (B, H, T, D) each
        mask, past = None, 0
        if cache is not None:
            past = cache.length
            k, v = cache.append(self.layer, k, v)  # (B, H, past + T, D)
            if past and T > 1:
                # SDPA's own causal mask starts at the upper left; this one ends at the lower right.
                mask = torch.ones(T, past + T, dtype=torch.bool, device=x.device).tril(past)  # (T, past + T)
        y = F.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=past == 0 and T > 1,
        )  # (B, H, T, D), softmax(q k^T / sqrt(D)) v
        y = y.transpose(1, 2).reshape(B, T, C)  # heads side by side
        out: Tensor = self.resid_dropout(self.c_proj(y))  # (B, T, C)
        return out


class MLP(nn.Module):
    """Each token by itself: up to four times the width, GELU, and back."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.n_embd, 4 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(4 * config.n_embd, config.n_embd, bias=config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = self.c_fc(x)  # (B, T, 4C)
        x = F.gelu(x, approximate="tanh")  # the published weights were trained with the approximation
        out: Tensor = self.dropout(self.c_proj(x))  # (B, T, C)
        return out


class Block(nn.Module):
    """Attention moves information between tokens, the MLP digests it; both add to the residual stream."""

    def __init__(self, config: GPT2Config, layer: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=LAYER_NORM_EPSILON, bias=config.bias)
        self.attn = Attention(config, layer)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=LAYER_NORM_EPSILON, bias=config.bias)
        self.mlp = MLP(config)

    def forward(self, x: Tensor, cache: KVCache | None) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.attn(self.ln_1(x), cache)
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]


class GPT2(nn.Module):
    """The network: tokens in, logits or the loss out. Parameter names are the published ones."""

    def __init__(self, config: GPT2Config) -> None:
        """Random weights to start from; ValueError when `config` has no vocab_size or is inconsistent."""
        super().__init__()
        if config.vocab_size is None:
            raise ValueError("config.vocab_size must be set: the network needs the size of its vocabulary")
        for found in config.inconsistencies():
            raise ValueError(f"{found.key}: {found.message}")
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)  # tokens, in and out
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)  # positions
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config, layer) for layer in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=LAYER_NORM_EPSILON, bias=config.bias)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Start afresh from the global random generator; also what a model made on the meta device needs."""
        for name, parameter in self.named_parameters():
            if name.endswith(".bias"):
                parameter.zero_()
            elif "ln_" in name:
                parameter.fill_(1.0)
            elif name.endswith("c_proj.weight"):
                parameter.normal_(std=INITIAL_STD / math.sqrt(2 * self.config.n_layer))
            else:
                parameter.normal_(std=INITIAL_STD)

    @property
    def num_parameters(self) -> int:
        """How many numbers its parameters have; equals config.parameter_count()."""
        return sum(parameter.numel() for parameter in self.parameters())

    def new_cache(self, batch_size: int, max_length: int) -> KVCache:
        """An empty cache on the weights' device and in their type."""
        weight = self.wte.weight
        return KVCache(self.config, batch_size, max_length, device=weight.device, dtype=weight.dtype)

    def hidden(self, tokens: Tensor, cache: KVCache | None = None) -> Tensor:
        """The residual stream at each position after the last layer norm: (B, T) int64 -> (B, T, C).

        With a cache the tokens continue those already in it, and their keys and values are added to it.
        ValueError when the text would be longer than n_positions, or than the cache.
        """
        return self.hidden_of(self.wte(tokens), cache)

    def hidden_of(self, embedded: Tensor, cache: KVCache | None) -> Tensor:
        """`hidden`, from the embedded tokens: (B, T, C) -> (B, T, C)."""
        T = embedded.size(1)
        past = 0 if cache is None else cache.length
        limit = self.config.n_positions if cache is None else cache.max_length
        if past + T > limit:
            raise ValueError(f"{past + T} tokens do not fit in a context of {limit}")
        x = self.drop(embedded + self.wpe.weight[past : past + T])  # (B, T, C) + (T, C)
        for block in self.h:
            x = block(x, cache)  # (B, T, C)
        if cache is not None:
            cache.advance(T)
        return self.ln_f(x)  # type: ignore[no-any-return]

    def logits(self, hidden: Tensor) -> Tensor:
        """The score of every next token: (B, T, C) -> (B, T, V)."""
        return F.linear(hidden, self.wte.weight)

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        cache: KVCache | None = None,
        reduction: Reduction = "mean",
    ) -> Tensor:
        """The logits (B, T, V) of tokens (B, T) int64; with targets, the loss in nats, fp32.

        targets (B, T) int64: the token that should follow each position, negative where it does not count. The
        loss is the mean or sum over those that count, or with reduction "none" one number a position, (B, T).
        """
        hidden = self.hidden(tokens, cache)  # (B, T, C)
        if targets is None:
            return self.logits(hidden)
        return linear_cross_entropy(hidden, self.wte.weight, targets, reduction)


class _NothingDrawn(TorchFunctionMode):
    """`normal_` leaves a tensor as it is: on the meta device it would first import torch's compiler, for a second."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (nn.init.normal_, Tensor.normal_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def network_without_weights(config: GPT2Config) -> GPT2:
    """A network on the meta device, of shapes alone: for `load_state_dict(assign=True)`, or for `to_empty` and that."""
    with torch.device("meta"), _NothingDrawn():
        return GPT2(config)
