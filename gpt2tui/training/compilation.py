"""torch.compile, tried with one batch before the first step; when it fails, training runs eager code and says so."""

from collections.abc import Callable

import torch
from torch import Tensor

from gpt2tui.device import Precision, autocast
from gpt2tui.errors import first_line
from gpt2tui.model.gpt2 import GPT2

Forward = Callable[..., Tensor]


def compiled(
    model: GPT2, shape: tuple[int, int], precision: Precision, *, graphs: bool = False
) -> tuple[Forward, str | None]:
    """The compiled forward pass, or the eager model; and what was asked for and did not work, with the reason.

    With `graphs`, on CUDA, the kernels of a pass are launched as one CUDA graph, and those of its backward pass as
    another: a small network waits for its launches. The gradients of a pass are then overwritten by the next, so they
    cannot be accumulated: torch refuses ("accessing tensor output [...] overwritten", pytorch/pytorch#169545).

    Compiles forward and backward at once, with a batch of zeros of `shape` (B, T), and leaves weights, gradients and
    random states unchanged. Call it in the training thread: torch keeps its compile settings per thread.
    """
    device = next(model.parameters()).device
    reason, without_graphs = "", None
    model.train()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        # torch 2.11 and 2.12 refuse graphs in another thread than that of the process's first (pytorch/pytorch#123177).
        for mode in ["reduce-overhead", None] if graphs and can_record_graphs(device) else [None]:
            try:
                torch.compiler.reset()  # an earlier run of this process may have had another shape
                forward: Forward = torch.compile(model, dynamic=False, mode=mode)
                tokens = torch.zeros(shape, dtype=torch.int64, device=device)
                targets = tokens.clone()  # passing one tensor twice would compile a special case
                with autocast(device, precision):
                    loss = forward(tokens, targets)
                loss.backward()  # type: ignore[no-untyped-call]
                return forward, without_graphs
            except Exception as error:  # dynamo, inductor and the C++ compiler each raise their own kinds
                torch.compiler.reset()
                reason = f"{type(error).__name__}: {first_line(error)[:200]}"
                without_graphs = f"compiled without CUDA graphs ({reason})"
            finally:
                model.zero_grad(set_to_none=True)
    return model, f"not compiled ({reason}); training runs the slower eager code"


def can_record_graphs(device: torch.device) -> bool:
    """Whether the device has CUDA graphs."""
    return device.type == "cuda"
