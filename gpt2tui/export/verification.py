"""Whether an exported model is the model: its weights, its tokenizer, its logits and what it generates."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from gpt2tui.data import tokenizer_files
from gpt2tui.data.tokenizers import Tokenizer
from gpt2tui.errors import CheckpointError
from gpt2tui.generation import TextModel
from gpt2tui.model.gpt2 import GPT2
from gpt2tui.model.sampling import generate

GREEDY_TOKENS = 64
PROMPT_TOKENS = 8
LONGEST_TEXT = 1024
"""Tokens whose logits are compared at once: 206 MB with GPT-2's vocabulary."""

Dtype = Literal["fp32", "fp16", "bf16", "int8"]
DTYPES: Mapping[Dtype, torch.dtype] = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
LIMITS: Mapping[Dtype, float] = {"fp32": 1e-5, "fp16": 2e-3, "bf16": 2e-2, "int8": 0.1}
"""The largest difference of two logits, as a share of the largest logit; of fp32 at least that of 10.

Rounding weights changes the logits of a barely trained model, which are small, by as small a share.
"""

PROBE = "The quick  brown fox,\n\n it's 12345 times in caf\u00e9 \u2026 and\tnaïve 東京 x_1 = [0.5, -2]\n"

LogitsOf = Callable[[Tensor], Tensor]
"""Tokens (T,) int64 to the logits of each next token (T, V) fp32."""


@dataclass(frozen=True)
class Verification:
    """What a runtime made of an exported model, beside the model itself in fp32."""

    runtime: str
    difference: float
    """The largest difference of two logits, over a text and each step of the greedy continuation."""
    limit: float
    equal_tokens: int
    """At how many of the GREEDY_TOKENS steps of the model's greedy continuation the most probable token is the same."""
    padded_batches: bool = False
    """Whether `difference` is also over batches of texts of different lengths."""

    def __str__(self) -> str:
        return (
            f"verified in {self.runtime}: largest difference of logits {self.difference:.2g} (limit {self.limit:.2g}), "
            f"greedy continuation {self.equal_tokens} of {GREEDY_TOKENS} tokens equal"
            + (", batches with padding too" if self.padded_batches else "")
        )


@dataclass(frozen=True)
class QuantizationLoss:
    """The perplexity per token of a model and of its quantised export, on the same text."""

    text: str
    tokens: int
    perplexity: float
    quantized_perplexity: float

    def __str__(self) -> str:
        more = self.quantized_perplexity / self.perplexity - 1
        return (
            f"perplexity per token {self.quantized_perplexity:.4g}, unquantised {self.perplexity:.4g} ({more:+.2%}), "
            f"on {self.tokens:,} tokens of {self.text}"
        )


@dataclass(frozen=True)
class Checked:
    """How an export did in the runtimes that read its format."""

    verifications: tuple[Verification, ...]
    not_run_in: tuple[str, ...] = ()
    """Runtimes that are not installed, or that this program cannot call."""
    notes: tuple[str, ...] = ()
    """Sentences about what a runtime cannot do with it."""
    quantization: QuantizationLoss | None = None

    def lines(self) -> tuple[str, ...]:
        """All of it as sentences."""
        loss = () if self.quantization is None else (self.quantization,)
        not_run = (f"not run in {runtime}" for runtime in self.not_run_in)
        return tuple(map(str, (*self.verifications, *loss, *self.notes, *not_run)))


@dataclass(frozen=True)
class _GreedyStep:
    window: Tensor
    """(T,) the tokens that are read."""
    token: int
    logits: Tensor
    """(V,) of the token after the window."""


