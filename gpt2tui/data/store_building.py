"""Building a token store: the tokenizer, the tokens of both splits, the description."""

import contextlib
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

from gpt2tui.data import shards, token_writing, tokenizers, xz
from gpt2tui.data.corpus import Corpus, Split, TextPiece
from gpt2tui.data.examples import ExampleCorpus, ExampleLayout, layout_notices
from gpt2tui.data.token_writing import HashedFile, dtype_of, piece_batches, text_bytes_of, tokens_with_eot
from gpt2tui.data.tokenizer_kinds import Tokenizer, Tokens
from gpt2tui.errors import CheckpointError
from gpt2tui.preset.schema import DEFAULT_BPE_VOCAB_SIZE, DataTable
from gpt2tui.system.files import read_json, replace_text, sync_file, sync_folder
from gpt2tui.system.threads import in_background
from gpt2tui.version import __version__

META_FILE = "meta.json"
BUILDING = ".building"
MASK_SUFFIX = ".mask.bin"
_SPLITS: tuple[Split, ...] = ("validation", "train")
PLAN_FILE = "plan.json"
KEPT_BYTES = 16 << 20
"""Tokens on the disk that are worth keeping when a preparation ends before its end."""
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
    window: int,
    tokenizer: Tokenizer | None = None,
    processes: int = 1,
) -> Generator[StageProgress, None, None]:
    """Builds the store of a corpus in a folder that does not exist yet; `settings` are kept in its meta.json.

    Prompts and answers are laid into windows of `window` tokens. A `tokenizer` that is given is used as it is. The
    training text is tokenized by several `processes`, where it has several parts.

    It is built in a folder whose name ends in `BUILDING`. When it fails or is closed, that is removed, unless training
    text of KEPT_BYTES or more is finished: the next preparation of the same store then continues with it, as it does
    after a kill.
    """
    building = folder.with_name(folder.name + BUILDING)
    _begin(building)
    try:
        is_given = tokenizer is not None
        tokenizer = tokenizer or _tokenizer_in(building)
        if tokenizer is None:
            tokenizer = yield from build_tokenizer(corpus, table, vocab_size)
            tokenizers.save(tokenizer, building)
        if isinstance(corpus, ExampleCorpus):
            described = yield from _write_all_examples(building, corpus, tokenizer, window)
        else:
            described = yield from _write_text(building, corpus, table, tokenizer, processes)
        if is_given:
            tokenizers.save(tokenizer, building)
        meta = {"settings": settings, "fingerprint": corpus.fingerprint, **described}
        notices = [] if is_given else size_notices(tokenizer, table, vocab_size)
        meta["notices"] = [*corpus.reading_notices(), *meta["notices"], *notices]
        (building / META_FILE).write_text(json.dumps(meta, indent=1), encoding="utf-8")
        sync_file(building / META_FILE)
        for path in (building / PLAN_FILE, *building.glob("train-*.json")):
            path.unlink()
        sync_folder(building)
        building.rename(folder)
        sync_folder(folder.parent)
    finally:
        # After the rename there is nothing to remove.
        if kept_bytes(building) < KEPT_BYTES:
            shutil.rmtree(building, ignore_errors=True)


def _begin(building: Path) -> None:
    """Makes the folder of an unfinished store, or keeps what this version of the program has finished in it."""
    plan = building / PLAN_FILE
    try:
        if read_json(plan)["version"] == __version__:
            return
    except (CheckpointError, KeyError):
        pass
    if building.is_dir() and not building.is_symlink():
        shutil.rmtree(building)
    else:
        building.unlink(missing_ok=True)
    building.mkdir()
    replace_text(plan, json.dumps({"version": __version__}))


def kept_bytes(building: Path) -> int:
    """The bytes of the finished shards in the folder of an unfinished store."""
    shards = building.glob("train-*.bin")
    return sum(path.stat().st_size for path in shards if path.with_suffix(".json").exists())


def read_meta(folder: Path) -> dict[str, Any] | None:
    """The description of a store; None where there is none that can be read."""
    try:
        return read_json(folder / META_FILE)
    except CheckpointError:
        return None


def _tokenizer_in(building: Path) -> Tokenizer | None:
    try:
        return tokenizers.load(building)
    except CheckpointError:
        return None


def build_tokenizer(
    corpus: Corpus, table: DataTable, vocab_size: int | None
) -> Generator[StageProgress, None, Tokenizer]:
    """The tokenizer that a `[data]` table asks for, built in a thread."""
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


def _write_text(
    building: Path, corpus: Corpus, table: DataTable, tokenizer: Tokenizer, processes: int
) -> Generator[StageProgress, None, dict[str, Any]]:
    """Writes the tokens of both splits, with streaming of the validation split; returns their part of meta.json."""
    splits: dict[str, dict[str, Any]] = {}
    sample = xz.TextSample(xz.LIMIT_BYTES)
    pieces = sample.collect(corpus.held_out_pieces())
    splits["validation"] = yield from _write_split(building, "validation", pieces, corpus, tokenizer)
    bits_per_byte = in_background(sample.bits_per_byte, "xz")
    if not table.streaming:
        splits["train"] = yield from _write_training_text(building, corpus, tokenizer, processes)
    yield from _wait(bits_per_byte, "compressing the validation text for comparison")
    return {"splits": splits, "xz_bits_per_byte": bits_per_byte.result(), "notices": []}


