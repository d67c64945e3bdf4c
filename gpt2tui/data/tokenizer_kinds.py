"""The tokenizers: byte-level BPE, bytes, characters, those of other programs, and a decoder for tokens one by one."""

import base64
import codecs
import functools
import gzip
import hashlib
import importlib.resources
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import tiktoken

from gpt2tui.data.split_patterns import MARK, marked, without_lookahead
from gpt2tui.data.text_cuts import uniform_parts
from gpt2tui.errors import CheckpointError, first_line

if TYPE_CHECKING:
    import tokenizers

Tokens = npt.NDArray[np.uint32]

EOT_TEXT = "<|endoftext|>"
_GPT2_RANKS_SHA256 = "306cd27f03c1a714eca7108e03d66b7dc042abe8c258b44c199a7ed9838dd930"
UNKNOWN = "\N{REPLACEMENT CHARACTER}"
_GROUP_CHARACTERS = 1 << 17
_LONG = 1 << 12
"""Characters; for shorter texts no second encoder is made, which takes as long as encoding a megabyte."""
_SPACES = 1 << 18
"""Longer runs of white space are cut: tiktoken's regular expression fails on 999,660 characters."""


class Tokenizer(ABC):
    """Text to token ids and back. All methods may be called from several threads at once.

    `name` is the kind as presets call it, `vocab_size` one more than the largest id, and `eot` the id of
    `<|endoftext|>`, which is only ever put between documents: the same characters inside a text are text.
    """

    def __init__(self, name: str, token_table: Sequence[bytes], eot: int, special: Iterable[int] = ()) -> None:
        self.name = name
        self.eot = eot
        self.token_table = tuple(token_table)
        """The UTF-8 bytes of every token, by id."""
        self.special = frozenset({eot, *special})

    @property
    def vocab_size(self) -> int:
        """How many tokens there are, `<|endoftext|>` counted."""
        return len(self.token_table)

    @abstractmethod
    def encode_array(self, text: str) -> Tokens:
        """The token ids of a text, shape (tokens,)."""

    def encode(self, text: str) -> list[int]:
        """The token ids of a text as a list, for prompts."""
        ids: list[int] = self.encode_array(text).tolist()
        return ids

    def encode_documents(self, texts: Sequence[str], threads: int = 1) -> list[Tokens]:
        """The token ids of each text, computed by `threads` threads."""
        groups = [texts[start:stop] for start, stop in _groups([len(text) for text in texts])]
        if threads == 1 or len(groups) == 1:
            return [self.encode_array(text) for text in texts]
        with ThreadPoolExecutor(threads) as pool:
            encoded = pool.map(lambda group: [self.encode_array(text) for text in group], groups)
            return [ids for group in encoded for ids in group]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of the tokens. An id beyond the vocabulary, as padded models have, becomes U+FFFD."""
        size, table = len(self.token_table), self.token_table
        return b"".join(table[i] if 0 <= i < size else UNKNOWN.encode() for i in ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the tokens; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def token_bytes(self) -> npt.NDArray[np.int64]:
        """The number of text bytes that each token stands for, shape (vocab_size,); 0 for special tokens."""
        lengths = [0 if i in self.special else len(token) for i, token in enumerate(self.token_table)]
        return np.array(lengths, dtype=np.int64)


class BytePairTokenizer(Tokenizer):
    """Byte-level byte-pair encoding, as GPT-2 defined it: split by a pattern, then merge by rank."""

    def __init__(self, name: str, pattern: str, ranks: Mapping[bytes, int], special: Mapping[str, int]) -> None:
        self.pattern = pattern
        self.ranks = dict(ranks)
        self.special_ids = dict(special)
        table = {rank: token for token, rank in ranks.items()} | {i: text.encode() for text, i in special.items()}
        size = max(table) + 1
        super().__init__(
            name, [table.get(i, UNKNOWN.encode()) for i in range(size)], special[EOT_TEXT], special.values()
        )
        self._encoding = self._encoding_by(pattern)

    def encode_array(self, text: str) -> Tokens:
        """The token ids of a text, shape (tokens,): tiktoken's, but for runs of more than 262,144 white spaces."""
        text = without_surrogates(text)
        encoded = [self._encode(part) for part in uniform_parts(text, _SPACES, str.isspace)]
        if len(encoded) == 1:
            return encoded[0]
        return np.concatenate(encoded) if encoded else np.empty(0, dtype=np.uint32)

    def _encode(self, text: str) -> Tokens:
        if len(text) >= _LONG and self._of_marked is not None and (with_marks := marked(text)) is not None:
            ids = self._of_marked.encode_to_numpy(with_marks, disallowed_special=())
            without_marks: Tokens = ids[ids != self.ranks[MARK.encode()]]
            return without_marks
        return self._encoding.encode_to_numpy(text, disallowed_special=())

    @functools.cached_property
    def _of_marked(self) -> tiktoken.Encoding | None:
        """The same tokens from text with marks, faster; None where the pattern or the vocabulary has no such way."""
        pattern = without_lookahead(self.pattern)
        return None if pattern is None or MARK.encode() not in self.ranks else self._encoding_by(pattern)

    def _encoding_by(self, pattern: str) -> tiktoken.Encoding:
        return tiktoken.Encoding(
            self.name, pat_str=pattern, mergeable_ranks=self.ranks, special_tokens=self.special_ids
        )


class ByteTokenizer(Tokenizer):
    """Each byte of the UTF-8 text is one token; 256 is `<|endoftext|>`."""

    def __init__(self) -> None:
        super().__init__("byte", [*(bytes([i]) for i in range(256)), EOT_TEXT.encode()], 256)

    def encode_array(self, text: str) -> Tokens:
        """The bytes of a text, shape (bytes,)."""
        return np.frombuffer(without_surrogates(text).encode(), dtype=np.uint8).astype(np.uint32)


