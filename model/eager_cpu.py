"""Where our own care about memory pays: a GPU has other costs, and a compiler fuses by itself."""

import torch
from torch import Tensor


def on_eager_cpu(tensor: Tensor) -> bool:
    """Whether a CPU is about to run these very lines on the tensor."""
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()
