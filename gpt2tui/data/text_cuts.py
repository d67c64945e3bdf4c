"""Cutting a long text without changing its tokens.

A byte-pair tokenizer first splits text by a pattern, and no part of our patterns crosses from visible text
into the white space after it. So before white space that follows something visible a cut changes nothing.
"""

import re
from collections.abc import Callable, Iterator

CUT_LENGTH = 1 << 20
"""Characters in a part at most; small enough that several threads share one document."""

# U+001C to U+001F are white space to Python and not to the tokenizers' patterns.
_VISIBLE = r"[\S\x1c-\x1f]"
_SPACE = r"[^\S\x1c-\x1f]"
_CUT = re.compile(rf"(?<={_VISIBLE}){_SPACE}")
_SEARCHED = 4096


def parts(text: str, length: int = CUT_LENGTH) -> Iterator[str]:
    """The text in parts of at most `length` characters, cut where that does not change the tokens if possible."""
    start = 0
    while len(text) - start > length:
        stop = last_cut(text, start, start + length)
        yield text[start:stop]
        start = stop
    if start < len(text):
        yield text[start:]


def last_cut(text: str, start: int, stop: int) -> int:
    """A place to cut in (start, stop]: near `stop` where that does not change the tokens, else `stop`."""
    near = max(start + 1, stop - _SEARCHED)
    cuts = [match.start() for match in _CUT.finditer(text, near, stop)]
    return cuts[-1] if cuts else stop


def uniform_parts(text: str, length: int, is_uniform: Callable[[str], bool]) -> Iterator[str]:
    """The text in parts: each aligned block of `length` characters for which `is_uniform` holds is a part of its own.

    So a run of 2 * length - 1 uniform characters is always cut up, and a text without a run of `length` never is.
    """
    start = 0
    for block_start in range(0, len(text) - length + 1, length):
        block = text[block_start : block_start + length]
        if is_uniform(block):
            if start < block_start:
                yield text[start:block_start]
            yield block
            start = block_start + length
    if start < len(text):
        yield text[start:]
