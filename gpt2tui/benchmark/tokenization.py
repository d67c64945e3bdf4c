"""Tokenization, timed: the preset's kind of tokenizer over the embedded corpus, in one thread and in all."""

import functools
import os
import time
from typing import Any, Literal

import numpy as np

from gpt2tui.data import tokenizers
from gpt2tui.data.corpora import open_corpus
from gpt2tui.preset.schema import DataTable

FEWEST_PASSES = 2

Kind = Literal["gpt2", "bpe", "char", "byte"]


@functools.cache  # presets share tokenizers
def measure(kind: Kind, vocab_size: int | None, seconds: float) -> dict[str, Any]:
    """Megabytes (1e6 bytes of UTF-8) per second: the median of the passes over the text that fit into `seconds`.

    A trained tokenizer is trained on this text first, which is not measured. Raises DataError where Python comes
    without its source.
    """
    texts = list(open_corpus(DataTable()).documents("train"))
    tokenizer = tokenizers.build(DataTable(tokenizer=kind), vocab_size, texts)
    size = sum(len(text.encode()) for text in texts)
    threads = os.cpu_count() or 1
    durations: dict[int, list[float]] = {1: [], threads: []}  # the same key on a single core
    tokenizer.encode_documents(texts[:20], threads)
    started = time.perf_counter()
    tokens = 0
    while len(durations[1]) < FEWEST_PASSES or time.perf_counter() - started < seconds:
        for count, times in durations.items():
            before = time.perf_counter()
            tokens = sum(len(ids) for ids in tokenizer.encode_documents(texts, count))
            times.append(time.perf_counter() - before)
    rates = {count: size / 1e6 / float(np.median(times)) for count, times in durations.items()}
    return {
        "tokenizer": kind,
        "vocab_size": tokenizer.vocab_size,
        "text": DataTable().source,
        "text_bytes": size,
        "tokens": tokens,
        "bytes_per_token": size / tokens,
        "megabytes_per_second": rates[1],
        "threads": threads,
        "megabytes_per_second_parallel": rates[threads],
    }
