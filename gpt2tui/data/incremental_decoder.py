"""Text from tokens that arrive one by one."""

import codecs
from collections.abc import Iterable

from gpt2tui.data.tokenizer_kinds import Tokenizer


class IncrementalDecoder:
    """Gives out text as soon as its bytes are whole characters; one may be spread over several tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, ids: Iterable[int]) -> str:
        """The text that these tokens complete; may be empty."""
        return self._decoder.decode(self._tokenizer.decode_bytes(ids))

    def flush(self) -> str:
        """What is left at the end: U+FFFD for a character that never became whole, else nothing."""
        return self._decoder.decode(b"", final=True)
