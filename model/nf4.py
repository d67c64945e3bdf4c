"""NF4, the 4-bit numbers of QLoRA (Dettmers et al. 2023, section 3): frozen matrices in an eighth of fp32's memory.

64 numbers in a row share a scale, and each is one of 16 values that are equally likely where weights are normally
distributed. The scales are quantised to 8 bits too, 256 of them sharing one ("double quantisation"): 4.127 bits a
number in all. bitsandbytes makes and reads the numbers.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt2tui.model.gpt2 import GPT2
from gpt2tui.model.lora import LORA_MATRICES

BLOCK = 64  # numbers that share a scale, as in the paper


class NF4Linear(nn.Module):
    """A frozen linear layer whose matrix is NF4. A product makes it whole for its own duration."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """weight (out, in) fp32, bias (out,); both on the device that the layer will be on."""
        super().__init__()
        self.out_features, self.in_features = weight.shape
        packed, state = _quantized(weight)
        self.register_buffer("packed", packed)
        self.register_buffer("scales", state.absmax)
        self.register_buffer("scales_offset", state.offset)
        self.register_buffer("scales_of_scales", state.state2.absmax)
        self.register_buffer("scales_code", state.state2.code)
        self.register_buffer("code", state.code)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def weight(self) -> Tensor:
        """The matrix (out, in), fp32."""
        from bitsandbytes import functional

        buffers = dict(self.named_buffers())  # the copy on another device has its own
        of_scales = functional.QuantState(
            buffers["scales_of_scales"], code=buffers["scales_code"], blocksize=256, dtype=torch.float32
        )
        state = functional.QuantState(
            buffers["scales"],
            shape=torch.Size((self.out_features, self.in_features)),
            code=buffers["code"],
            blocksize=BLOCK,
            quant_type="nf4",
            dtype=torch.float32,
            offset=buffers["scales_offset"],
            state2=of_scales,
        )
        weight: Tensor = functional.dequantize_4bit(buffers["packed"], state)
        return weight

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        y: Tensor = _Product.apply(x.flatten(0, -2), self)  # type: ignore[no-untyped-call]
        return y.view(*x.shape[:-1], self.out_features)


class _Product(torch.autograd.Function):
    """x (n, in) times the transposed matrix of a layer, plus its bias; the matrix is made again for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: NF4Linear) -> Tensor:
        ctx.layer = layer
        return F.linear(x, layer.weight().to(x.dtype), None if layer.bias is None else layer.bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad @ ctx.layer.weight().to(grad.dtype), None


@torch.no_grad()
def quantize_matrices(network: GPT2, device: torch.device) -> None:
    """Puts the four matrices of each block on the device as NF4; nothing else is moved.

    Each matrix is released before the next is quantised if the network has the only reference to it.
    """
    for block in network.h:
        for target in LORA_MATRICES:
            part, _, name = target.partition(".")
            layers = getattr(block, part)
            linear = getattr(layers, name)
            bias = None if linear.bias is None else linear.bias.detach().to(device, copy=True)
            setattr(layers, name, NF4Linear(linear.weight.detach().to(device), bias))


@torch.no_grad()
def round_matrices(network: GPT2) -> None:
    """Gives the matrices of each block the values that they have as NF4, beside which an adapter was trained."""
    from bitsandbytes import functional

    for block in network.h:
        for target in LORA_MATRICES:
            weight = block.get_parameter(f"{target}.weight")
            weight.copy_(functional.dequantize_4bit(*_quantized(weight.detach())))


def _quantized(weight: Tensor) -> tuple[Tensor, Any]:
    """The packed numbers and bitsandbytes' QuantState."""
    from bitsandbytes import functional

    packed, state = functional.quantize_4bit(
        weight.contiguous(), blocksize=BLOCK, compress_statistics=True, quant_type="nf4"
    )
    return packed, state
