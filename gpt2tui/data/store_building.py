"""Building a token store: the tokenizer, the tokens of both splits, the description."""

import hashlib
import json
import os
import shutil
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpt2tui.data import tokenizers, xz
from gpt2tui.data.corpus import Corpus, Split, TextPiece
from gpt2tui.data.tokenizer_kinds import Tokenizer, Tokens
from gpt2tui.preset.schema import DEFAULT_BPE_VOCAB_SIZE, DataTable
from gpt2tui.system.files import sync_file, sync_folder
from gpt2tui.system.threads import in_background

META_FILE = "meta.json"
BUILDING = ".building"
BATCH_CHARACTERS = 8 << 20
"""The text in memory at once, whatever the size of the corpus."""
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class StageProgress:
    """How far a stage of preparation is: `done` of `total` in a `unit`; `total` is None where it is not known."""

    stage: str
    done: int = 0
    total: int | None = None
    unit: str = "bytes"


def build_store(
    corpus: Corpus,
    table: DataTable,
    vocab_size: int | None,
    settings: Mapping[str, Any],
    folder: Path,
    tokenizer: Tokenizer | None = None,
) -> Generator[StageProgress, None, None]:
    """Builds the store of a corpus in a folder that does not exist yet; `settings` are kept in its meta.json.

    A `tokenizer` that is given is used as it is.

    When it fails or is closed it removes what it wrote; a killed process leaves a folder whose name ends in `BUILDING`.
    """
    building = folder.with_name(folder.name + BUILDING)
    building.mkdir()
    try:
        is_given = tokenizer is not None
        tokenizer = tokenizer or (yield from _build_tokenizer(corpus, table, vocab_size))
        splits: dict[str, dict[str, Any]] = {}
        sample = xz.TextSample(xz.LIMIT_BYTES)
        pieces = sample.collect(corpus.held_out_pieces())
        splits["validation"] = yield from _write_split(building, "validation", pieces, corpus, tokenizer)
        bits_per_byte = in_background(sample.bits_per_byte, "xz")
        if not table.streaming:
            splits["train"] = yield from _write_split(building, "train", corpus.pieces("train"), corpus, tokenizer)
        yield from _wait(bits_per_byte, "compressing the validation text for comparison")
        tokenizers.save(tokenizer, building)
        meta = {
            "settings": settings,
            "fingerprint": corpus.fingerprint,
            "splits": splits,
            "xz_bits_per_byte": bits_per_byte.result(),
            "notices": [*corpus.reading_notices(), *([] if is_given else _notices(tokenizer, table, vocab_size))],
        }
        (building / META_FILE).write_text(json.dumps(meta, indent=1), encoding="utf-8")
        sync_file(building / META_FILE)
        sync_folder(building)
        building.rename(folder)
        sync_folder(folder.parent)
    finally:
        # After the rename there is nothing to remove.
        shutil.rmtree(building, ignore_errors=True)


def _build_tokenizer(
    corpus: Corpus, table: DataTable, vocab_size: int | None
) -> Generator[StageProgress, None, Tokenizer]:
    read = 0
    closed = threading.Event()

    def texts() -> Iterator[str]:
        nonlocal read
        for piece in corpus.pieces("train"):
            if closed.is_set():
                return
            read += len(piece.text)
            yield piece.text

    future = in_background(lambda: tokenizers.build(table, vocab_size, texts()), "tokenizer")
    total = corpus.size("train") if table.tokenizer == "char" else None
    try:
        while not future.done():
            yield StageProgress(f"building the {table.tokenizer} tokenizer", read, total)
            _sleep_until_done(future)
    finally:
        closed.set()
    return future.result()


def _write_split(
    building: Path, split: Split, pieces: Iterable[TextPiece], corpus: Corpus, tokenizer: Tokenizer
) -> Generator[StageProgress, None, dict[str, Any]]:
    """Writes the tokens of a split and returns its description for meta.json."""
    stage = "tokenizing the validation text" if split == "validation" else "tokenizing the training text"
    total = corpus.size(split)
    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32).newbyteorder("<")
    path = building / f"{split}.bin"
    tokens = text_bytes = documents = 0
    hashed = hashlib.sha256()
    yield StageProgress(stage, 0, total)
    with path.open("wb") as file:
        for batch in _piece_batches(pieces):
            for piece in batch:
                text_bytes += len(piece.text) if piece.text.isascii() else len(piece.text.encode())
                documents += piece.ends_document
            written = np.concatenate(_tokens_with_eot(batch, tokenizer)).astype(dtype)
            file.write(written.data)
            hashed.update(written.data)
            tokens += len(written)
            yield StageProgress(stage, text_bytes, None if total is None else max(total, text_bytes))
    sync_file(path)
    return {
        "tokens": tokens,
        "dtype": dtype.str,
        "bytes": tokens * dtype.itemsize,
        "sha256": hashed.hexdigest(),
        "text_bytes": text_bytes,
        "documents": documents,
    }


def _tokens_with_eot(pieces: Sequence[TextPiece], tokenizer: Tokenizer) -> list[Tokens]:
    """The tokens of the pieces, encoded in parallel, and `<|endoftext|>` after each document."""
    arrays = []
    eot = np.array([tokenizer.eot], dtype=np.uint32)
    encoded = tokenizer.encode_documents([piece.text for piece in pieces], threads=os.cpu_count() or 1)
    for piece, ids in zip(pieces, encoded, strict=True):
        arrays.append(ids)
        if piece.ends_document:
            arrays.append(eot)
    return arrays


def _piece_batches(pieces: Iterable[TextPiece]) -> Iterator[list[TextPiece]]:
    batch: list[TextPiece] = []
    characters = 0
    for piece in pieces:
        batch.append(piece)
        characters += len(piece.text)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def tokenize(pieces: Iterable[TextPiece], tokenizer: Tokenizer) -> Tokens:
    """The tokens of the pieces in memory, `<|endoftext|>` after each document, shape (tokens,)."""
    arrays: list[Tokens] = [np.empty(0, dtype=np.uint32)]
    for batch in _piece_batches(pieces):
        arrays += _tokens_with_eot(batch, tokenizer)
    return np.concatenate(arrays)


def _notices(tokenizer: Tokenizer, table: DataTable, vocab_size: int | None) -> list[str]:
    wanted = vocab_size or DEFAULT_BPE_VOCAB_SIZE
    if table.tokenizer == "bpe" and tokenizer.vocab_size < wanted:
        return [
            f"the corpus is too small for a vocabulary of {wanted:,}: "
            f"the trained tokenizer has {tokenizer.vocab_size:,} tokens"
        ]
    return []


def _wait(future: "Future[Any]", stage: str) -> Iterator[StageProgress]:
    while not future.done():
        yield StageProgress(stage)
        _sleep_until_done(future)


def _sleep_until_done(future: "Future[Any]") -> None:
    try:
        future.exception(timeout=POLL_SECONDS)
    except TimeoutError:
        return
