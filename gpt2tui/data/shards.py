"""The training tokens of a store in shards: files of a bounded size, written by several processes at once.

Each part of the text (`Corpus.parts`) becomes the shards train-<part>-<number>.bin. Beside a finished shard stands its
description, a .json, so that a preparation that was killed continues after its last finished shard.
"""

import json
import multiprocessing
import os
import signal
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from gpt2tui.data.corpus import Corpus, Position
from gpt2tui.data.token_writing import HashedFile, dtype_of, piece_batches, text_bytes_of, tokens_with_eot
from gpt2tui.data.tokenizer_kinds import Tokenizer
from gpt2tui.errors import CheckpointError, ResourceError
from gpt2tui.system.files import read_json, replace_text

SHARD_TOKENS = 1 << 27
"""A shard ends with the batch of text in which it gets this many tokens."""
POLL_SECONDS = 0.2

ShardDescription = dict[str, Any]


def finished_shards(building: Path, part: int) -> list[ShardDescription]:
    """The descriptions of a part's finished shards, in order."""
    found: list[ShardDescription] = []
    while True:
        path = building / f"{_name(part, len(found))}.json"
        try:
            described = read_json(path)
            if (building / described["file"]).stat().st_size != described["bytes"]:
                return found
        except (CheckpointError, OSError, KeyError):
            return found
        found.append(described)


def write_part(
    part: Corpus, number: int, building: Path, tokenizer: Tokenizer, threads: int
) -> Generator[int, None, None]:
    """Writes what is missing of a part; yields how many bytes of its text are done, finished shards included."""
    shards = finished_shards(building, number)
    done = sum(shard["text_bytes"] for shard in shards)
    yield done
    if shards and shards[-1]["ends_part"]:
        return
    writer = None
    try:
        for batch in piece_batches(part.pieces("train", shards[-1]["next"] if shards else None)):
            writer = writer or _Shard(building, _name(number, len(shards)), tokenizer)
            for piece in batch:
                size = text_bytes_of(piece)
                writer.text_bytes += size
                writer.documents += piece.ends_document
                done += size
            writer.write(np.concatenate(tokens_with_eot(batch, tokenizer, threads)))
            yield done
            if writer.tokens >= SHARD_TOKENS:
                shards.append(writer.finish(batch[-1].next, None))
                writer = None
        (writer or _Shard(building, _name(number, len(shards)), tokenizer)).finish(None, part)
        writer = None
    finally:
        if writer is not None:
            writer.discard()


def write_in_processes(
    parts: Sequence[Corpus], building: Path, tokenizer: Tokenizer, processes: int
) -> Generator[int, None, None]:
    """`write_part` of all parts, each in one of several processes; yields how many bytes of text are done.

    Raises ResourceError when a process is killed, as it is when memory runs out.
    """
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of other threads
    done, stopping = context.Array("q", len(parts)), context.Event()
    pool = ProcessPoolExecutor(
        min(processes, len(parts)),
        mp_context=context,
        initializer=_begin,
        initargs=(done, stopping, building, tokenizer),
    )
    try:
        futures = [pool.submit(_work, number, part) for number, part in enumerate(parts)]
        waiting = set(futures)
        while waiting:
            finished, waiting = wait(waiting, POLL_SECONDS, FIRST_EXCEPTION)
            for future in finished:
                future.result()
            yield sum(done[:])
    except BrokenProcessPool as error:
        raise ResourceError(
            "a process that prepares the tokens was killed, perhaps because memory ran out; start again, with a "
            "smaller --processes: what is finished is kept"
        ) from error
    finally:
        stopping.set()
        pool.shutdown(cancel_futures=True)


class _Shard:
    """A shard that is being written, under a name that no other process uses."""

    def __init__(self, building: Path, name: str, tokenizer: Tokenizer) -> None:
        self._building, self._name, self._dtype = building, name, dtype_of(tokenizer)
        self._file = HashedFile(building / f"{name}.{os.getpid()}.part")
        self.tokens = self.text_bytes = self.documents = 0

    def write(self, tokens: np.ndarray) -> None:
        """Appends tokens, shape (n,)."""
        self._file.write(tokens.astype(self._dtype))
        self.tokens += len(tokens)

    def finish(self, position: Position, ended: Corpus | None) -> ShardDescription:
        """Gives the shard its name when it is on the disk. `ended` is the part, if this is its last shard."""
        described = {
            "file": f"{self._name}.bin",
            "tokens": self.tokens,
            **self._file.finish(),
            "text_bytes": self.text_bytes,
            "documents": self.documents,
            "next": position,
            "ends_part": ended is not None,
            "reading": None if ended is None else ended.reading(),
        }
        self._file.path.replace(self._building / f"{self._name}.bin")
        replace_text(self._building / f"{self._name}.json", json.dumps(described))
        return described

    def discard(self) -> None:
        """Removes an unfinished shard."""
        self._file.close()
        self._file.path.unlink(missing_ok=True)


def _name(part: int, number: int) -> str:
    return f"train-{part:05}-{number:05}"


# ---- in each of the processes


class _Worker:
    """What each process is given once."""

    done: Any
    stopping: Any
    building: Path
    tokenizer: Tokenizer
    parent: int


def _begin(done: Any, stopping: Any, building: Path, tokenizer: Tokenizer) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the first process, which then ends the others
    _Worker.done, _Worker.stopping, _Worker.building, _Worker.tokenizer = done, stopping, building, tokenizer
    _Worker.parent = os.getppid()


def _work(number: int, part: Corpus) -> None:
    for done in write_part(part, number, _Worker.building, _Worker.tokenizer, threads=1):
        _Worker.done[number] = done
        if _Worker.stopping.is_set() or os.getppid() != _Worker.parent:  # it was killed
            return
