"""The token store: a tokenized corpus on disk, memory-mapped, prepared once for each corpus and tokenizer.

A store is a folder `tokens/<key>` in the cache:

    train.bin  validation.bin    token ids, uint16 if they fit, else uint32; after each document <|endoftext|>
    train.mask.bin  ...          of prompts and answers: uint8, 1 where a token counts in the loss (`data/examples.py`)
    tokenizer.json ...           the tokenizer
    meta.json                    sizes, SHA-256 and statistics; written last

The key is a hash of the text, the settings that decide the tokens, and the format, so a changed corpus is another
store. A store is built in a temporary folder and renamed when all of it is on the disk.
"""

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from gpt2tui.data import hub, token_files, tokenizer_files, tokenizers, xz_comparison
from gpt2tui.data.corpora import MixedCorpus, hash_content, open_corpus
from gpt2tui.data.corpus import Corpus, digest
from gpt2tui.data.corpus_check import check_tokens, check_vocabulary
from gpt2tui.data.examples import Mask
from gpt2tui.data.joined_tokens import TokenSequence, joined
from gpt2tui.data.store_building import (
    BUILDING,
    KEPT_BYTES,
    MASK_SUFFIX,
    META_FILE,
    POLL_SECONDS,
    StageProgress,
    build_store,
    build_tokenizer,
    kept_bytes,
    read_meta,
    size_notices,
    tokenize,
)
from gpt2tui.data.token_files import TokenFiles
from gpt2tui.data.tokenized_corpus import TokenizedCorpus, mixed
from gpt2tui.data.tokenizer_kinds import Tokenizer
from gpt2tui.errors import CheckpointError, DataError, ResourceError
from gpt2tui.preset import source as sources
from gpt2tui.preset.mix import whole_weights
from gpt2tui.preset.schema import DEFAULT_BPE_VOCAB_SIZE, EXAMPLE_COLUMNS, DataTable, Preset
from gpt2tui.preset.starting_weights import local_folder
from gpt2tui.system.files import sha256
from gpt2tui.system.threads import in_background

FORMAT_VERSION = 1
VERIFIED_BYTES = 64 << 20
"""Files up to this size are compared with their SHA-256 at each opening, larger ones only with their size."""
DOWNLOAD_POLL_SECONDS = 0.5
KEPT_SECONDS = 7 * 24 * 3600
"""How long what is finished of a store stays before another preparation removes it."""
_OF_THE_TEXT = ("bpe", "char")
"""The tokenizers that are made from the training text."""

__all__ = ["StageProgress", "TokenizedCorpus", "find_prepared", "prepare", "tokenize"]


def prepare(
    preset: Preset, cache: Path, tokenizer: Tokenizer | None = None, processes: int = 1
) -> Generator[StageProgress, None, TokenizedCorpus]:
    """Opens the store of a preset's corpus, building it if it does not exist; yields progress, returns the corpus.

    With `tokenizer`, that of the weights to start from, and not the one that the preset names. Several `processes` are
    started anew, so that a script which asks for them must be importable (`if __name__ == "__main__":`).

    Raises DataError for a corpus that cannot be read or is shorter than one window, PresetError for a
    vocabulary too small for the tokenizer, ResourceError when the disk is full. When it fails or is closed, what is
    finished of a large store is kept, and the next preparation continues with it (`build_store`).
    """
    if preset.data.mix:
        return (yield from _prepare_mix(preset, cache, tokenizer, processes))
    return (yield from _prepare_source(preset, cache, tokenizer, processes))


def _prepare_mix(
    preset: Preset, cache: Path, tokenizer: Tokenizer | None, processes: int
) -> Generator[StageProgress, None, TokenizedCorpus]:
    """Prepares each source of a mix with the same tokenizer."""
    notices: list[str] = []
    if tokenizer is None and preset.data.tokenizer in _OF_THE_TEXT:
        tokenizer = yield from _tokenizer_of_mix(preset, cache)
        notices = size_notices(tokenizer, preset.data, preset.model.vocab_size)
    parts = []
    for source in preset.data.sources:
        parts.append((yield from _prepare_source(preset.of_source(source), cache, tokenizer, processes)))
    return _mixed(preset, parts, notices)


def _mixed(preset: Preset, parts: Sequence[TokenizedCorpus], notices: Sequence[str] = ()) -> TokenizedCorpus:
    corpus = mixed(parts, whole_weights([each.weight for each in preset.data.mix]), preset.training.sequence_length)
    wanted, there = preset.training.eval_tokens, len(corpus.validation) - 1
    if there < wanted:
        notices = [
            *notices,
            f"the sources of the mix have validation text for {there:,} tokens in the proportions of the weights, and "
            f"training.eval_tokens is {wanted:,}",
        ]
    return replace(corpus, notices=(*notices, *corpus.notices))


