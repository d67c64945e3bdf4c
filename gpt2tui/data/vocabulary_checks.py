"""Whether a vocabulary from a file is one: small numbers for texts, and merges that agree with them."""

import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpt2tui.errors import CheckpointError


def require_ids(vocabulary: Mapping[str, Any], special: Mapping[str, Any], file: Path) -> None:
    """Refuses ids that are no small numbers, which would take memory, or that stand for two tokens, or the reverse."""
    tokens = [*vocabulary.items(), *((text, i) for text, i in special.items() if text not in vocabulary)]
    limit = 2 * len(tokens)
    for text, i in (*tokens, *special.items()):
        if not isinstance(text, str) or not text or type(i) is not int or not 0 <= i < limit:
            raise CheckpointError(
                f"{file}: its token ids are not numbered one after another: "
                f"{reprlib.repr(text)} has the id {reprlib.repr(i)}"
            )
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise CheckpointError(f"{file}: the token {i} is not text ({error.reason})") from error
    if len({i for _, i in tokens}) != len(tokens) or any(vocabulary.get(text, i) != i for text, i in special.items()):
        raise CheckpointError(f"{file}: two of its tokens have one id, or one token has two")


def require_merges(
    vocabulary: Mapping[str, int], merges: list[list[str]], ranks: Mapping[bytes, int], file: Path
) -> None:
    """Refuses merges that are not what the order of the ids says: each of two earlier tokens, after the 256 bytes."""
    last = -1
    for merge in merges:
        if not isinstance(merge, list) or len(merge) != 2 or not all(isinstance(part, str) for part in merge):
            raise CheckpointError(f"{file}: the merge {reprlib.repr(merge)} is not of two tokens")
        left, right = (vocabulary.get(part) for part in merge)
        merged = vocabulary.get("".join(merge))
        if left is None or right is None or merged is None or not max(last, left, right) < merged:
            raise CheckpointError(f"{file}: its merges and its token ids do not belong together")
        last = merged
    if len(ranks) != 256 + len(merges) or not all(bytes([byte]) in ranks for byte in range(256)):
        raise CheckpointError(f"{file}: its vocabulary is not the 256 bytes and what its merges make of them")
