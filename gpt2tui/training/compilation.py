"""torch.compile with a visible way back: an empty batch goes through before the first step."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from gpt2tui.errors import first_line
from gpt2tui.training.comparison import median_seconds, random_states_kept
from gpt2tui.training.precision import Precision, autocast, wait_for
from model.gpt2 import GPT2

Forward = Callable[..., Tensor]

PAIRS = 3  # of passes that are timed, compiled and not, in turns
WORTH_COMPILING = 0.98  # of the eager pass's time


def compiled(
    model: GPT2, shape: tuple[int, int], precision: Precision, *, if_faster: bool = False
) -> tuple[Forward, str | None]:
    """The compiled forward pass, or the eager model and the line that says why.

    Compiles now, forward and backward, with an empty batch of `shape` (B, T); weights, gradients and random states
    are afterwards as they were. With `if_faster` it then has to beat the eager model, which wins on a CPU where
    matrix products are nearly all of a step. To be called in the thread that trains: torch keeps its compile settings
    per thread.
    """
    device = next(model.parameters()).device
    model.train()
    with random_states_kept(device):
        try:
            torch._dynamo.reset()  # an earlier run of this process may have had another shape
            forward: Forward = torch.compile(model, dynamic=False)
            tokens = torch.zeros(shape, dtype=torch.int64, device=device)
            _seconds(forward, model, tokens, precision)
            if if_faster and (slower := _why_not_faster(forward, model, tokens, precision)):
                torch._dynamo.reset()
                return model, slower
            return forward, None
        except Exception as error:  # dynamo, inductor and the C++ compiler each raise their own kinds
            torch._dynamo.reset()
            reason = f"{type(error).__name__}: {first_line(error)[:200]}"
            return model, f"not compiled ({reason}); training runs the slower eager code"
        finally:
            model.zero_grad(set_to_none=True)


def _why_not_faster(forward: Forward, model: GPT2, tokens: Tensor, precision: Precision) -> str | None:
    """The line to show when the compiled pass is not faster than the eager one, else None."""
    _seconds(model, model, tokens, precision)  # the first one allocates memory
    ours, eager = median_seconds(
        lambda: _seconds(forward, model, tokens, precision), lambda: _seconds(model, model, tokens, precision), PAIRS
    )
    if ours <= WORTH_COMPILING * eager:
        return None
    return f"not compiled: the eager code is as fast here ({1000 * eager:,.0f} ms a batch, compiled {1000 * ours:,.0f})"


def _seconds(forward: Forward, model: GPT2, tokens: Tensor, precision: Precision) -> float:
    """What forward and backward of a batch take; the gradients are dropped."""
    started = time.perf_counter()
    targets = tokens.clone()  # inputs that are also the targets would be compiled as that, and the run's own once more
    with autocast(tokens.device, precision):
        loss = forward(tokens, targets)
    loss.backward()  # type: ignore[no-untyped-call]
    model.zero_grad(set_to_none=True)
    wait_for(tokens.device)
    return time.perf_counter() - started
