"""`gpt2tui eval`: the loss of a model over all of a corpus's validation and test text."""

import argparse
from typing import TYPE_CHECKING, Any

from gpt2tui.commands.tables import print_json
from gpt2tui.errors import DataError, UsageError
from gpt2tui.system.terminal_text import print_on_stderr, report_on_stderr, sanitize

if TYPE_CHECKING:
    from gpt2tui.data.corpus import Corpus, Split
    from gpt2tui.data.xz import TextSample
    from gpt2tui.generation import TextModel


def evaluate(options: argparse.Namespace) -> int:
    """Measures a checkpoint on the validation and test splits of its own corpus, or of --source."""
    try:
        return _evaluate(options)
    except DataError as error:  # which names the setting of a preset
        raise DataError(str(error).replace("data.text_column", "--text-column")) from error


def _evaluate(options: argparse.Namespace) -> int:
    from gpt2tui import generation
    from gpt2tui.commands.sample import warn_of_skipped
    from gpt2tui.data import xz
    from gpt2tui.data.corpora import hash_content, open_corpus
    from gpt2tui.preset import files as preset_files
    from gpt2tui.preset.schema import DataTable
    from gpt2tui.system.numbers import compact, xz_comparison

    model = generation.load(options.checkpoint, options.device, precision="fp32")
    warn_of_skipped(model.saved)
    preset = preset_files.load_frozen(model.saved.folder / "preset.toml") if model.saved else None
    is_imported = model.saved is not None and model.saved.data_fingerprint == ""
    table = preset.data if preset and not is_imported else None
    if table is None and options.source is None:
        raise UsageError(f"{model.source} does not record what it was trained on; name a corpus with --source")
    if options.source is not None:
        table = (table or DataTable()).model_copy(update={"source": options.source})
    if table is not None and options.text_column is not None:
        table = table.model_copy(update={"text_column": options.text_column})
    assert table is not None
    for done, _ in hash_content(table):
        if not done:
            print_on_stderr(f"hashing {table.source}")
    corpus = open_corpus(table)
    if options.split == "test" and not corpus.has_test:
        raise DataError(f"{table.source} has no test split; measure with --split validation")
    splits: list[Split] = ["validation", "test"] if corpus.has_test else ["validation"]
    if options.split is not None:
        splits = [options.split]
    is_own = _is_own_corpus(model, corpus)
    if is_own is False:
        report_on_stderr(
            f"{table.source} is not the text that {model.source} was trained with (the fingerprints differ): these are "
            "not its validation and test losses, and it may have been trained on parts of this text"
        )
    texts = {split: xz.TextSample(xz.LIMIT_BYTES) for split in splits}
    measured = {split: _measure(model, corpus, split, texts[split]) for split in splits}
    known = {split: text for split, sample in texts.items() if (text := sample.text()) is not None}
    for split, figure in (_xz_after_training(corpus, known) if is_own else {}).items():
        result = measured[split]
        result["xz_after_training_bits_per_byte"] = figure
        result["xz_after_training_ratio"] = result["bits_per_byte"] / figure
    if options.json:
        print_json(
            {"checkpoint": model.source, "source": table.source, "is_training_corpus": is_own, "splits": measured}
        )
        return 0
    print(f"checkpoint  {sanitize(model.source)}\nsource      {sanitize(table.source)}")
    for split, result in measured.items():
        figures = result["xz_bits_per_byte"], result["xz_after_training_bits_per_byte"]
        beside = xz_comparison(result["bits_per_byte"], *figures)
        print(
            f"{f'other text ({split})' if is_own is False else split:11} "
            f"loss {result['loss']:.4f}  perplexity {compact(result['perplexity'])}  "
            f"{result['bits_per_byte']:.4f} bits/byte{beside and f'  {beside}'}  "
            f"({result['tokens']:,} tokens, {result['bytes']:,} bytes)"
        )
    return 0


def _is_own_corpus(model: "TextModel", corpus: "Corpus") -> bool | None:
    """Whether the corpus is the one that the model was trained with; None where the model does not record it."""
    from gpt2tui.run import checkpoint

    if model.saved is None:
        return None
    fingerprint = checkpoint.read_json(model.saved.folder / "trainer.json").get("data_fingerprint")
    return None if not fingerprint else bool(fingerprint == corpus.fingerprint)


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


def _measure(model: "TextModel", corpus: "Corpus", split: "Split", sample: "TextSample") -> dict[str, Any]:
    """The loss over all tokens of a split, with the model's tokenizer, and the bits per byte of `xz -9` on its text.

    `sample` keeps the text.
    """
    from gpt2tui.data.batches import evaluation_batches
    from gpt2tui.data.token_store import tokenize
    from gpt2tui.evaluation.validation import validation_loss

    tokens = tokenize(sample.collect(corpus.held_out_pieces(split)), model.tokenizer)
    print_on_stderr(f"measuring on {len(tokens):,} tokens, the {split} split of {corpus.name}")
    batches = evaluation_batches(tokens, 8, model.context_length, None)
    loss = validation_loss(model.model, batches, model.tokenizer.token_bytes())
    xz_bits = sample.bits_per_byte()
    return {
        "tokens": loss.tokens,
        "bytes": loss.bytes,
        "loss": loss.val_loss,
        "perplexity": loss.perplexity,
        "bits_per_byte": loss.bits_per_byte,
        "xz_bits_per_byte": xz_bits,
        "xz_ratio": loss.bits_per_byte / xz_bits if xz_bits else None,
        "xz_after_training_bits_per_byte": None,
        "xz_after_training_ratio": None,
    }
