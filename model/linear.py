"""A linear layer that knows one thing of CPUs: few rows times a large matrix is quicker the other way round."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.eager_cpu import on_eager_cpu

FEW_ROWS = range(2, 129)
LARGE = 2**19  # numbers in the matrix; smaller ones stay in the cache, and then there is nothing to gain


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
        on_eager_cpu(x)
        and x.dtype == weight.dtype == torch.float32
        and weight.numel() >= LARGE
        and not torch.is_autocast_enabled("cpu")
    )


class Linear(nn.Linear):
    """torch's layer, with that product."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return linear(x, self.weight, self.bias)
