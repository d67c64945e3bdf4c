"""torch.compile with a visible way back: an empty batch goes through before the first step."""

from collections.abc import Callable

import torch
from torch import Tensor

from gpt2tui.device import Precision, autocast
from gpt2tui.errors import first_line
from model.gpt2 import GPT2

Forward = Callable[..., Tensor]


def compiled(model: GPT2, shape: tuple[int, int], precision: Precision) -> tuple[Forward, str | None]:
    """The compiled forward pass, or the eager model and the line that says why.

    Compiles now, forward and backward, with an empty batch of `shape` (B, T); weights, gradients and random states
    are afterwards as they were. To be called in the thread that trains: torch keeps its compile settings per thread.
    """
    device = next(model.parameters()).device
    model.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            torch._dynamo.reset()  # an earlier run of this process may have had another shape
            # Not mode="reduce-overhead": its CUDA graphs fail when gradients are accumulated, "accessing tensor output
            # [...] overwritten by a subsequent run" (pytorch/pytorch#169545).
            forward: Forward = torch.compile(model, dynamic=False)
            tokens = torch.zeros(shape, dtype=torch.int64, device=device)
            targets = tokens.clone()  # the same tensor twice would be compiled as that, and the run's own once more
            with autocast(device, precision):
                loss = forward(tokens, targets)
            loss.backward()  # type: ignore[no-untyped-call]
            return forward, None
        except Exception as error:  # dynamo, inductor and the C++ compiler each raise their own kinds
            torch._dynamo.reset()
            reason = f"{type(error).__name__}: {first_line(error)[:200]}"
            return model, f"not compiled ({reason}); training runs the slower eager code"
        finally:
            model.zero_grad(set_to_none=True)
