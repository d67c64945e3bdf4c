"""From logits to text: sampling the next token, and the loop that generates one token after another."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gpt2tui.model.decoding import LogitsSource
from gpt2tui.model.gpt2 import GPT2
from gpt2tui.model.kv_cache import KVCache

NUCLEUS_SIZES = (64, 1024)  # the k of top-k searches that are tried before the whole vocabulary is sorted


@dataclass(frozen=True)
class GeneratedToken:
    """The next token of each sequence, on the CPU."""

    token: Tensor
    """(B,) int64."""
    probability: Tensor
    """(B,) fp32: the model's own probability of that token (temperature 1, no truncation)."""
    logits: Tensor
    """(B, V): the logits of its position, on the model's device."""


Generators = torch.Generator | Sequence[torch.Generator]
"""One for all texts, or one for each of them; on the CPU."""


def next_token(logits: Tensor, temperature: float, top_k: int, top_p: float, generator: Generators) -> Tensor:
    """Sample a token for each row of logits (B, V): (B,) int64, on the CPU.

    temperature: 0 takes the argmax; else the logits are divided by it.
    top_k: sample from the k likeliest tokens; 0, or more than V, means from all.
    top_p: of those, sample from the smallest set whose total probability is at least p, never empty
        (nucleus sampling, Holtzman et al. 2020, section 3.1).
    generator: a call draws B doubles from it, or one from each; none when temperature is 0.

    Infinite logits count as the largest finite ones; a token with logit NaN is sampled only if all are NaN.
    ValueError for a temperature or top_k below 0, or top_p outside (0, 1].
    """
    if not (temperature >= 0.0 and top_k >= 0 and 0.0 < top_p <= 1.0):
        raise ValueError(f"cannot sample with temperature={temperature}, top_k={top_k}, top_p={top_p}")
    lowest = torch.finfo(torch.float32).min
    logits = torch.nan_to_num(logits.detach().float(), nan=lowest)  # (B, V)
    if temperature == 0.0:
        return logits.argmax(-1).cpu()

    tokens: Tensor | None = None  # the tokens of the columns of `logits`, likeliest first; None: all, in order
    if 0 < top_k < logits.size(-1):
        logits, tokens = logits.topk(top_k)  # (B, k)
    weights = _weights(logits, temperature)  # (B, V or k), the largest is 1
    nucleus = top_p * weights.sum(-1, keepdim=True)  # (B, 1)
    if top_p < 1.0 and tokens is None:
        logits, tokens = _likeliest(logits, temperature, nucleus)  # (B, k)
        weights = _weights(logits, temperature)
    cumulative = weights.cumsum(-1)
    if top_p < 1.0:
        before = cumulative - weights  # the total of the likelier tokens
        weights = weights.where(before < nucleus, 0.0)  # includes the token that crosses top_p
        cumulative = weights.cumsum(-1)

    # Invert the cumulative distribution: one random number per row, where torch.multinomial draws one per token.
    random = _random(len(weights), generator).to(cumulative.device)  # (B, 1)
    chosen = torch.searchsorted(cumulative, random * cumulative[:, -1:], right=True)  # (B, 1)
    if tokens is not None:
        chosen = tokens.to(chosen.device).gather(-1, chosen)
    return chosen.squeeze(-1).cpu()


def _random(rows: int, generator: Generators) -> Tensor:
    """Numbers from [0, 1), (rows, 1) fp64; of several generators each draws what it would draw for a row alone."""
    if isinstance(generator, torch.Generator):
        return torch.rand(rows, 1, dtype=torch.float64, generator=generator)
    return torch.cat([torch.rand(1, 1, dtype=torch.float64, generator=each) for each in generator])


def _weights(logits: Tensor, temperature: float) -> Tensor:
    """Probabilities relative to the likeliest token of each row, which has 1: (B, k) fp64, on the CPU or on CUDA."""
    # In doubles the difference of two floats does not overflow, and 0 / temperature is never NaN.
    scores = (logits if logits.is_cuda else logits.cpu()).double()  # MPS has no doubles
    return ((scores - scores.amax(-1, keepdim=True)) / temperature).exp()