class CharTokenizer(Tokenizer):
    """Each character is one token. A character that the training text did not have becomes U+FFFD."""

    def __init__(self, characters: Iterable[str]) -> None:
        self.characters = "".join(sorted({*characters, UNKNOWN}))
        table = [character.encode() for character in self.characters]
        super().__init__("char", [*table, EOT_TEXT.encode()], len(table))
        codes = _code_points(self.characters)
        self._ids = np.full(int(codes.max()) + 2, self.characters.index(UNKNOWN), dtype=np.uint32)
        self._ids[codes] = np.arange(len(codes), dtype=np.uint32)

    def encode_array(self, text: str) -> Tokens:
        """The ids of a text's characters, shape (characters,)."""
        codes = _code_points(without_surrogates(text))
        ids: Tokens = self._ids[np.minimum(codes, len(self._ids) - 1)]
        return ids

    def token_bytes(self) -> npt.NDArray[np.int64]:
        """The number of text bytes that each token stands for, shape (vocab_size,); 0 for `<|endoftext|>`.

        U+FFFD stands for any character never seen and counts as 1 byte, the least one can have: its own 3 would
        make bits per byte look better than they are.
        """
        lengths = super().token_bytes()
        lengths[self.characters.index(UNKNOWN)] = 1
        return lengths


class ForeignTokenizer(Tokenizer):
    """A tokenizer of another program, run by the `tokenizers` library: text becomes what AutoTokenizer makes of it.

    Added tokens in a text are tokens, that of the end of a text too.
    """

    def __init__(self, backend: "tokenizers.Tokenizer", eot: int) -> None:
        """Raises ValueError when the bytes of a token are not known by themselves."""
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        added = {i: token.content for i, token in backend.get_added_tokens_decoder().items()}
        decoder = type(backend.decoder).__name__
        if decoder not in ("ByteLevel", "Fuse", "NoneType"):
            raise ValueError(f"its decoder is {decoder}; GPT-2's is ByteLevel")
        table = {i: text.encode() for text, i in backend.get_vocab(with_added_tokens=False).items()}
        if decoder == "ByteLevel":
            table = {i: _byte_level_bytes(text.decode()) for i, text in table.items()}
        table |= {i: text.encode() for i, text in added.items()}
        size = max(table) + 1
        super().__init__("tokenizers", [table.get(i, UNKNOWN.encode()) for i in range(size)], eot)

    def definition(self) -> str:
        """The content of its tokenizer.json."""
        return self._backend.to_str()

    def encode_array(self, text: str) -> Tokens:
        """The token ids of a text, shape (tokens,). Raises CheckpointError when the tokenizer fails on this text."""
        try:
            ids = self._backend.encode(without_surrogates(text), add_special_tokens=False).ids
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the library raises bare Exceptions, and panics are not even those
            raise CheckpointError(f"the model's tokenizer cannot encode this text: {first_line(error)}") from error
        return np.array(ids, dtype=np.uint32)


def without_surrogates(text: str) -> str:
    r"""The text with lone surrogates, which JSON's \ud800 can make and UTF-8 cannot hold, as U+FFFD."""
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _code_points(text: str) -> Tokens:
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


def _groups(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Ranges of neighbouring texts, of about _GROUP_CHARACTERS together, which is worth a task of its own."""
    numbers = [total // _GROUP_CHARACTERS for total in accumulate(lengths)]
    starts = [i for i in range(len(numbers)) if i == 0 or numbers[i] != numbers[i - 1]]
    return list(pairwise([*starts, len(lengths)]))


def _byte_characters() -> list[str]:
    """GPT-2's stand-in for each byte: its own character if it prints, else the next one from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    stand_ins = {byte: chr(byte) for byte in printable} | {byte: chr(0x100 + i) for i, byte in enumerate(others)}
    return [stand_ins[byte] for byte in range(256)]


CHARACTER_OF_BYTE = _byte_characters()
BYTE_OF_CHARACTER = {character: byte for byte, character in enumerate(CHARACTER_OF_BYTE)}


def _byte_level_bytes(token: str) -> bytes:
    """The bytes that a byte-level token stands for; a token with other characters stands for its own text."""
    if all(character in BYTE_OF_CHARACTER for character in token):
        return bytes(BYTE_OF_CHARACTER[character] for character in token)
    return token.encode()


# ---- GPT-2's own vocabulary, embedded: 50,256 tokens and `<|endoftext|>` (GPT-2 paper, section 2.2)


@functools.cache
def gpt2_ranks() -> dict[bytes, int]:
    """Each token's bytes and its id, which is also its place in the order of merges.

    Raises RuntimeError when the installed file is not the one this program was made with.
    """
    asset = importlib.resources.files("gpt2tui") / "assets" / "gpt2.tiktoken.gz"
    lines = gzip.decompress(asset.read_bytes())
    if hashlib.sha256(lines).hexdigest() != _GPT2_RANKS_SHA256:
        raise RuntimeError(f"{asset} is damaged: install gpt2tui again")
    pairs = (line.split() for line in lines.splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in pairs}


class IncrementalDecoder:
    """Text from tokens that arrive one by one; a character may be spread over several tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, ids: Iterable[int]) -> str:
        """The characters that these tokens complete; may be empty."""
        return self._decoder.decode(self._tokenizer.decode_bytes(ids))

    def flush(self) -> str:
        """U+FFFD where the last character is incomplete, else nothing."""
        return self._decoder.decode(b"", final=True)
