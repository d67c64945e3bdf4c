"""The embedding of tokens whose matrix is also the output's (Press and Wolf 2017), with one gradient for both uses.

Autograd makes the gradient of an embedding as a matrix of zeros, V x C, with the rows of the batch's tokens filled in,
and adds it to the gradient that came through the logits. With 50,257 tokens and a small batch that is a tenth of a
CPU's step. Here both uses leave through one function, whose backward adds the few rows to the other gradient.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from model.eager_cpu import on_eager_cpu


def tied_embedding(tokens: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of weight (V, C) for tokens (B, T) int64, as (B, T, C), and the weight to make logits with.

    The gradient that arrives at the second result is overwritten. Can be differentiated once.
    """
    differentiated = torch.is_grad_enabled() and weight.requires_grad
    # A GPU would add in an order that changes from run to run.
    if not differentiated or not on_eager_cpu(weight):
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
