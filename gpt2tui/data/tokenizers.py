"""The tokenizers of a preset: `gpt2` (embedded), `bpe` (trained on the corpus), `char` and `byte`."""

import functools
from collections.abc import Iterable
from pathlib import Path

from gpt2tui.data.split_patterns import GPT2_PATTERN
from gpt2tui.data.tokenizer_files import load, save
from gpt2tui.data.tokenizer_kinds import (
    EOT_TEXT,
    BytePairTokenizer,
    ByteTokenizer,
    CharTokenizer,
    IncrementalDecoder,
    Tokenizer,
    gpt2_ranks,
)
from gpt2tui.preset.schema import DEFAULT_BPE_VOCAB_SIZE, GPT2_VOCAB_SIZE, DataTable
from gpt2tui.preset.template import template_in

__all__ = ["EOT_TEXT", "IncrementalDecoder", "Tokenizer", "build", "gpt2", "load", "of_model", "save", "template_in"]

_PROBE = "The quick  brown fox,\n\n it's 12345 times in caf\u00e9 \u2026"


def build(table: DataTable, vocab_size: int | None, documents: Iterable[str]) -> Tokenizer:
    """The tokenizer that a `[data]` table asks for.

    `documents` is the training text; `bpe` reads its first 32 MiB of UTF-8, `char` all of it, the others nothing.
    `vocab_size` is the size to train with `bpe` (4,096 when None), and a small corpus can give fewer tokens.
    """
    match table.tokenizer:
        case "gpt2":
            return gpt2()
        case "byte":
            return ByteTokenizer()
        case "char":
            characters: set[str] = set()
            for document in documents:
                characters.update(document)
            return CharTokenizer(characters)
        case "bpe":
            # Imports a library that the other kinds do not need.
            from gpt2tui.data.bpe_training import train_bpe

            return train_bpe(documents, vocab_size or DEFAULT_BPE_VOCAB_SIZE)


def of_model(folder: Path) -> Tokenizer:
    """The tokenizer of a model to train further: `load`, but GPT-2's own, which is faster, where it is the same.

    Raises CheckpointError as `load` does.
    """
    tokenizer = load(folder)
    own = gpt2() if tokenizer.vocab_size == GPT2_VOCAB_SIZE else None
    if own is None or (tokenizer.token_table, tokenizer.eot) != (own.token_table, own.eot):
        return tokenizer
    return own if tokenizer.encode(_PROBE) == own.encode(_PROBE) else tokenizer


@functools.cache
def gpt2() -> Tokenizer:
    """GPT-2's own tokenizer, from the embedded vocabulary."""
    ranks = gpt2_ranks()
    return BytePairTokenizer("gpt2", GPT2_PATTERN, ranks, {EOT_TEXT: GPT2_VOCAB_SIZE - 1})