def _likeliest(logits: Tensor, temperature: float, nucleus: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and tokens (B, k) of the likeliest tokens, descending, whose weights sum to more than `nucleus` (B, 1).

    On a CPU, sorting the vocabulary takes a quarter of a 124M model's time per token, and a nucleus is usually small.
    """
    for k in NUCLEUS_SIZES:
        if k < logits.size(-1):
            likeliest = logits.topk(k)
            if (_weights(likeliest.values, temperature).sum(-1, keepdim=True) > nucleus).all():
                return likeliest.values, likeliest.indices
    everything = logits.sort(descending=True)
    return everything.values, everything.indices


def generate(
    model: GPT2,
    prompt: Tensor,
    *,
    max_length: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    generator: Generators,
    stop_token: int | None = None,
    decoder: LogitsSource | None = None,
    context_length: int | None = None,
) -> Iterator[GeneratedToken]:
    """Continue prompts (B, T) of the same length, T >= 1, token by token, at most `max_length` tokens.

    One prompt (1, T) with several generators is read once and continued once with each of them: B is their number.

    The model reads at most `context_length` tokens at once (default: n_positions): a longer prompt keeps its end, and
    when the text outgrows it, the older half of the window is dropped and the rest is read again. `stop_token` is
    part of the stream, which ends when every sequence has generated it; a sequence that is done before the others
    repeats it.

    `decoder`, made from the same model, computes the logits of what it `reads`.
    Draws random numbers from `generator` only. The model is in evaluation mode only while it
    computes; between tokens its training mode is unchanged.
    ValueError for an empty prompt, tokens outside of the vocabulary, a context length outside 1..n_positions, or
    another number of generators than of several prompts.
    """
    if prompt.dim() != 2 or prompt.numel() == 0:
        raise ValueError(f"the prompt must be (B, T) with at least one token, not {tuple(prompt.shape)}")
    if prompt.min() < 0 or prompt.max() >= model.wte.num_embeddings:
        raise ValueError(f"the prompt has tokens outside of the vocabulary of {model.wte.num_embeddings}")
    context = model.config.n_positions if context_length is None else context_length
    if not 1 <= context <= model.config.n_positions:
        raise ValueError(f"context_length {context} is not between 1 and n_positions = {model.config.n_positions}")
    text = prompt[:, -context:].cpu()  # (B, T) the window: what is in the cache or about to be
    length = min(context, text.size(1) + max_length)
    texts = len(text) if isinstance(generator, torch.Generator) else len(generator)
    if texts != len(text) > 1:
        raise ValueError(f"{texts} generators for {len(text)} prompts")
    read_once = len(text) < texts and not (decoder and decoder.reads(*text.shape))
    text = text.expand(texts, -1)
    cache = model.new_cache(texts, length)
    stopped = torch.zeros(texts, dtype=torch.bool)
    for _ in range(max_length):
        new = text[:, cache.length :]  # (B, T), after the prompt (B, 1)
        if read_once and not cache.length:
            own = model.new_cache(1, new.size(1))
            logits = _last_logits(model, new[:1], own).expand(texts, -1)
            cache.take(own)
            read_once = False  # later windows are texts of their own
        elif decoder is not None and decoder.reads(*new.shape):
            logits = decoder.logits(new.to(decoder.device), cache)  # (B, V)
        else:
            logits = _last_logits(model, new, cache)
        token = next_token(logits, temperature, top_k, top_p, generator)  # (B,)
        if stop_token is not None:
            token = token.where(~stopped, stop_token)
            stopped |= token == stop_token
        probability = logits.float().softmax(-1).gather(-1, token.to(logits.device)[:, None]).squeeze(-1)  # (B,)
        yield GeneratedToken(token, probability.cpu(), logits)
        if stopped.all():
            return
        text = torch.cat((text, token[:, None]), dim=1)
        if text.size(1) > context:
            text = text[:, -max(1, context // 2) :]
            cache.reset()


@torch.inference_mode()
def _last_logits(model: GPT2, tokens: Tensor, cache: KVCache) -> Tensor:
    with _evaluating(model):
        hidden = model.hidden(tokens.to(model.wte.weight.device), cache)  # (B, T, C)
        return model.logits(hidden[:, -1])  # (B, V)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    try:
        model.eval()
        yield
    finally:
        for module in training:
            module.training = True