def _write_training_text(
    building: Path, corpus: Corpus, tokenizer: Tokenizer, processes: int
) -> Generator[StageProgress, None, dict[str, Any]]:
    """Writes the shards of the training text that are not there yet; returns their description for meta.json.

    A single one becomes train.bin.
    """
    stage, total = _stage("train"), corpus.size("train")
    yield StageProgress(stage, 0, total)
    parts = corpus.parts()
    if processes > 1 and len(parts) > 1:
        work = shards.write_in_processes(parts, building, tokenizer, processes)
    else:
        work = _write_parts(parts, building, tokenizer)
    with contextlib.closing(work):
        for done in work:
            yield StageProgress(stage, done, None if total is None else max(total, done))
    finished = [shard for number in range(len(parts)) for shard in shards.finished_shards(building, number)]
    for shard in finished:
        if shard["reading"] is not None:
            corpus.add_reading(shard["reading"])
    described = {
        "tokens": sum(shard["tokens"] for shard in finished),
        "dtype": dtype_of(tokenizer).str,
        "text_bytes": sum(shard["text_bytes"] for shard in finished),
        "documents": sum(shard["documents"] for shard in finished),
    }
    if len(finished) == 1:
        (building / finished[0]["file"]).rename(building / "train.bin")
        return {**described, **{name: finished[0][name] for name in ("bytes", "sha256")}}
    kept = ("file", "tokens", "bytes", "sha256")
    return {**described, "shards": [{name: shard[name] for name in kept} for shard in finished]}


def _write_parts(parts: Sequence[Corpus], building: Path, tokenizer: Tokenizer) -> Generator[int, None, None]:
    before = 0
    for number, part in enumerate(parts):
        done = 0
        with contextlib.closing(shards.write_part(part, number, building, tokenizer, os.cpu_count() or 1)) as work:
            for done in work:
                yield before + done
        before += done


def _write_all_examples(
    building: Path, corpus: ExampleCorpus, tokenizer: Tokenizer, window: int
) -> Generator[StageProgress, None, dict[str, Any]]:
    """Writes the windows of both splits of prompts and answers; returns their part of meta.json.

    Bits per byte are then of the answers alone, so that those of xz would be no comparison.
    """
    layouts = [ExampleLayout(corpus, split, tokenizer, window) for split in _SPLITS]
    splits: dict[str, dict[str, Any]] = {}
    for layout in layouts:
        splits[layout.split] = yield from _write_examples(building, layout)
    return {"splits": splits, "xz_bits_per_byte": None, "notices": layout_notices(layouts)}


def _write_split(
    building: Path, split: Split, pieces: Iterable[TextPiece], corpus: Corpus, tokenizer: Tokenizer
) -> Generator[StageProgress, None, dict[str, Any]]:
    """Writes the tokens of a split and returns its description for meta.json."""
    stage, total, dtype = _stage(split), corpus.size(split), dtype_of(tokenizer)
    tokens = text_bytes = documents = 0
    yield StageProgress(stage, 0, total)
    with contextlib.closing(HashedFile(building / f"{split}.bin")) as file:
        for batch in piece_batches(pieces):
            for piece in batch:
                text_bytes += text_bytes_of(piece)
                documents += piece.ends_document
            written = np.concatenate(tokens_with_eot(batch, tokenizer, os.cpu_count() or 1)).astype(dtype)
            file.write(written)
            tokens += len(written)
            yield StageProgress(stage, text_bytes, None if total is None else max(total, text_bytes))
        return {
            "tokens": tokens,
            "dtype": dtype.str,
            **file.finish(),
            "text_bytes": text_bytes,
            "documents": documents,
        }


def _write_examples(building: Path, layout: ExampleLayout) -> Generator[StageProgress, None, dict[str, Any]]:
    """Writes the tokens of a split of prompts and answers, and their mask, and returns their description."""
    stage, total, dtype = _stage(layout.split), layout.corpus.size(layout.split), dtype_of(layout.tokenizer)
    counted = shown = 0
    yield StageProgress(stage, 0, total)
    with (
        contextlib.closing(HashedFile(building / f"{layout.split}.bin")) as file,
        contextlib.closing(HashedFile(building / f"{layout.split}{MASK_SUFFIX}")) as mask_file,
    ):
        for tokens, mask in layout.windows():
            file.write(tokens.astype(dtype))
            mask_file.write(mask)
            counted += int(mask.sum())
            if layout.text_bytes - shown >= token_writing.BATCH_CHARACTERS:
                shown = layout.text_bytes
                yield StageProgress(stage, shown, None if total is None else max(total, shown))
        return {
            "tokens": file.bytes // dtype.itemsize,
            "dtype": dtype.str,
            **file.finish(),
            "text_bytes": layout.text_bytes,
            "documents": layout.examples - layout.left_out,
            "counted_tokens": counted,
            "mask": mask_file.finish(),
        }


def _stage(split: Split) -> str:
    return "tokenizing the validation text" if split == "validation" else "tokenizing the training text"


def tokenize(pieces: Iterable[TextPiece], tokenizer: Tokenizer) -> Tokens:
    """The tokens of the pieces in memory, `<|endoftext|>` after each document, shape (tokens,)."""
    arrays: list[Tokens] = [np.empty(0, dtype=np.uint32)]
    for batch in piece_batches(pieces):
        arrays += tokens_with_eot(batch, tokenizer, os.cpu_count() or 1)
    return np.concatenate(arrays)


def size_notices(tokenizer: Tokenizer, table: DataTable, vocab_size: int | None) -> list[str]:
    """The notice that a corpus is too small for the vocabulary that was asked for, where it is."""
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