def _tokenizer_of_mix(preset: Preset, cache: Path) -> Generator[StageProgress, None, Tokenizer]:
    """The tokenizer made from the training texts of all sources; it is kept in the cache."""
    corpora = []
    for source in preset.data.sources:
        corpora.append((yield from _open_corpus(preset.data.of_source(source))))
    mix = MixedCorpus(corpora, [each.weight for each in preset.data.mix])
    folder = _folder_of_tokenizer(preset, mix, cache)
    with contextlib.suppress(CheckpointError):
        return tokenizers.load(folder)
    tokenizer = yield from build_tokenizer(mix, preset.data, preset.model.vocab_size)
    building = folder.with_name(f"{folder.name}.{os.getpid()}")
    try:
        building.mkdir(parents=True)
        tokenizers.save(tokenizer, building)
        building.rename(folder)
    except OSError:  # another process was faster, or the cache is full: it is trained again the next time
        shutil.rmtree(building, ignore_errors=True)
    return tokenizer


def _folder_of_tokenizer(preset: Preset, mix: MixedCorpus, cache: Path) -> Path:
    settings = _settings(preset.data, preset.model.vocab_size)
    return cache / "tokenizers" / _key(mix.fingerprint, settings)


def _prepare_source(
    preset: Preset, cache: Path, tokenizer: Tokenizer | None, processes: int
) -> Generator[StageProgress, None, TokenizedCorpus]:
    """Opens or builds the store of a preset with one source; token files need none."""
    table = preset.data
    if token_files.find(table.source):
        token_files.refuse_other_settings(table, tokenizer)
    corpus = yield from _open_corpus(table)
    if isinstance(corpus, TokenFiles):
        measuring = corpus.measure()
        with contextlib.closing(measuring):
            for done, total in measuring:
                yield StageProgress(f"checking {table.source}", done, total)
        return _checked(preset, _of_token_files(corpus))
    for notice in corpus.notices:  # before the preparation, which may take long
        yield StageProgress(notice)
    stores = cache / "tokens"
    settings = {**_settings(table, preset.model.vocab_size, tokenizer), **_example_settings(preset)}
    folder = stores / _key(corpus.fingerprint, settings)
    opened, comparison = None, None
    try:
        stores.mkdir(parents=True, exist_ok=True)
        lock = FileLock(stores / f"{folder.name}.lock", thread_local=False)
        yield from _acquire(lock)
        try:
            if os.path.lexists(folder):
                opened = _open_store(folder, corpus, table)
                if opened is None:
                    yield StageProgress("the prepared tokens are damaged: preparing them again")
                    _remove(folder)
            if opened is None:
                _remove_leftovers(stores, folder)
                window, vocab_size = preset.training.sequence_length, preset.model.vocab_size
                # Begun first: it takes longer than all the rest, in a process of its own.
                comparison = xz_comparison.begin_early(corpus, table, settings, stores)
                yield from build_store(corpus, table, vocab_size, settings, folder, window, tokenizer, processes)
                opened = _open_store(folder, corpus, table)
            if opened is not None:
                opened = yield from xz_comparison.with_figure(opened, folder, comparison)
        finally:
            lock.release()
            if comparison is not None:
                comparison.close()
    except OSError as error:
        # A cache that is shared may be read-only; what has been prepared in it can be used.
        opened = opened or _open_store(folder, corpus, table)
        if opened is None:
            raise _resource_error(error, stores) from error
    assert opened is not None
    return _checked(preset, opened)


def _checked(preset: Preset, opened: TokenizedCorpus) -> TokenizedCorpus:
    """The same corpus. Raises DataError when it is too short, and PresetError when the vocabulary is too small."""
    window = preset.training.sequence_length + 1
    check_tokens(opened.source, len(opened.train), len(opened.validation), window, opened.streaming)
    check_vocabulary(preset, opened.tokenizer.vocab_size)
    return opened


def _of_token_files(corpus: TokenFiles) -> TokenizedCorpus:
    facts = corpus.facts
    return TokenizedCorpus(
        source=corpus.name,
        fingerprint=corpus.fingerprint,
        tokenizer=tokenizers.gpt2(),
        train=corpus.tokens["train"],
        validation=corpus.tokens["validation"],
        train_bytes=facts.train_bytes if facts else 0,
        validation_bytes=facts.validation_bytes if facts else 0,
        train_documents=facts.train_documents if facts else 0,
        validation_documents=facts.validation_documents if facts else 0,
        xz_bits_per_byte=None,
        xz_after_training_bits_per_byte=None,
        notices=(),
        streaming=False,
        corpus=corpus,
    )


