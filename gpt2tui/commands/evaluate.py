"""`gpt2tui eval`: the loss of a model over its validation and test text, over any text, and its scores in tasks."""

import argparse
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from gpt2tui.commands.evaluated_corpus import open_evaluated_corpus, text_tokens
from gpt2tui.commands.tables import Column, print_json, print_table
from gpt2tui.errors import DataError, UsageError
from gpt2tui.system.terminal_text import print_on_stderr, report_on_stderr, sanitize

if TYPE_CHECKING:
    from gpt2tui.data.batches import Batch
    from gpt2tui.data.corpus import Corpus, Split
    from gpt2tui.data.tokenizer_kinds import Tokens
    from gpt2tui.data.xz import TextSample
    from gpt2tui.generation import TextModel

WINDOWS_AT_ONCE = 8
OTHER_TEXT = "other text"


def evaluate(options: argparse.Namespace) -> int:
    """Measures a checkpoint on the validation and test splits of its own corpus or of --source, or on --text."""
    try:
        return _evaluate(options)
    except DataError as error:  # which names the setting of a preset
        raise DataError(str(error).replace("data.text_column", "--text-column")) from error


def _evaluate(options: argparse.Namespace) -> int:
    from gpt2tui.commands.sample import warn_of_skipped
    from gpt2tui.run.model_lookup import check_reference

    check_reference(options.checkpoint)  # before torch is imported
    _check(options)
    from gpt2tui import generation
    from gpt2tui.commands.evaluate_tasks import evaluate_continuation, evaluate_known_answers, evaluate_tasks

    if options.known_answers:
        return evaluate_known_answers(options)
    model = generation.load(options.checkpoint, options.device, precision="fp32")
    warn_of_skipped(model.saved)
    _check_windows(options, model)
    if options.tasks == ["continuation"]:
        return evaluate_continuation(options, model)
    if options.tasks:
        return evaluate_tasks(options, model)
    if options.text is not None:
        return _evaluate_text(options, model)
    return _evaluate_corpus(options, model)


def _check(options: argparse.Namespace) -> None:
    """Raises UsageError for options that exclude each other, before a large model is loaded."""
    from gpt2tui.commands.evaluate_tasks import chosen_tasks

    chosen_tasks(options.tasks)
    others: tuple[str, ...]
    of_windows = ("context", "stride")
    of_corpus = ("source", "split", "text_column")
    of_completions = ("prompt_column", "reference_column", "max_length")
    if options.known_answers:
        what, others = "--known-answers", (*of_windows, *of_corpus, *of_completions, "text", "tasks", "limit")
    elif options.tasks == ["continuation"]:
        what, others = "the task continuation", ("stride", "data", "prompt_column", "reference_column")
    elif "continuation" in options.tasks:
        raise UsageError("the task continuation measures a text, the others their data; measure it alone")
    elif options.tasks:
        what, others = f"the task {options.tasks[0]}", (*of_windows, *of_corpus, "text")
        others += () if options.tasks == ["completions"] else of_completions
    else:
        if options.data is not None:
            raise UsageError(
                "--data is the data of a task; name one, or use --source for a corpus and --text for a file"
            )
        what, others = "the loss", (*of_completions, "limit")
    excluded = [(what, name) for name in others]
    if options.text is not None:
        excluded += [("--text", name) for name in of_corpus]
    for what, name in excluded:
        if getattr(options, name) not in (None, []):
            other = "a task" if name == "tasks" else f"--{name.replace('_', '-')}"
            raise UsageError(f"{what} does not go with {other}")
    if options.limit is not None and options.limit < 1:
        raise UsageError(f"--limit {options.limit} measures nothing; it is 1 at least")
    if options.max_length is not None and options.max_length < 1:
        raise UsageError(f"--max-length {options.max_length} writes nothing; it is 1 at least")


def _check_windows(options: argparse.Namespace, model: "TextModel") -> None:
    """Raises UsageError for a --context or --stride that the model or the other one does not allow."""
    longest = model.model.config.n_positions
    context = model.context_length if options.context is None else options.context
    if not 2 <= context <= longest:
        raise UsageError(f"--context {context} is not between 2 and {longest:,}, the positions of this model")
    if context > model.context_length:
        report_on_stderr(
            f"{model.source} was trained with sequences of {model.context_length:,} tokens: what it predicts from more "
            "is not what it learned"
        )
    if options.stride is not None and not 1 <= options.stride <= context:
        raise UsageError(f"--stride {options.stride} is not between 1 and the context, {context:,} tokens")
    options.context = context


def _evaluate_text(options: argparse.Namespace, model: "TextModel") -> int:
    """The loss over one text file, read as one document."""
    tokens = text_tokens(options.text, model)
    print_on_stderr(f"measuring on {len(tokens):,} tokens of {options.text}")
    result = _measure(model, _windows(tokens, options), options)
    if options.json:
        print_json({"checkpoint": model.source, "text": options.text, "is_training_corpus": None, **result})
        return 0
    _print(model, "text", options.text, {"text": result})
    return 0


