"""Where a long text can be cut so that its parts give the tokens of the whole.

A byte-pair tokenizer first splits text by a pattern, and no part of our patterns crosses from visible text
into the white space after it. So before white space that follows something visible a cut changes nothing.
"""

import re
from collections.abc import Iterator

CUT_LENGTH = 1 << 20
"""Characters in a part at most; small enough that several threads share one document."""

# U+001C to U+001F are white space to Python and not to the tokenizers' patterns.
_VISIBLE = r"[\S\x1c-\x1f]"
_SPACE = r"[^\S\x1c-\x1f]"
_CUT = re.compile(rf"(?<={_VISIBLE}){_SPACE}")
_SPACE_CHARACTER = re.compile(_SPACE)
_SEARCHED = 4096
_UNIFORM = 2048


def parts(text: str, length: int = CUT_LENGTH) -> Iterator[str]:
    """The text in parts of at most `length` characters, cut where it does not matter if possible."""
    start = 0
    while len(text) - start > length:
        stop = last_cut(text, start, start + length)
        yield text[start:stop]
        start = stop
    if start < len(text):
        yield text[start:]


def last_cut(text: str, start: int, stop: int) -> int:
    """Where to cut the text in (start, stop]: at a harmless place near `stop` if possible, else at `stop`."""
    near = max(start + 1, stop - _SEARCHED)
    cuts = [match.start() for match in _CUT.finditer(text, near, stop)]
    return cuts[-1] if cuts else stop


def long_run_parts(text: str) -> Iterator[str]:
    """Cuts up runs of thousands of characters with no white space inside, or of nothing else.

    On such runs the tokenizer's regular expression overflows its stack and merging is slower than linear. Any
    run of 4,095 characters fills one of the aligned blocks of 2,048 that are cut out here; ordinary text has
    none.
    """
    start = 0
    for block_start in range(0, len(text) - _UNIFORM + 1, _UNIFORM):
        block = text[block_start : block_start + _UNIFORM]
        if block.isspace() or not _SPACE_CHARACTER.search(block):
            if start < block_start:
                yield text[start:block_start]
            yield block
            start = block_start + _UNIFORM
    if start < len(text):
        yield text[start:]
