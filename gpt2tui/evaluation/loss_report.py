"""The loss of a model over the validation and test text of a corpus, or over any text file."""

import contextlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from gpt2tui.data import xz
from gpt2tui.data.batches import evaluation_batches
from gpt2tui.data.examples import ExampleCorpus, ExampleLayout
from gpt2tui.data.token_store import tokenize
from gpt2tui.errors import UsageError
from gpt2tui.evaluation import perplexity
from gpt2tui.evaluation.evaluated_corpus import open_evaluated_corpus, text_tokens
from gpt2tui.evaluation.report import Heading, Report, Watcher
from gpt2tui.evaluation.request import EvaluationRequest
from gpt2tui.evaluation.validation import validation_loss
from gpt2tui.system.numbers import compact

if TYPE_CHECKING:
    from gpt2tui.data.batches import Batch
    from gpt2tui.data.corpus import Corpus, Split
    from gpt2tui.data.tokenizer_kinds import Tokens
    from gpt2tui.generation import TextModel

WINDOWS_AT_ONCE = 8
OTHER_TEXT = "other text"


def text_report(request: EvaluationRequest, model: "TextModel", watcher: Watcher) -> Report:
    """The loss over one text file, read as one document."""
    assert request.text is not None
    tokens = text_tokens(request.text, model, watcher)
    watcher.say(f"measuring on {len(tokens):,} tokens of {request.text}")
    result = _measure(model, _windows(tokens, request, watcher), request)
    document = {"checkpoint": model.source, "text": request.text, "is_training_corpus": None, **result}
    return _report(document, model, "text", request.text, {"text": result})


def corpus_report(request: EvaluationRequest, model: "TextModel", watcher: Watcher) -> Report:
    """The loss over the validation and test splits of a corpus, compared with xz."""
    source, corpus, splits, is_own = open_evaluated_corpus(request, model, watcher)
    texts = {split: xz.TextSample(xz.LIMIT_BYTES) for split in splits}
    measured = {}
    for split, sample in texts.items():
        batches = _batches(model, corpus, split, sample, request, watcher)
        measured[split] = _measure(model, batches, request) | _beside_xz(sample)
    known = {split: text for split, sample in texts.items() if (text := sample.text()) is not None}
    for split, figure in (_xz_after_training(corpus, known, watcher) if is_own else {}).items():
        measured[split]["xz_after_training_bits_per_byte"] = figure
    for result in measured.values():
        for name in ("xz", "xz_after_training"):
            figure = result[f"{name}_bits_per_byte"]
            result[f"{name}_ratio"] = result["bits_per_byte"] / figure if figure else None
    document = {"checkpoint": model.source, "source": source, "is_training_corpus": is_own, "splits": measured}
    named = {f"{OTHER_TEXT} ({split})" if is_own is False else split: result for split, result in measured.items()}
    return _report(document, model, "source", source, named)


def _report(document: Any, model: "TextModel", kind: str, name: str, measured: dict[str, dict[str, Any]]) -> Report:
    """A column for each text; beside each number what it is divided by and how it was measured."""
    shown: dict[str, tuple[str, Callable[[Any], str]]] = {
        "loss": ("loss, nats per token", lambda value: f"{value:.4f}"),
        "perplexity": ("perplexity per token", compact),
        "bits_per_byte": ("bits per byte", lambda value: f"{value:.4f}"),
        "accuracy": ("next-token accuracy", lambda value: f"{value:.4f}"),
        "xz_bits_per_byte": ("xz, bits per byte", lambda value: f"{value:.4f}"),
        "xz_ratio": ("ratio to xz", lambda value: f"{value:.2f}"),
        "xz_after_training_bits_per_byte": ("xz after the training text, bits per byte", lambda value: f"{value:.4f}"),
        "xz_after_training_ratio": ("ratio to xz after the training text", lambda value: f"{value:.2f}"),
        "tokens": ("tokens predicted", "{:,}".format),
        "bytes": ("their bytes", "{:,}".format),
        "context": ("context, tokens", "{:,}".format),
        "stride": ("stride, tokens", "{:,}".format),
        "precision": ("precision", str),
    }
    results = list(measured.values())
    rows = tuple(
        (label, *("" if result[key] is None else form(result[key]) for result in results))
        for key, (label, form) in shown.items()
        if any(result.get(key) is not None for result in results)
    )
    lines = (f"{'checkpoint':10}  {model.source}", f"{kind:10}  {name}")
    return Report(document, lines, (Heading(""), *(Heading(text, right=True) for text in measured)), rows)


