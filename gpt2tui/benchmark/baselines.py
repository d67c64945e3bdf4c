"""The baselines of the benchmark: transformers' GPT2LMHeadModel, and our network trained as nanoGPT does."""

import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt2tui.benchmark.job import Facts, Forward, Generate, Precisions, TrainStep, batch_sizes, precision_of
from gpt2tui.data.batches import Batch
from gpt2tui.device import Precision, autocast, choose_compilation
from gpt2tui.model.gpt2 import GPT2
from gpt2tui.model.huggingface import to_published
from gpt2tui.model.published_config import published_config
from gpt2tui.preset.schema import Preset
from gpt2tui.training.compilation import compiled


def published_model(preset: Preset) -> Any:
    """A GPT2LMHeadModel with random weights and its default attention."""
    import transformers

    transformers.logging.set_verbosity_error()
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**published_config(preset.model, None)))


def with_our_weights(model: Any, preset: Preset) -> Any:
    """The same model with the weights that our model of this preset starts from."""
    torch.manual_seed(preset.training.seed)
    weights = to_published(GPT2(preset.model).state_dict(), preset.model)
    missing = model.load_state_dict(weights, strict=False).missing_keys
    assert missing == ["lm_head.weight"]  # which is the embedding
    model.tie_weights()
    return model


def transformers_baseline(preset: Preset, device: torch.device, *, best: bool) -> tuple[TrainStep, Facts]:
    """fp32, eager, torch's default AdamW; with `best`, our precision and compilation, and fused AdamW."""
    model = with_our_weights(published_model(preset), preset).to(device)
    table = preset.optimizer
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=table.lr,
        betas=(table.beta1, table.beta2),
        weight_decay=table.weight_decay,
        fused=True if best else None,
    )
    if not best:
        return baseline_step(model, _Loss(model), optimizer, preset, device, "fp32"), {}
    forward, facts = compile_like_a_run(_Loss(model, use_cache=False), preset)
    return baseline_step(model, forward, optimizer, preset, device, cast(Precision, preset.training.precision)), facts


class _Loss(nn.Module):
    """(inputs, targets) -> the model's own loss; targets are already shifted, as in our batches."""

    def __init__(self, model: Any, **arguments: Any) -> None:
        super().__init__()
        self.model = model
        self.arguments = arguments

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The mean cross-entropy, scalar."""
        loss: Tensor = self.model(input_ids=inputs, labels=targets, shift_labels=targets, **self.arguments).loss
        return loss


def transformers_generation(preset: Preset, device: torch.device, *, best: bool) -> tuple[Generate, Precisions]:
    """Its `generate` with its cache, in fp32; with `best`, the weights in the preset's precision."""
    halves = {"bf16": torch.bfloat16, "fp16": torch.float16}
    dtype = halves.get(preset.training.precision, torch.float32) if best else torch.float32
    model, s = published_model(preset).eval().to(device, dtype), preset.sampling
    chosen: dict[str, Any] = {"do_sample": False}
    if s.temperature > 0:
        chosen = {"do_sample": True, "temperature": s.temperature, "top_k": s.top_k, "top_p": s.top_p}

    def generate(prompt: Tensor, count: int) -> tuple[float, float]:
        first: list[float] = []

        def note_first(tokens: Tensor, scores: Any) -> Tensor:  # called after each token
            if not first:
                tokens.cpu()  # waits for the device
                first.append(time.perf_counter())
            return torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)

        torch.manual_seed(s.seed)
        started = time.perf_counter()
        tokens = prompt.to(device)
        generated = model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=count,
            use_cache=True,
            pad_token_id=0,
            stopping_criteria=[note_first],
            **chosen,
        ).cpu()
        assert generated.size(1) == prompt.size(1) + count
        return first[0] - started, time.perf_counter() - started

    return generate, dict.fromkeys(batch_sizes(device), preset.training.precision if best else "fp32")


# ---- nanoGPT's training step


def nanogpt_baseline(preset: Preset, device: torch.device) -> tuple[TrainStep, Facts]:
    """Our plain network with all logits at once and AdamW with nanoGPT's groups.

    On a CPU fp32 and eager; on CUDA as nanoGPT trains there: in the precision of the preset, compiled, fused AdamW.
    """
    torch.manual_seed(preset.training.seed)
    model = GPT2(preset.model).to(device)
    table = preset.optimizer
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": table.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    on_gpu = device.type == "cuda"
    optimizer = torch.optim.AdamW(groups, lr=table.lr, betas=(table.beta1, table.beta2), fused=on_gpu)
    network = _AllLogits(model)
    forward, facts = compile_like_a_run(network, preset) if on_gpu else (network, {})
    precision = precision_of("nanogpt", preset)
    return baseline_step(model, forward, optimizer, preset, device, precision), facts


class _AllLogits(nn.Module):
    """(inputs, targets) -> the loss from all logits at once."""

    def __init__(self, model: GPT2) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The mean cross-entropy, scalar."""
        logits = self.model(inputs)  # (B, T, V)
        return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1), ignore_index=-1)


def baseline_step(
    model: nn.Module,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    preset: Preset,
    device: torch.device,
    precision: Precision,
) -> TrainStep:
    """The usual training step: accumulate, clip, update, drop the gradients."""
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


def compile_like_a_run(network: nn.Module, preset: Preset, *, graphs: bool = False) -> tuple[Forward, Facts]:
    """The forward pass (inputs, targets) -> loss, compiled if a run would compile; how long that took, or why not."""
    t = preset.training
    choice = choose_compilation(preset, torch.device(t.device))
    forward, note, started = cast(Forward, network), choice.note, time.perf_counter()
    if choice.wanted:
        shape, precision = (t.batch_size, t.sequence_length), cast(Precision, t.precision)
        forward, note = compiled(cast(GPT2, network), shape, precision, graphs=graphs)
    seconds = time.perf_counter() - started if forward is not network else None
    return forward, {"compile_seconds": seconds, "note": note}
