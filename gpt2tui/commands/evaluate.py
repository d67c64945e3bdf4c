"""`gpt2tui eval`: the held-out loss of any model, over all held-out text of a corpus."""

import argparse
import sys

from gpt2tui.commands.train import print_json
from gpt2tui.errors import UsageError


def evaluate(options: argparse.Namespace) -> int:
    """Measures a checkpoint on the held-out part of its own corpus, or of --source, with its own tokenizer."""
    from gpt2tui import generation, preset_files
    from gpt2tui.commands.sample import tell_passed_over
    from gpt2tui.data.batches import evaluation_batches
    from gpt2tui.data.corpora import open_corpus
    from gpt2tui.data.token_store import tokenize_held_out
    from gpt2tui.preset import DataTable
    from gpt2tui.training.evaluation import held_out_loss

    model = generation.load(options.checkpoint, options.device, precision="fp32")
    tell_passed_over(model.saved)
    preset = preset_files.load_frozen(model.saved.folder / "preset.toml") if model.saved else None
    table = preset.data if preset else None
    if table is None and options.source is None:
        raise UsageError(f"{model.source} does not say what it was trained on; name a corpus with --source")
    if options.source is not None:
        table = (table or DataTable()).model_copy(update={"source": options.source})
    assert table is not None
    tokens = tokenize_held_out(open_corpus(table), model.tokenizer)
    # Positions that training never reached know nothing.
    length = preset.training.sequence_length if preset else model.model.config.n_positions
    print(f"measuring on {len(tokens):,} held-out tokens of {table.source}", file=sys.stderr)
    batches = evaluation_batches(tokens, 8, length, None)
    loss = held_out_loss(model.model, batches, model.tokenizer.token_bytes())
    result = {
        "checkpoint": model.source,
        "source": table.source,
        "tokens": loss.tokens,
        "bytes": loss.bytes,
        "val_loss": loss.val_loss,
        "perplexity": loss.perplexity,
        "bits_per_byte": loss.bits_per_byte,
    }
    if options.json:
        print_json(result)
    else:
        for key, value in result.items():
            print(f"{key:15}{value:,.4f}" if isinstance(value, float) else f"{key:15}{value}")
    return 0