def _open_corpus(table: DataTable) -> Generator[StageProgress, None, Corpus]:
    """`open_corpus`, which may list many files or download; yields its progress, and that of hashing large files."""
    yield StageProgress(f"opening {table.source}")
    remote = hub.is_remote(table.source)
    if not remote:
        for done, total in hash_content(table):
            yield StageProgress(f"hashing {table.source}", done, total)
    before = hub.cached_bytes(table.source) if remote else None
    opened = in_background(lambda: open_corpus(table), "corpus")
    while not opened.done():
        with contextlib.suppress(TimeoutError):
            opened.exception(timeout=POLL_SECONDS if before is None else DOWNLOAD_POLL_SECONDS)
        if before is None:
            yield StageProgress(f"opening {table.source}")
        elif downloaded := hub.cached_bytes(table.source) - before:
            yield StageProgress(f"downloading {table.source}", downloaded)
    return opened.result()


def find_prepared(preset: Preset, cache: Path) -> TokenizedCorpus | None:
    """The store of a preset's corpus if it has been prepared; neither prepares nor uses the network."""
    tokenizer = None
    if preset.model.init_from is not None:
        tokenizer = _tokenizer_here(preset.model.init_from)
        if tokenizer is None:
            return None
    if not preset.data.mix:
        return _find_source(preset, cache, tokenizer)
    if tokenizer is None and preset.data.tokenizer in _OF_THE_TEXT:
        try:
            mix = open_corpus(preset.data)
            assert isinstance(mix, MixedCorpus)
            tokenizer = tokenizers.load(_folder_of_tokenizer(preset, mix, cache))
        except (DataError, CheckpointError):
            return None
    parts = [_find_source(preset.of_source(source), cache, tokenizer) for source in preset.data.sources]
    found = [part for part in parts if part is not None]
    return _mixed(preset, found) if len(found) == len(parts) else None


def _find_source(preset: Preset, cache: Path, tokenizer: Tokenizer | None) -> TokenizedCorpus | None:
    table = preset.data
    settings = {**_settings(table, preset.model.vocab_size, tokenizer), **_example_settings(preset)}
    if hub.is_remote(table.source):
        metas = (read_meta(path.parent) for path in sorted((cache / "tokens").glob(f"*/{META_FILE}")))
        fingerprints = [meta["fingerprint"] for meta in metas if meta and meta.get("settings") == settings]
        folders = [cache / "tokens" / _key(fingerprint, settings) for fingerprint in fingerprints]
        return next(filter(None, (_open_store(folder, None, table) for folder in folders)), None)
    try:
        if token_files.find(table.source):
            token_files.refuse_other_settings(table, tokenizer)
        corpus = open_corpus(table)
    except DataError:
        return None
    if isinstance(corpus, TokenFiles):
        return _of_token_files(corpus)
    return _open_store(cache / "tokens" / _key(corpus.fingerprint, settings), corpus, table)


def _tokenizer_here(reference: str) -> Tokenizer | None:
    """The tokenizer of the model to start from, if the model is on this machine."""
    try:
        folder = local_folder(reference)
        return None if folder is None else tokenizers.of_model(folder)
    except CheckpointError:
        return None


def _settings(table: DataTable, vocab_size: int | None, given: Tokenizer | None = None) -> dict[str, Any]:
    """What the tokens depend on, besides the text; `given` is a tokenizer that is not made from the preset."""
    if given is not None and given.name not in ("gpt2", "byte"):  # which are always the same
        return {**_settings(table, None), "tokenizer": tokenizer_files.digest(given), "vocab_size": None}
    return {
        "format": FORMAT_VERSION,
        "source": sources.placed(table.source),
        "tokenizer": table.tokenizer,
        "vocab_size": (vocab_size or DEFAULT_BPE_VOCAB_SIZE) if table.tokenizer == "bpe" else None,
        "validation_fraction": table.validation_fraction,
        "text_column": table.text_column,
        "streaming": table.streaming,
        # Left out where it is the default, so that stores from before this setting are found.
        **({} if table.split_on_end_of_text else {"split_on_end_of_text": False}),
    }


