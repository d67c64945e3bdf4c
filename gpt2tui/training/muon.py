"""Muon (Jordan et al. 2024): momentum whose matrices are made orthogonal before they move the weights."""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from gpt2tui.device import bf16_is_native

# The quintic of Newton and Schulz whose slope at zero is steepest (Jordan et al. 2024, the Muon post).
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5
STACKED = 2**24
"""Elements per stack: small matrices are faster when they are orthogonalised together, large ones are not."""

T = TypeVar("T")


def orthogonalize(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly: singular values of (..., m, n) go to about 1.

    The products run in `dtype`. In bf16 that is what torch.optim.Muon does. A CPU without bf16 instructions emulates
    them a hundred times slower than fp32; there, the iteration of a wide matrix runs on its Gram matrix.
    """
    tall = matrices.size(-2) > matrices.size(-1)
    x = matrices.to(dtype)
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    wide = 2 * x.size(-2) <= x.size(-1)
    # bf16 has too few digits for the squared singular values.
    x = _through_gram(x) if wide and dtype == torch.float32 else _newton_schulz(x)
    return x.mT if tall else x


def _newton_schulz(x: Tensor) -> Tensor:
    """(aI + bG + cG²) x with G = x x^T, five times: (..., m, n) with m <= n."""
    a, b, c = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        x = _add_product(x, _polynomial(x @ x.mT, b, c), x, a)
    return x


def _through_gram(x: Tensor) -> Tensor:
    """The same function with two products of width n instead of ten: each step is a polynomial of the Gram matrix."""
    a, b, c = NEWTON_SCHULZ
    gram, product = x @ x.mT, None
    for step in range(NEWTON_SCHULZ_STEPS):
        factor = _polynomial(gram, b, c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = factor if product is None else factor @ product
        if step < NEWTON_SCHULZ_STEPS - 1:
            gram = factor @ gram @ factor  # of factor @ x
    return product @ x  # type: ignore[operator]


def _polynomial(gram: Tensor, b: float, c: float) -> Tensor:
    return _add_product(gram, gram, gram, b, c)


def _add_product(addend: Tensor, left: Tensor, right: Tensor, beta: float, alpha: float = 1.0) -> Tensor:
    """beta * addend + alpha * left @ right, in one call."""
    product = torch.baddbmm if addend.ndim == 3 else torch.addmm
    return product(addend, left, right, beta=beta, alpha=alpha)


class _Matrix(NamedTuple):
    """Views of one matrix to be orthogonalised, transposed if it is tall, and of its gradient and momentum."""

    weight: Tensor
    gradient: Tensor
    momentum: Tensor
    scale: float


class Muon(torch.optim.Muon):
    """torch.optim.Muon with three differences, all inside `step`; state and arguments are torch's.

    The iteration runs in fp32 where bf16 is not native; a fused qkv of shape (3C, C) is three matrices, each
    orthogonalised by itself as Jordan et al. recommend; and matrices of one shape are orthogonalised together.
    """

    orthogonalize: Callable[[Tensor, torch.dtype], Tensor] = staticmethod(orthogonalize)
    """(n, rows, columns), type of the products -> (n, rows, columns); several ranks divide the matrices."""

    # Without torch's wrapper, which would load its compiler.
    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient; `closure` is ignored.

        Nothing changes if the attribute `found_inf` is a scalar tensor of 1, as with torch's fused optimizers.
        """
        found_inf: Tensor | None = getattr(self, "found_inf", None)
        moves = 1.0 if found_inf is None else 1.0 - found_inf.double()
        for group in self.param_groups:
            for matrices in self._stacks(group):
                momenta, gradients = [p.momentum for p in matrices], [p.gradient for p in matrices]
                if found_inf is not None:  # interpolating towards itself leaves a momentum unchanged
                    kept = torch.stack(gradients).where(found_inf == 0, torch.stack(momenta))
                    gradients = list(kept.unbind())
                torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
                updates = torch._foreach_lerp(gradients, momenta, group["momentum"])  # Nesterov
                stack = torch.stack(updates) if len(matrices) > 1 else updates[0].unsqueeze(0)
                stack = self.orthogonalize(stack, product_dtype(stack.device))
                stack = stack.float() if found_inf is None else stack.float() * moves
                if decay := group["lr"] * group["weight_decay"]:
                    torch._foreach_mul_([p.weight for p in matrices], 1 - decay * moves)
                _add_scaled(matrices, stack.unbind(), -group["lr"])

    def _stacks(self, group: dict[str, Any]) -> Iterator[Sequence[_Matrix]]:
        """The matrices of a group in stacks of one shape, none much larger than STACKED."""
        by_shape: dict[torch.Size, list[_Matrix]] = {}
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter.grad)
            for matrix in _matrices(parameter, state["momentum_buffer"]):
                by_shape.setdefault(matrix.weight.shape, []).append(matrix)
        yield from in_stacks(by_shape)


def _add_scaled(matrices: Sequence[_Matrix], updates: Sequence[Tensor], factor: float) -> None:
    """Adds the updates, each times `factor` and the matrix's own scale; in one call for all of a scale."""
    for scale in {matrix.scale for matrix in matrices}:
        own = [(m.weight, update) for m, update in zip(matrices, updates, strict=True) if m.scale == scale]
        weights, moves = zip(*own, strict=True)
        torch._foreach_add_(weights, moves, alpha=factor * scale)


def in_stacks(by_shape: Mapping[torch.Size, Sequence[T]]) -> Iterator[Sequence[T]]:
    """What has the same shape together, as much as has about STACKED numbers."""
    for shape, same in by_shape.items():
        together = max(1, STACKED // shape.numel())
        for start in range(0, len(same), together):
            yield same[start : start + together]


def matrices_in(tensor: Tensor) -> list[Tensor]:
    """Views of the matrices in a parameter (rows, columns), three in a fused qkv, transposed where they are tall."""
    count = _count(tensor)
    tall = tensor.size(0) // count > tensor.size(1)
    return [matrix.mT if tall else matrix for matrix in tensor.chunk(count)]


def scale_of(parameter: Tensor) -> float:
    """The factor of an orthogonal update for the matrices in a parameter: larger where they are tall."""
    return math.sqrt(max(1.0, parameter.size(0) / _count(parameter) / parameter.size(1)))


def _count(parameter: Tensor) -> int:
    """A fused qkv of shape (3C, C) is three matrices."""
    rows, columns = parameter.shape
    return 3 if rows == 3 * columns else 1


def _matrices(parameter: Tensor, momentum: Tensor) -> Iterator[_Matrix]:
    assert parameter.grad is not None
    parts = (matrices_in(tensor) for tensor in (parameter, parameter.grad, momentum))
    for weight, gradient, buffer in zip(*parts, strict=True):
        yield _Matrix(weight, gradient, buffer, scale_of(parameter))


def product_dtype(device: torch.device) -> torch.dtype:
    """bf16 where the device multiplies it natively, else fp32."""
    return torch.bfloat16 if bf16_is_native(device) else torch.float32