def _evaluate_corpus(options: argparse.Namespace, model: "TextModel") -> int:
    """The loss over the validation and test splits of a corpus, compared with xz."""
    from gpt2tui.data import xz

    source, corpus, splits, is_own = open_evaluated_corpus(options, model)
    texts = {split: xz.TextSample(xz.LIMIT_BYTES) for split in splits}
    measured = {}
    for split, sample in texts.items():
        batches = _batches(model, corpus, split, sample, options)
        measured[split] = _measure(model, batches, options) | _beside_xz(sample)
    known = {split: text for split, sample in texts.items() if (text := sample.text()) is not None}
    for split, figure in (_xz_after_training(corpus, known) if is_own else {}).items():
        measured[split]["xz_after_training_bits_per_byte"] = figure
    for result in measured.values():
        for name in ("xz", "xz_after_training"):
            figure = result[f"{name}_bits_per_byte"]
            result[f"{name}_ratio"] = result["bits_per_byte"] / figure if figure else None
    if options.json:
        print_json({"checkpoint": model.source, "source": source, "is_training_corpus": is_own, "splits": measured})
        return 0
    _print(
        model,
        "source",
        source,
        {f"{OTHER_TEXT} ({split})" if is_own is False else split: result for split, result in measured.items()},
    )
    return 0


def _print(model: "TextModel", kind: str, name: str, measured: dict[str, dict[str, Any]]) -> None:
    """A column for each text; beside each number what it is divided by and how it was measured."""
    from gpt2tui.system.numbers import compact

    print(f"{'checkpoint':10}  {sanitize(model.source)}\n{kind:10}  {sanitize(name)}")
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
    rows = [
        (label, *("" if result[key] is None else form(result[key]) for result in results))
        for key, (label, form) in shown.items()
        if any(result.get(key) is not None for result in results)
    ]
    print_table([Column(""), *(Column(name, right=True) for name in measured)], rows)


def _xz_after_training(corpus: "Corpus", texts: "dict[Split, bytes]") -> "dict[Split, float]":
    """What each text adds to `xz -9` of the corpus's training text, in bits per byte; empty where that is too long."""
    from gpt2tui.data import xz

    training = xz.text_of(corpus.pieces("train"), xz.TRAINING_LIMIT_BYTES) if texts else None
    if training is None:
        return {}
    print_on_stderr("compressing the training text with xz for comparison")
    work = xz.XzAfterTraining(training, texts.values())
    try:
        return dict(zip(texts, work.result(), strict=True))
    finally:
        work.close()


def _beside_xz(sample: "TextSample") -> dict[str, Any]:
    """The bits per byte of `xz -9` on the text that a sample has collected."""
    return {"xz_bits_per_byte": sample.bits_per_byte(), "xz_after_training_bits_per_byte": None}


def _batches(
    model: "TextModel", corpus: "Corpus", split: "Split", sample: "TextSample", options: argparse.Namespace
) -> "Iterable[Batch]":
    """The windows of a split of a corpus, whose text `sample` keeps; of prompts and answers the whole examples.

    The bits per byte of the latter are of the answers alone, so they are not compared with xz.
    """
    from gpt2tui.data.batches import evaluation_batches
    from gpt2tui.data.examples import ExampleCorpus, ExampleLayout
    from gpt2tui.data.token_store import tokenize

    if not isinstance(corpus, ExampleCorpus):
        tokens = tokenize(sample.collect(corpus.held_out_pieces(split)), model.tokenizer)
        print_on_stderr(f"measuring on {len(tokens):,} tokens, the {split} split of {corpus.name}")
        return _windows(tokens, options)
    if options.stride is not None:
        raise UsageError("--stride does not go with prompts and answers, each of which is read whole")
    tokens, mask = ExampleLayout(corpus, split, model.tokenizer, options.context).whole()
    print_on_stderr(f"measuring on {int(mask.sum()):,} tokens of answers, the {split} split of {corpus.name}")
    return evaluation_batches(tokens, WINDOWS_AT_ONCE, options.context, None, mask)


def _windows(tokens: "Tokens", options: argparse.Namespace) -> "Iterable[Batch]":
    from gpt2tui.evaluation import perplexity

    if options.stride is None:
        windows = perplexity.adjacent_windows(len(tokens), options.context)
    else:
        windows = perplexity.strided_windows(len(tokens), options.context, options.stride)
    return perplexity.window_batches(tokens, windows, WINDOWS_AT_ONCE)


def _measure(model: "TextModel", batches: "Iterable[Batch]", options: argparse.Namespace) -> dict[str, Any]:
    """The loss over windows, and how it was measured."""
    from gpt2tui.evaluation.validation import validation_loss

    context, stride = options.context, options.stride
    token_bytes = model.tokenizer.token_bytes()
    loss = validation_loss(model.model, batches, token_bytes, options.precision, with_accuracy=True)
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
        "precision": options.precision,
    }