class Reference:
    """The model's own logits and greedy continuation, computed once for all runtimes.

    The text is <|endoftext|> and random tokens of the whole vocabulary, as long as the context, at most LONGEST_TEXT.
    """

    def __init__(self, text_model: TextModel) -> None:
        model, context = text_model.model, text_model.context_length
        length = min(context, LONGEST_TEXT)
        chosen = torch.randint(text_model.vocab_size, (length - 1,), generator=torch.Generator().manual_seed(0))
        self.tokens = torch.cat((torch.tensor([text_model.tokenizer.eot]), chosen))  # (T,)
        self.logits = logits_of(model)(self.tokens)  # (T, V)
        self.largest_logit = float(self.logits.abs().max())
        window = self.tokens[:PROMPT_TOKENS]
        self.steps = []
        for generated in generate(
            model,
            window[None],
            max_length=GREEDY_TOKENS,
            temperature=0.0,
            generator=torch.Generator(),
            context_length=context,
        ):
            self.steps.append(_GreedyStep(window, int(generated.token), generated.logits[0].float()))
            window = torch.cat((window, generated.token))
            if len(window) > context:  # as `generate`
                window = window[-max(1, context // 2) :]

    def verify(self, runtime: str, exported: LogitsOf, dtype: Dtype) -> Verification:
        """Runs an exported model on the same tokens.

        Raises CheckpointError when a logit differs by more than the limit. So the greedy continuation can differ only
        where the model's own logits of the two tokens are closer than twice the limit.
        """
        largest = self.difference(runtime, exported(self.tokens), self.logits, dtype)
        steps = self.verify_steps(runtime, exported, dtype)
        return replace(steps, difference=max(largest, steps.difference))

    def verify_steps(self, runtime: str, exported: LogitsOf, dtype: Dtype) -> Verification:
        """`verify` of the greedy continuation alone, for a runtime that gives the logits of the last token only."""
        largest, equal = 0.0, 0
        for step in self.steps:
            logits = exported(step.window)[-1]  # (V,)
            largest = max(largest, self.difference(runtime, logits, step.logits, dtype))
            equal += int(logits.argmax()) == step.token
        return Verification(runtime, largest, self._limit(dtype), equal)

    def _limit(self, dtype: Dtype) -> float:
        return LIMITS[dtype] * max(10.0 if dtype == "fp32" else 0.0, self.largest_logit)

    def difference(self, runtime: str, found: Tensor, expected: Tensor, dtype: Dtype) -> float:
        """The largest difference of two logits. Raises CheckpointError when it is above the limit of `dtype`."""
        limit = self._limit(dtype)
        if found.shape != expected.shape:
            raise CheckpointError(
                f"the exported model is not the model: in {runtime} its logits are {tuple(found.shape)}, not "
                f"{tuple(expected.shape)}"
            )
        difference = float((found - expected).abs().max())
        if not difference <= limit:  # NaN is not
            raise CheckpointError(
                f"the exported model is not the model: in {runtime} its logits differ by {difference:.2g}, and the "
                f"limit is {limit:.2g}"
            )
        return difference


def logits_of(network: GPT2) -> LogitsOf:
    """The logits of a network of ours."""

    @torch.inference_mode()
    def run(tokens: Tensor) -> Tensor:
        logits: Tensor = network(tokens[None])[0].float()  # (T, V)
        return logits

    return run


def require_same_tensors(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Raises CheckpointError unless the tensors read back are those to be written, in name, type, shape and bits."""
    if expected.keys() != found.keys():
        names = ", ".join(sorted(expected.keys() ^ found.keys())[:5])
        raise CheckpointError(f"the exported model is not the model: it lacks, or has in addition, {names}")
    for name, tensor in expected.items():
        if found[name].dtype != tensor.dtype or not torch.equal(found[name], tensor):
            raise CheckpointError(f"the exported model is not the model: {name} is not what was to be written")


def vocabulary_of(definition: Mapping[str, Any]) -> dict[str, int]:
    """Each token of a tokenizer.json with its id, the added ones too."""
    added = {token["content"]: token["id"] for token in definition.get("added_tokens") or []}
    return {**definition["model"]["vocab"], **added}


def require_same_tokenizer(
    runtime: str, tokenizer: Tokenizer, vocabulary: Mapping[str, int], encode: Callable[[str], Sequence[int]]
) -> None:
    """Raises CheckpointError unless each token has the model's id, and two texts become the same ids.

    The texts are PROBE, and the tokens of the whole vocabulary one after another.
    """
    own = vocabulary_of(tokenizer_files.definition(tokenizer))
    if own != vocabulary:
        different = sorted({*own.items()} ^ {*vocabulary.items()}, key=lambda pair: pair[1])
        raise CheckpointError(
            f"the exported tokenizer, read by {runtime}, is not the model's: {len(different)} tokens differ, the first "
            f"has the id {different[0][1]}"
        )
    ordinary = (i for i in range(tokenizer.vocab_size) if i not in tokenizer.special)
    for text in (PROBE, tokenizer.decode(ordinary)):
        if list(encode(text)) != tokenizer.encode(text):
            raise CheckpointError(f"the exported tokenizer, read by {runtime}, splits text in another way")


def require_tokenizer_in(folder: Path, tokenizer: Tokenizer) -> None:
    """Raises CheckpointError unless a folder holds this tokenizer, read by this program."""
    found = tokenizer_files.load(folder)
    vocabulary = vocabulary_of(tokenizer_files.definition(found))
    require_same_tokenizer("gpt2tui", tokenizer, vocabulary, found.encode)
    if found.eot != tokenizer.eot:
        raise CheckpointError(f"the exported tokenizer ends texts with token {found.eot}, not {tokenizer.eot}")
