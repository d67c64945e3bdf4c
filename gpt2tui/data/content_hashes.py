"""The SHA-256 of a corpus's files, by which the same bytes are the same corpus, wherever and however old they are.

The files of a small corpus are hashed at each opening. Those of a large one are hashed once, when it is prepared; the
hashes are kept in the cache, `hashes/<key>`, until a path, a size or a time stamp changes.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from gpt2tui.data.corpus import digest
from gpt2tui.errors import DataError
from gpt2tui.system.files import cache_folder, replace_text, sha256

SMALL_BYTES = 64 << 20
"""The size of a corpus up to which its files are hashed at each opening."""
_BLOCK_BYTES = 16 << 20
_LINE_BYTES = 65  # a hash in hex and a line end

_hashed: dict[str, list[str]] = {}
"""What this process has hashed, by key: a cache that cannot be written costs only the next process time."""


def known_hashes(paths: Sequence[Path]) -> list[str] | None:
    """The hex SHA-256 of each file; None for a large corpus that `hash_files` has not hashed as it is now.

    Raises OSError when a file cannot be read.
    """
    if sum(path.stat().st_size for path in paths) <= SMALL_BYTES:
        return [sha256(path) for path in paths]
    key = state_of(paths)
    if key not in _hashed:
        with contextlib.suppress(OSError, ValueError):
            kept = _file_of(key)
            text = kept.read_text("ascii") if kept.stat().st_size == _LINE_BYTES * len(paths) else ""
            if re.fullmatch(r"([0-9a-f]{64}\n)+", text):
                _hashed[key] = text.split()
    return _hashed.get(key)


def hash_files(paths: Sequence[Path]) -> Iterator[tuple[int, int]]:
    """Hashes the files of a large corpus unless that is known; yields the bytes that are done, and their total.

    Raises DataError when a file cannot be read.
    """
    try:
        if known_hashes(paths) is not None:
            return
        key, total = state_of(paths), sum(path.stat().st_size for path in paths)
        hashes, done = [], 0
        yield done, total
        for path in paths:
            hashed = hashlib.sha256()
            with path.open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    hashed.update(block)
                    done += len(block)
                    yield done, total
            hashes.append(hashed.hexdigest())
        if key != state_of(paths):
            raise DataError(f"a file in {paths[0].parent} changed while it was read; start again when it is complete")
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}") from error
    _hashed[key] = hashes
    with contextlib.suppress(OSError):  # a cache that is full or read-only
        kept = _file_of(key)
        kept.parent.mkdir(parents=True, exist_ok=True)
        replace_text(kept, "".join(f"{each}\n" for each in hashes))


def state_of(paths: Sequence[Path]) -> str:
    """A hash of the files' paths, sizes and times; the time of the last change (ctime) cannot be set back."""
    states = ((path, path.stat()) for path in paths)
    # Absolute, not resolved: a link that leads elsewhere has another state.
    return digest(*(f"{os.path.abspath(p)} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns}" for p, s in states))  # noqa: PTH100


def _file_of(key: str) -> Path:
    return cache_folder() / "hashes" / key
