"""GPT2LMHeadModel of transformers in the same shape with the same weights, as people run it and at its best."""

import time
from typing import Any, cast

import torch
from torch import Tensor, nn

from gpt2tui.benchmark.generation import BATCH_SIZES, Precisions, Write
from gpt2tui.benchmark.plain import usual_step
from gpt2tui.benchmark.training import Facts, Step, compile_as_a_run_does
from gpt2tui.device import Precision
from gpt2tui.preset import Preset
from model.gpt2 import GPT2
from model.huggingface import published_config, to_published


def published_model(preset: Preset) -> Any:
    """A GPT2LMHeadModel of random weights, with the attention that it chooses itself."""
    import transformers

    transformers.logging.set_verbosity_error()
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**published_config(preset.model, None)))


def with_our_weights(model: Any, preset: Preset) -> Any:
    """The same with the weights that our model of this preset starts from."""
    torch.manual_seed(preset.training.seed)
    weights = to_published(GPT2(preset.model).state_dict(), preset.model)
    missing = model.load_state_dict(weights, strict=False).missing_keys
    assert missing == ["lm_head.weight"]  # which is the embedding
    model.tie_weights()
    return model


def transformers_step(preset: Preset, device: torch.device, *, best: bool) -> tuple[Step, Facts]:
    """fp32, eager and torch's default AdamW; at its best our precision and compilation, and AdamW fused."""
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
        return usual_step(model, _Loss(model), optimizer, preset, device, "fp32"), {}
    forward, facts = compile_as_a_run_does(_Loss(model, use_cache=False), preset)
    return usual_step(model, forward, optimizer, preset, device, cast(Precision, preset.training.precision)), facts


class _Loss(nn.Module):
    """(inputs, targets) -> the model's own loss; targets are what follows each position, as our batches have it."""

    def __init__(self, model: Any, **arguments: Any) -> None:
        super().__init__()
        self.model = model
        self.arguments = arguments

    def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The mean cross-entropy, scalar."""
        loss: Tensor = self.model(input_ids=inputs, labels=targets, shift_labels=targets, **self.arguments).loss
        return loss


def transformers_write(preset: Preset, device: torch.device, *, best: bool) -> tuple[Write, Precisions]:
    """Its `generate` with its cache, in fp32; at its best with the weights in the preset's precision."""
    halves = {"bf16": torch.bfloat16, "fp16": torch.float16}
    dtype = halves.get(preset.training.precision, torch.float32) if best else torch.float32
    model, s = published_model(preset).eval().to(device, dtype), preset.sampling
    chosen: dict[str, Any] = {"do_sample": False}
    if s.temperature > 0:
        chosen = {"do_sample": True, "temperature": s.temperature, "top_k": s.top_k, "top_p": s.top_p}

    def write(prompt: Tensor, count: int) -> tuple[float, float]:
        first: list[float] = []

        def watch(tokens: Tensor, scores: Any) -> Tensor:  # called after each token
            if not first:
                tokens.cpu()  # waits for the device
                first.append(time.perf_counter())
            return torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)

        torch.manual_seed(s.seed)
        started = time.perf_counter()
        tokens = prompt.to(device)
        written = model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            max_new_tokens=count,
            use_cache=True,
            pad_token_id=0,
            stopping_criteria=[watch],
            **chosen,
        ).cpu()
        assert written.size(1) == prompt.size(1) + count
        return first[0] - started, time.perf_counter() - started

    return write, dict.fromkeys(BATCH_SIZES, preset.training.precision if best else "fp32")