def _example_settings(preset: Preset) -> dict[str, Any]:
    """What the tokens and the mask of prompts and answers depend on besides; nothing for text."""
    template = preset.data.example_template
    if template is None:
        return {}
    columns = {name: getattr(preset.data, name) for name in EXAMPLE_COLUMNS}
    return {
        **columns,
        "template": template.text,
        "loss_on": preset.data.loss_on,
        "window": preset.training.sequence_length,
    }


def _key(fingerprint: str, settings: dict[str, Any]) -> str:
    return digest(fingerprint, json.dumps(settings, sort_keys=True))


def _acquire(lock: FileLock) -> Iterator[StageProgress]:
    while True:
        try:
            lock.acquire(timeout=0)
            return
        except Timeout:
            yield StageProgress("waiting for another process that prepares the same tokens")
            time.sleep(POLL_SECONDS)


def _remove(path: Path) -> None:
    """Removes a folder, or what stands in its place; a link's target stays. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _remove_leftovers(stores: Path, folder: Path) -> None:
    """Removes what preparations that ended too early left of other stores; what is worth keeping after KEPT_SECONDS.

    A store that is being built is locked by its process.
    """
    for leftover in stores.glob(f"*{BUILDING}"):
        name = leftover.name.removesuffix(BUILDING)
        if name == folder.name:
            continue
        with contextlib.suppress(Timeout, FileNotFoundError), FileLock(stores / f"{name}.lock", timeout=0):
            is_old = time.time() - leftover.stat().st_mtime > KEPT_SECONDS
            if is_old or kept_bytes(leftover) < KEPT_BYTES:
                shutil.rmtree(leftover, ignore_errors=True)


def _open_store(folder: Path, corpus: Corpus | None, table: DataTable) -> TokenizedCorpus | None:
    """The store in a folder; None when it does not exist or is damaged."""
    meta = read_meta(folder)
    if meta is None:
        return None
    try:
        splits = meta["splits"]
        files = {
            each.get("file", f"{split}.bin"): each
            for split, description in splits.items()
            for each in description.get("shards", [description])
        }
        files |= {f"{split}{MASK_SUFFIX}": each["mask"] for split, each in splits.items() if table.has_examples}
        if not all(_is_intact(folder / name, description) for name, description in files.items()):
            return None
        train, validation = splits.get("train"), splits["validation"]
        return TokenizedCorpus(
            source=table.source,
            fingerprint=meta["fingerprint"],
            tokenizer=tokenizers.load(folder),
            train=_memory_mapped(folder, "train", train),
            validation=_memory_mapped(folder, "validation", validation),
            train_bytes=train["text_bytes"] if train else 0,
            validation_bytes=validation["text_bytes"],
            train_documents=train["documents"] if train else 0,
            validation_documents=validation["documents"],
            xz_bits_per_byte=meta["xz_bits_per_byte"],
            xz_after_training_bits_per_byte=meta.get(xz_comparison.KEY),
            notices=(*(corpus.notices if corpus else ()), *meta["notices"]),
            streaming=table.streaming,
            corpus=corpus,
            train_mask=_memory_mapped_mask(folder, "train", train),
            validation_mask=_memory_mapped_mask(folder, "validation", validation),
            template=table.example_template,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, CheckpointError):
        return None


def _is_intact(path: Path, description: dict[str, Any]) -> bool:
    if path.stat().st_size != description["bytes"]:
        return False
    return bool(description["bytes"] > VERIFIED_BYTES or sha256(path) == description["sha256"])


def _memory_mapped(folder: Path, split: str, description: dict[str, Any] | None) -> TokenSequence:
    """The tokens of a split, in one file or in shards."""
    if description is None or not description["tokens"]:
        return np.empty(0, dtype=np.uint16)
    files = [each["file"] for each in description.get("shards", ()) if each["tokens"]] or [f"{split}.bin"]
    return joined([np.memmap(folder / name, dtype=description["dtype"], mode="r") for name in files])


def _memory_mapped_mask(folder: Path, split: str, description: dict[str, Any] | None) -> Mask | None:
    if description is None or "mask" not in description:
        return None
    return np.memmap(folder / f"{split}{MASK_SUFFIX}", dtype=np.uint8, mode="r", shape=(description["tokens"],))


def _resource_error(error: OSError, folder: Path) -> ResourceError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return ResourceError(
            f"no space left on the disk for the prepared tokens in {folder}: free some, or set GPT2TUI_CACHE"
        )
    return ResourceError(
        f"cannot prepare the tokens in {folder}: {error.strerror or error}; set GPT2TUI_CACHE elsewhere"
    )
