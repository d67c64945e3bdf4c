"""Cross-entropy of the next token that never holds all the logits.

For N positions the logits are N x V numbers: with 50,257 tokens they, their softmax and its gradient outweigh
the rest of a small model. But the gradient of the summed loss with respect to a position's logits, softmax -
one_hot(target), is known as soon as they are. So a chunk of positions goes from logits to its share of the
gradients of `hidden` and `weight` before the next chunk begins, and backward only has to scale them.

A vocabulary of 50,257 is an odd width for a matrix product. It is padded here and nowhere else, so that no parameter,
checkpoint or probability ever has a token that does not exist: on a GPU the weight gets rows of zeros, whose logits
never enter the softmax; on a CPU only the rows of the logits lie further apart (`_room_for_logits`).
"""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

Reduction = Literal["mean", "sum", "none"]

IGNORED = -1  # replaces every target that does not count
CHUNK_LOGITS = 2**28  # held at once: 1 GB in fp32; smaller chunks add to the gradient of `weight` more often
CPU_CHUNK_LOGITS = 2**25  # a CPU is as fast with an eighth
SLICE_LOGITS = 2**21  # 8 MB: on a CPU the softmax passes over what still lies in its cache, 1.2 times faster
PADDED_TO = 64  # numbers: 128 bytes of fp16, as NVIDIA's guide to matrix multiplication asks for tensor cores
PLAIN_LOGITS = 2**20  # up to here the plain way is as fast, measured with 65 and 1,024 tokens
# A compiler fuses the softmax with its casts and its gradient: on a GPU a tenth of a step of 124M is saved.
COMPILED_LOGITS = 2**30  # 2 GB in bf16


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, reduction: Reduction = "mean") -> Tensor:
    """The cross-entropy, in nats and fp32, of targets (B, T) int64 under softmax(hidden @ weight.T).

    hidden (B, T, C), weight (V, C); a negative target does not count (-1, or torch's -100). "mean" is over the
    targets that count, and 0 when none does; "none" gives (B, T), 0 where the target does not count. Matrix products
    are in the type of autocast or of `hidden`, everything else is in fp32. Can be differentiated once.
    """
    rows, row_targets = hidden.flatten(0, -2), targets.flatten()  # (N, C), (N,)
    dtype = _product_dtype(rows)
    differentiated = torch.is_grad_enabled() and (rows.requires_grad or weight.requires_grad)
    # A gradient made in advance knows neither the weights of single positions nor the factor with which a
    # gradient scaler keeps fp16 in range: these two compute their logits again in backward.
    in_advance = reduction != "none" and dtype != torch.float16
    at_once = COMPILED_LOGITS if weight.is_cuda and torch.compiler.is_compiling() else PLAIN_LOGITS
    if row_targets.numel() * weight.size(0) <= at_once:
        losses = _plain(rows, weight, row_targets, dtype)
    elif not differentiated:
        losses, _, _ = _losses_and_gradients(rows, weight, row_targets, None, dtype, (False, False))
    elif in_advance:
        scale = _share(row_targets) if reduction == "mean" else None
        return _InAdvance.apply(rows, weight, row_targets, scale, dtype)  # type: ignore[no-any-return, no-untyped-call]
    else:
        losses = _recomputing(rows, weight, row_targets, dtype)
    if reduction == "none":
        return losses.view_as(targets)
    total = losses.sum()
    return total * _share(row_targets) if reduction == "mean" else total


def _share(targets: Tensor) -> Tensor:
    """What the loss of one position counts in the mean, a scalar in fp32."""
    return (targets >= 0).sum().clamp(min=1).float().reciprocal()


def _product_dtype(hidden: Tensor) -> torch.dtype:
    device = hidden.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype


