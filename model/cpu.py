"""What only a CPU's speed needs: `tune_for_cpu` gives a network faster ways to compute the same numbers."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gpt2tui.model.gpt2 import GPT2
from gpt2tui.model.kv_cache import KVCache
from gpt2tui.model.loss import Reduction, is_eager_cpu, linear_cross_entropy

FEW_ROWS = range(2, 129)
LARGE = 2**19  # numbers in the matrix; smaller ones stay in the cache, and then there is nothing to gain


def tune_for_cpu(network: GPT2) -> GPT2:
    """The same network, changed in place: `CPUGPT2`, its linear layers `CPULinear`.

    Parameters, their names and the results stay as they are; on other devices and under a compiler it computes as
    before.
    """
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = CPULinear
    network.__class__ = CPUGPT2
    return network


class CPULinear(nn.Linear):
    """torch's layer with the product of `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return linear(x, self.weight, self.bias)


class CPUGPT2(GPT2):
    """GPT-2 with `linear` for its logits, and for its loss one gradient of both uses of the token embedding."""

    def logits(self, hidden: Tensor) -> Tensor:
        """The score of every next token: (B, T, C) -> (B, T, V)."""
        return linear(hidden, self.wte.weight)

    def forward(
        self,
        tokens: Tensor,
        targets: Tensor | None = None,
        cache: KVCache | None = None,
        reduction: Reduction = "mean",
    ) -> Tensor:
        """The logits (B, T, V), or with targets the loss, as `GPT2.forward`."""
        if targets is None:
            return super().forward(tokens, None, cache)
        embedded, weight = tied_embedding(tokens, self.wte.weight)  # (B, T, C), (V, C)
        return linear_cross_entropy(self.hidden_of(embedded, cache), weight, targets, reduction)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., in) times the transposed weight (out, in), plus bias (out,): (..., out), as torch's linear.

    MKL rearranges the weight in memory before it multiplies, which for a few rows takes as long as the product. With
    the weight on the left it does not: 2 to 128 rows took 0.4 to 0.8 times as long (fp32, 768 x 768 and larger).
    """
    if torch.is_grad_enabled() or not _is_large_on_cpu(x, weight) or x.numel() // x.size(-1) not in FEW_ROWS:
        return F.linear(x, weight, bias)
    y = (weight @ x.flatten(0, -2).T).T.contiguous().view(*x.shape[:-1], -1)
    return y if bias is None else y.add_(bias)


def _is_large_on_cpu(x: Tensor, weight: Tensor) -> bool:
    return (
        is_eager_cpu(x)
        and x.dtype == weight.dtype == torch.float32
        and weight.numel() >= LARGE
        and not torch.is_autocast_enabled("cpu")
    )


def tied_embedding(tokens: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of weight (V, C) for tokens (B, T) int64, as (B, T, C), and the weight to make logits with.

    Autograd alone would make a gradient (V, C) for each use and add the two; here the rows' is added into the logits',
    which it overwrites. Can be differentiated once.
    """
    differentiated = torch.is_grad_enabled() and weight.requires_grad
    # A GPU would add in an order that changes from run to run.
    if not differentiated or not is_eager_cpu(weight):
        return F.embedding(tokens, weight), weight
    return _TiedEmbedding.apply(tokens, weight)  # type: ignore[no-any-return, no-untyped-call]


class _TiedEmbedding(torch.autograd.Function):
    """(tokens (B, T), weight (V, C)) -> (rows (B, T, C), weight (V, C))."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(tokens)
        ctx.set_materialize_grads(False)
        ctx.shape = weight.shape
        return F.embedding(tokens, weight), weight.view_as(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_rows: Tensor | None, grad_weight: Tensor | None) -> tuple[None, Tensor | None]:
        if grad_rows is None:
            return None, grad_weight
        if grad_weight is None:  # no logits were made
            grad_weight = grad_rows.new_zeros(ctx.shape)
        (tokens,) = ctx.saved_tensors
        return None, grad_weight.index_add_(0, tokens.flatten(), grad_rows.flatten(0, -2))
