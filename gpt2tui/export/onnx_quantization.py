"""The weights of an ONNX graph in 8 bits, and what that costs in perplexity."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gpt2tui.data.corpora import hash_content, open_corpus
from gpt2tui.data.corpus import TextPiece
from gpt2tui.data.token_store import tokenize
from gpt2tui.errors import CheckpointError, Gpt2TuiError
from gpt2tui.evaluation.perplexity import adjacent_windows
from gpt2tui.evaluation.validation import perplexity
from gpt2tui.export.verification import LogitsOf, QuantizationLoss, logits_of
from gpt2tui.generation import TextModel
from gpt2tui.model.sampling import generate
from gpt2tui.preset import files as preset_files

MEASURED_TOKENS = 4096
GENERATED_TOKENS = 512
CHARACTERS_OF_TOKEN = 16
"""More than a token of text has: how much text is read."""

LARGEST_LOSS = 1.05
"""The perplexity of an int8 export, divided by the model's own, is at most this."""


def quantize(path: Path, to: Path, is_large: bool) -> None:
    """Writes a graph with its matrices and embeddings in int8, each column with a scale of its own.

    Activations are quantised while it runs ("dynamic"). The weights use 7 bits, because sums of 8-bit products
    overflow on x86 CPUs without VNNI.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # It advises its own pre-processing, which merges operators and does nothing for a graph that has been laid out.
    logging.getLogger().addFilter(_is_no_advice)
    try:
        quantize_dynamic(
            path,
            to,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            use_external_data_format=is_large,
        )
    finally:
        logging.getLogger().removeFilter(_is_no_advice)


def _is_no_advice(record: logging.LogRecord) -> bool:
    return "pre-processing" not in record.getMessage()


def measure_loss(model: TextModel, quantized: LogitsOf) -> QuantizationLoss:
    """The perplexity of the model and of its quantised graph on the same tokens, in windows of the context.

    Raises CheckpointError when the graph's is higher than LARGEST_LOSS allows.
    """
    tokens, text = _text(model)
    own, other = (_perplexity(logits, tokens, model.context_length) for logits in (logits_of(model.model), quantized))
    if not other <= LARGEST_LOSS * own:
        raise CheckpointError(
            f"the quantised model has a perplexity of {other:.4g} on {text}, the model itself {own:.4g}; the limit is "
            f"{LARGEST_LOSS - 1:.0%} more"
        )
    return QuantizationLoss(text, len(tokens) - 1, own, other)


def _perplexity(logits: LogitsOf, tokens: Tensor, context: int) -> float:
    nats = 0.0
    for window in adjacent_windows(len(tokens), context):
        inputs, targets = tokens[window.begin : window.end - 1], tokens[window.begin + 1 : window.end]
        nats += float(F.cross_entropy(logits(inputs), targets, reduction="sum"))
    return perplexity(nats / (len(tokens) - 1))


def _text(model: TextModel) -> tuple[Tensor, str]:
    """Tokens of the model's validation text, else of text that it generates; and the name of the text."""
    tokens = _validation_tokens(model)
    if len(tokens) > 1:
        return tokens, "the validation text"
    generated = generate(
        model.model,
        torch.tensor([[model.tokenizer.eot]]),
        max_length=GENERATED_TOKENS,
        generator=torch.Generator().manual_seed(0),
        context_length=model.context_length,
    )
    return torch.cat(
        [torch.tensor([model.tokenizer.eot]), *(g.token for g in generated)]
    ), "text that the model generated"


def _validation_tokens(model: TextModel) -> Tensor:
    """The beginning of the validation text of the model's run; empty where that text is not here, or has changed."""
    none = torch.empty(0, dtype=torch.int64)
    if model.saved is None or not model.saved.data_fingerprint:
        return none
    try:
        table = preset_files.load_frozen(model.saved.folder / "preset.toml").data
        for _ in hash_content(table):
            pass
        corpus = open_corpus(table)
        if corpus.fingerprint != model.saved.data_fingerprint:
            return none
        tokens = tokenize(_beginning(corpus.held_out_pieces()), model.tokenizer)
    except (Gpt2TuiError, OSError):
        return none
    return torch.from_numpy(tokens[: MEASURED_TOKENS + 1].astype(np.int64))


def _beginning(pieces: Iterable[TextPiece]) -> Iterator[TextPiece]:
    left = MEASURED_TOKENS * CHARACTERS_OF_TOKEN
    for piece in pieces:
        yield piece
        left -= len(piece.text)
        if left <= 0:
            return