def _plain(hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
    """The losses (N,), all logits at once."""
    V, padded = len(weight), _padded(weight, dtype)
    logits = F.linear(hidden.to(dtype), padded).float()  # (N, V')
    if not torch.compiler.is_compiling():
        logits = logits[:, :V]  # where a target outside of the vocabulary raises an error
    elif len(padded) > V:  # the rows stay aligned, and a compiler fuses the mask
        logits = logits.masked_fill(torch.arange(len(padded), device=logits.device) >= V, -math.inf)
    return F.cross_entropy(logits, targets.clamp(min=IGNORED), ignore_index=IGNORED, reduction="none")


def _recomputing(hidden: Tensor, weight: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
    """The losses (N,), each chunk's logits computed in forward and once more in backward."""
    rows = _rows_per_chunk(weight, len(targets))
    chunks = zip(torch.split(hidden, rows), torch.split(targets, rows), strict=True)
    return torch.cat(
        [checkpoint(_plain, h, weight, t, dtype, use_reentrant=False, preserve_rng_state=False) for h, t in chunks]
    )


class _InAdvance(torch.autograd.Function):
    """(hidden (N, C), weight (V, C), targets (N,), scale or None, dtype) -> the scaled sum of the losses, scalar."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, scale: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        losses, *ctx.gradients = _losses_and_gradients(hidden, weight, targets, scale, dtype, ctx.needs_input_grad[:2])
        ctx.save_for_backward(hidden, weight, targets, scale)
        ctx.dtype = dtype
        total = losses.sum()
        return total if scale is None else total * scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        # Autograd may write into a gradient that it received, so it is returned once; retain_graph makes another.
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            hidden, weight, targets, scale = ctx.saved_tensors
            wanted = ctx.needs_input_grad[:2]
            _, *gradients = _losses_and_gradients(hidden, weight, targets, scale, ctx.dtype, wanted)
        # On a GPU the comparison would wait for the device.
        if not is_eager_cpu(grad_output) or grad_output != 1:
            gradients = [gradient if gradient is None else gradient * grad_output for gradient in gradients]
        return *gradients, None, None, None


def _losses_and_gradients(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    scale: Tensor | None,
    dtype: torch.dtype,
    wanted: tuple[bool, bool],
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The losses (N,), and of their sum times `scale` the wanted gradients: of hidden (N, C), of weight (V, C)."""
    grad_hidden = torch.empty_like(hidden) if wanted[0] else None
    grad_weight: Tensor | None = None
    losses = torch.empty(targets.shape, dtype=torch.float32, device=hidden.device)
    V, W = weight.size(0), _padded(weight, dtype)  # (V', C)
    rows = _rows_per_chunk(weight, len(targets))
    room = _room_for_logits(rows, W) if _in_place(W) else None
    for start in range(0, len(targets), rows):
        chunk = slice(start, start + rows)
        x = hidden[chunk].to(dtype)  # (n, C)
        logits = F.linear(x, W) if room is None else torch.mm(x, W.T, out=room[: len(x)])  # (n, V')
        losses[chunk] = _losses_and_logit_gradients_(logits[:, :V], targets[chunk], scale, any(wanted))
        gradients = logits  # overwritten above; beyond V they are zeros, as the logits were
        if grad_hidden is not None:
            grad_hidden[chunk] = gradients @ W
        if wanted[1] and grad_weight is None:
            grad_weight = (gradients.T @ x).float()
        elif grad_weight is not None and dtype == torch.float32:
            grad_weight.addmm_(gradients.T, x)
        elif grad_weight is not None:
            grad_weight += gradients.T @ x  # bf16 products, summed in fp32
        del logits, gradients  # or they would be alive beside the next chunk's
    return losses, grad_hidden, None if grad_weight is None else grad_weight[:V].to(weight.dtype)


def _padded(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight (V, C) in `dtype`; on a GPU with rows of zeros up to a multiple of PADDED_TO: (V', C)."""
    missing = -weight.size(0) % PADDED_TO if _pads(weight) else 0
    return F.pad(weight.to(dtype), (0, 0, 0, missing)) if missing else weight.to(dtype)


def _pads(weight: Tensor) -> bool:
    return weight.is_cuda


def _in_place(weight: Tensor) -> bool:
    return is_eager_cpu(weight) and weight.dtype == torch.float32


def _room_for_logits(rows: int, weight: Tensor) -> Tensor:
    """Memory (rows, V) for each chunk in turn; rows begin on cache lines, and never a power of two apart.

    Against fresh memory without gaps, products into it took 0.6 times as long with 50,257 tokens, and those out of it
    0.86 times with 4,096.
    """
    V, line = weight.size(0), 64  # numbers
    return weight.new_empty(rows, (V // line + 2) * line)[:, :V]


def _losses_and_logit_gradients_(logits: Tensor, targets: Tensor, scale: Tensor | None, differentiated: bool) -> Tensor:
    """The losses (n,) of logits (n, V), which are overwritten; with their scaled gradients, when differentiated."""
    counts = targets >= 0
    targets = targets.clamp(min=0)
    losses = []
    rows = max(1, SLICE_LOGITS // logits.size(1)) if is_eager_cpu(logits) else len(logits)
    for piece, target, counted in zip(
        torch.split(logits, rows),
        torch.split(targets, rows),
        torch.split(counts.unsqueeze(1).float(), rows),
        strict=True,
    ):
        index = target.unsqueeze(1)  # (n, 1)
        x = piece.float()  # the same memory when it is fp32 already
        own = x.gather(1, index)
        highest = x.amax(1, keepdim=True)
        total = x.sub_(highest).exp_().sum(1, keepdim=True)
        losses.append(((highest - own + total.log()) * counted).squeeze(1))
        if differentiated:
            each = counted if scale is None else counted * scale  # (n, 1)
            x.mul_(each / total).scatter_add_(1, index, -each)  # softmax - one_hot
            if x.dtype != piece.dtype:
                piece.copy_(x)
    return torch.cat(losses)


def _rows_per_chunk(weight: Tensor, rows: int) -> int:
    """As few chunks as the limit allows, of one size: a last one of a few rows would leave the room of the others."""
    logits = min(CHUNK_LOGITS, CPU_CHUNK_LOGITS) if weight.device.type == "cpu" else CHUNK_LOGITS
    most = max(1, logits // weight.size(0))
    return math.ceil(rows / max(1, math.ceil(rows / most)))


def is_eager_cpu(tensor: Tensor) -> bool:
    """Whether a CPU is about to run these very lines on the tensor: a GPU has other costs, and a compiler fuses."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()