def _xz_after_training(corpus: "Corpus", texts: "dict[Split, bytes]", watcher: Watcher) -> "dict[Split, float]":
    """What each text adds to `xz -9` of the corpus's training text, in bits per byte; empty where that is too long."""
    pieces = watcher.over(corpus.pieces("train"), "")
    training = xz.text_of(pieces, xz.TRAINING_LIMIT_BYTES) if texts else None
    if training is None:
        return {}
    watcher.say("compressing the training text with xz for comparison")
    try:
        with contextlib.closing(xz.XzAfterTraining(training, texts.values())) as work:
            for _ in watcher.over(iter(lambda: work.done(0.2), True), ""):
                pass  # not done yet
            return dict(zip(texts, work.result(), strict=True))
    except xz.CompressionError:
        return {}


def _beside_xz(sample: xz.TextSample) -> dict[str, Any]:
    """The bits per byte of `xz -9` on the text that a sample has collected."""
    return {"xz_bits_per_byte": sample.bits_per_byte(), "xz_after_training_bits_per_byte": None}


def _batches(
    model: "TextModel",
    corpus: "Corpus",
    split: "Split",
    sample: xz.TextSample,
    request: EvaluationRequest,
    watcher: Watcher,
) -> "Iterable[Batch]":
    """The windows of a split of a corpus, whose text `sample` keeps; of prompts and answers the whole examples.

    The bits per byte of the latter are of the answers alone, so they are not compared with xz.
    """
    if not isinstance(corpus, ExampleCorpus):
        pieces = watcher.over(corpus.held_out_pieces(split), "")
        tokens = tokenize(sample.collect(pieces), model.tokenizer)
        watcher.say(f"measuring on {len(tokens):,} tokens, the {split} split of {corpus.name}")
        return _windows(tokens, request, watcher)
    if request.stride is not None:
        raise UsageError("--stride does not go with prompts and answers, each of which is read whole")
    assert request.context is not None
    tokens, mask = ExampleLayout(corpus, split, model.tokenizer, request.context).whole()
    watcher.say(f"measuring on {int(mask.sum()):,} tokens of answers, the {split} split of {corpus.name}")
    batches = evaluation_batches(tokens, WINDOWS_AT_ONCE, request.context, None, mask)
    return watcher.over(batches, f"batches of {WINDOWS_AT_ONCE} windows")


def _windows(tokens: "Tokens", request: EvaluationRequest, watcher: Watcher) -> "Iterable[Batch]":
    context, stride = request.context, request.stride
    assert context is not None
    if stride is None:
        windows = perplexity.adjacent_windows(len(tokens), context)
        count = -(-(len(tokens) - 1) // context)
    else:
        windows = perplexity.strided_windows(len(tokens), context, stride)
        count = 1 + max(0, -(-(len(tokens) - context) // stride))
    return perplexity.window_batches(tokens, watcher.over(windows, "windows", count), WINDOWS_AT_ONCE)


def _measure(model: "TextModel", batches: "Iterable[Batch]", request: EvaluationRequest) -> dict[str, Any]:
    """The loss over windows, and how it was measured."""
    context, stride = request.context, request.stride
    token_bytes = model.tokenizer.token_bytes()
    loss = validation_loss(model.model, batches, token_bytes, request.precision, with_accuracy=True)
    return {
        "tokens": loss.tokens,
        "bytes": loss.bytes,
        "loss": loss.val_loss,
        "perplexity": loss.perplexity,
        "perplexity_per": "token",
        "bits_per_byte": loss.bits_per_byte,
        "accuracy": loss.accuracy,
        "context": context,
        "stride": context if stride is None else stride,
        "windows": "adjacent" if stride is None else "strided",
        "precision": request.precision,
    }
