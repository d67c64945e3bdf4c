"""`gpt2tui prepare`: tokenizes the corpus of a preset ahead of its training, in several processes."""

import argparse
import contextlib
import os
import signal
from types import FrameType
from typing import Any

from gpt2tui.commands.tables import print_json
from gpt2tui.commands.train import load_preset
from gpt2tui.data.token_store import TokenizedCorpus, prepare
from gpt2tui.data.tokenizers import of_model
from gpt2tui.errors import UsageError
from gpt2tui.launch import with_absolute_source
from gpt2tui.system.files import cache_folder
from gpt2tui.system.terminal_text import report_on_stderr, sanitize
from gpt2tui.tracking.console import show_preparation


class _Terminated(BaseException):
    """SIGTERM, which ends the processes that tokenize as Ctrl-C does."""


def prepare_tokens(options: argparse.Namespace) -> int:
    """Prepares the tokens of a preset's corpus and prints how many they are. Returns the exit code."""
    if options.processes is not None and options.processes < 1:
        raise UsageError(f"--processes {options.processes}: at least 1 is needed")
    loaded, tokenizer = load_preset(options), None
    if loaded.preset.model.init_from is not None:
        from gpt2tui.training.starting import resolve  # imports torch

        loaded, start_from = resolve(loaded)
        tokenizer = None if start_from is None else of_model(start_from.description)
    preset = with_absolute_source(loaded.preset)
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        processes = options.processes or os.cpu_count() or 1
        with contextlib.closing(prepare(preset, cache_folder(), tokenizer, processes)) as preparation:
            corpus = show_preparation(preparation)
    except _Terminated:
        report_on_stderr("stopped; the next gpt2tui prepare continues with what is finished")
        return 128 + signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)
    for notice in corpus.notices:
        report_on_stderr(sanitize(notice))
    described = [_described(part) for part in corpus.mix or [corpus]]
    if options.json:
        print_json({"source": corpus.source, "fingerprint": corpus.fingerprint, "sources": described})
        return 0
    for each in described:
        text = f"{each['validation_tokens']:,} validation tokens"
        if not corpus.streaming:
            text = f"{each['train_tokens']:,} training tokens and {text}"
        print(f"{sanitize(each['source'], keep_newlines=False)}: {text} are prepared in {cache_folder() / 'tokens'}")
    return 0


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _Terminated


def _described(corpus: TokenizedCorpus) -> dict[str, Any]:
    return {
        "source": corpus.source,
        "train_tokens": len(corpus.train),
        "validation_tokens": len(corpus.validation),
        "train_bytes": corpus.train_bytes,
        "vocab_size": corpus.tokenizer.vocab_size,
    }
