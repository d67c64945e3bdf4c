"""The way nanoGPT trains on a CPU, with our network: fp32, eager, cross-entropy over all logits, torch's AdamW."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt2tui.benchmark.training import Step
from gpt2tui.data.batches import Batch
from gpt2tui.device import Precision, autocast
from gpt2tui.preset import Preset
from model.gpt2 import GPT2


def plain_step(preset: Preset, device: torch.device) -> Step:
    """nanoGPT's step: its groups with and without decay, AdamW fused on CUDA only."""
    torch.manual_seed(preset.training.seed)
    model = GPT2(preset.model).to(device)
    table = preset.optimizer
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": table.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    fused = device.type == "cuda"
    optimizer = torch.optim.AdamW(groups, lr=table.lr, betas=(table.beta1, table.beta2), fused=fused)

    def loss_of(inputs: Tensor, targets: Tensor) -> Tensor:
        logits = model(inputs)  # (B, T, V)
        return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1), ignore_index=-1)

    return usual_step(model, loss_of, optimizer, preset, device, "fp32")


def usual_step(
    model: nn.Module,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    preset: Preset,
    device: torch.device,
    precision: Precision,
) -> Step:
    """The step that everybody writes: accumulate, clip, update, drop the gradients."""
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    clip = preset.optimizer.grad_clip

    def step(micro_batches: Sequence[Batch], number: int) -> Callable[[], float]:
        model.train()
        total = torch.zeros((), device=device)
        for inputs, targets in micro_batches:
            with autocast(device, precision):
                loss = loss_of(inputs.to(device), targets.to(device)) / len(micro_batches)
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        if clip:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return lambda: float(total)

    return step
