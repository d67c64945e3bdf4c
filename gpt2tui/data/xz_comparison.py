"""The figure of `xz -9` after the training text in a token store: computed once, shared, kept in its meta.json."""

import contextlib
import json
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpt2tui.data import xz
from gpt2tui.data.corpus import Corpus
from gpt2tui.data.examples import ExampleCorpus
from gpt2tui.data.store_building import META_FILE, POLL_SECONDS, StageProgress, read_meta
from gpt2tui.data.tokenized_corpus import TokenizedCorpus
from gpt2tui.errors import DataError
from gpt2tui.preset.schema import DataTable
from gpt2tui.system.files import replace_text

KEY = "xz_after_training_bits_per_byte"


def with_figure(
    opened: TokenizedCorpus, folder: Path, begun: xz.XzAfterTraining | None
) -> Generator[StageProgress, None, TokenizedCorpus]:
    """The corpus with the figure of xz after the training text, which is computed once and kept in meta.json.

    Stores of the same text share it. Without memory, disk space or text to read, the figure stays unknown.
    """
    meta = read_meta(folder)
    if meta is None or KEY in meta:
        return opened
    try:
        figure = _of_same_text(meta, folder.parent)
        if figure is None and not opened.streaming:
            figure = yield from _waited_for(opened, begun)
    except (DataError, MemoryError, xz.CompressionError):
        return opened
    with contextlib.suppress(OSError):  # the disk is full: it is computed again the next time
        replace_text(folder / META_FILE, json.dumps({**meta, KEY: figure}, indent=1))
    return replace(opened, xz_after_training_bits_per_byte=figure)


def begin_early(corpus: Corpus, table: DataTable, settings: dict[str, Any], stores: Path) -> xz.XzAfterTraining | None:
    """The work for the figure, where the text is known to be short and has none yet."""
    is_short = 0 < (corpus.size("train") or 0) <= xz.TRAINING_LIMIT_BYTES
    if not is_short or table.streaming or isinstance(corpus, ExampleCorpus):
        return None
    if _of_same_text({"fingerprint": corpus.fingerprint, "settings": settings}, stores) is not None:
        return None
    with contextlib.suppress(DataError, MemoryError, xz.CompressionError):  # preparing the tokens meets these too
        return _begin(corpus)
    return None


def _begin(corpus: Corpus) -> xz.XzAfterTraining | None:
    """None where a text is too long, or empty. Raises DataError and CompressionError."""
    training = xz.text_of(corpus.pieces("train"), xz.TRAINING_LIMIT_BYTES)
    validation = None if training is None else xz.text_of(corpus.held_out_pieces(), xz.LIMIT_BYTES)
    return None if training is None or validation is None else xz.XzAfterTraining(training, [validation])


def _of_same_text(meta: dict[str, Any], stores: Path) -> float | None:
    """The figure in another store of the same text, with whatever tokenizer."""
    text = _text_of(meta)
    for other in filter(None, map(read_meta, (path.parent for path in sorted(stores.glob(f"*/{META_FILE}"))))):
        figure = other.get(KEY)
        if isinstance(figure, float) and _text_of(other) == text:
            return figure
    return None


def _text_of(meta: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What the text of a store's splits depends on."""
    settings = meta.get("settings")
    known = settings if isinstance(settings, dict) else {}
    return meta.get("fingerprint"), {k: v for k, v in known.items() if k not in ("tokenizer", "vocab_size")}


def _waited_for(
    opened: TokenizedCorpus, begun: xz.XzAfterTraining | None
) -> Generator[StageProgress, None, float | None]:
    """Waits for the figure; None where a text is too long. Raises DataError and CompressionError."""
    assert opened.corpus is not None
    if opened.train_bytes > xz.TRAINING_LIMIT_BYTES or opened.xz_bits_per_byte is None:
        return None
    work = begun or _begin(opened.corpus)
    if work is None:
        return None
    with contextlib.closing(work):
        while not work.done(POLL_SECONDS):
            yield StageProgress("compressing the training text for comparison", work.done_bytes, work.total_bytes)
        return work.result()[0]
