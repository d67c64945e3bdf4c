"""torch.compile with a visible way back: an empty batch goes through before the first step."""

from collections.abc import Callable

import torch
from torch import Tensor

from gpt2tui.training.precision import Precision, autocast
from model.gpt2 import GPT2


def compiled(model: GPT2, shape: tuple[int, int], precision: Precision) -> tuple[Callable[..., Tensor], str | None]:
    """The compiled forward pass, or the eager model and the line that says why.

    Compiles now, forward and backward, with an empty batch of `shape` (B, T); weights, gradients and random states
    are afterwards as they were. To be called in the thread that trains: torch keeps its compile settings per thread.
    """
    device = next(model.parameters()).device
    states = (torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None)
    model.train()
    try:
        forward = torch.compile(model)
        tokens = torch.zeros(shape, dtype=torch.int64, device=device)
        with autocast(device, precision):
            loss = forward(tokens, tokens)
        loss.backward()
        return forward, None
    except Exception as error:  # dynamo, inductor and the C++ compiler each raise their own kinds
        torch._dynamo.reset()
        first_line = next(iter(str(error).strip().splitlines()), "")
        return (
            model,
            f"not compiled ({type(error).__name__}: {first_line[:200]}); training runs the slower eager code",
        )
    finally:
        model.zero_grad(set_to_none=True)
        torch.set_rng_state(states[0])
        if states[1] is not None:
            torch.cuda.set_rng_state(states[1], device)
