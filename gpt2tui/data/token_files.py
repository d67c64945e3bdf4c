"""Files of tokens as llm.c and modded-nanogpt publish them, read from where they lie.

A file is 256 int32 of header, of which the first three are a magic number, a version and the number of tokens, then the
tokens of GPT-2's own vocabulary as uint16, all little-endian.
"""

import contextlib
import glob
import hashlib
import json
import re
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpt2tui.data import content_hashes
from gpt2tui.data.corpus import Corpus, Position, Split, TextPiece, digest
from gpt2tui.data.joined_tokens import JoinedTokens
from gpt2tui.data.tokenizers import IncrementalDecoder, Tokenizer, gpt2
from gpt2tui.errors import CheckpointError, DataError
from gpt2tui.preset import source as sources
from gpt2tui.preset.schema import GPT2_VOCAB_SIZE, DataTable
from gpt2tui.system.files import cache_folder, read_json, replace_text

SUFFIX = ".bin"
MAGIC, VERSION, HEADER_BYTES = 20240520, 1, 1024
_LLAMA_MAGIC = 20240801
_VALIDATION = re.compile(r"(?:^|[-_.])val(?:idation)?(?:[-_.]|$)")
_AT_ONCE = 1 << 20  # tokens


def find(source: str) -> list[Path] | None:
    """The token files that a source means, sorted: a file, those of a folder, or those of a glob; None where none are.

    A folder with other files in it means them if the first of them begins with the magic number.
    """
    if not sources.is_path(source):
        return None
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        path = Path(source).expanduser()
        if path.is_file():
            return [path] if path.suffix == SUFFIX else None
        if path.is_dir():
            there = sorted(each for each in path.glob("[!.]*") if each.is_file())
            files = [each for each in there if each.suffix == SUFFIX]
            return files if files and (files == there or _begins_with_magic(files[0])) else None
        if glob.has_magic(source):
            found = sorted(each for name in glob.iglob(str(path), recursive=True) if (each := Path(name)).is_file())  # noqa: PTH207
            return found if found and all(each.suffix == SUFFIX for each in found) else None
    return None


def refuse_other_settings(table: DataTable, tokenizer: Tokenizer | None) -> None:
    """Raises DataError for settings that token files cannot have; `tokenizer` is that of the weights to start from."""
    if table.has_examples:
        raise DataError(
            f"{table.source} is tokens, which have no columns; leave out the columns of prompts and answers"
        )
    name = table.tokenizer if tokenizer is None else tokenizer.name
    if name != "gpt2":
        whose = "data.tokenizer is" if tokenizer is None else "the tokenizer of the model to start from is"
        raise DataError(f"{table.source} is tokens of GPT-2's own vocabulary, and {whose} {name}; it must be gpt2")
    if table.streaming:
        raise DataError(f"{table.source} is tokens, which are read from where they lie; leave out data.streaming")


class TokenFiles(Corpus):
    """The files as a corpus: `tokens` for training, and as text for what reads text.

    Files with `val` as a part of their name are the validation split; without one the end of the tokens is. Raises
    DataError when a header is wrong or a file shorter than it says.
    """

    def __init__(self, table: DataTable, files: Sequence[Path]) -> None:
        self.name = table.source
        self.files = tuple(files)
        arrays = {path: _opened(path) for path in files}
        validation = [path for path in files if _VALIDATION.search(path.stem)]
        train = JoinedTokens([arrays[path] for path in files if path not in validation])
        self.tokens: dict[Split, JoinedTokens] = {
            "train": train,
            "validation": JoinedTokens([arrays[path] for path in validation]),
        }
        if not validation:
            cut = len(train) - max(1, int(len(train) * table.validation_fraction))
            self.tokens = {"train": train.between(0, cut), "validation": train.between(cut, len(train))}
        if not len(self.tokens["train"]):
            raise DataError(f"{table.source} has no training tokens; files with val in their names are for validation")
        self._key = digest(content_hashes.state_of(files), str(table.validation_fraction))
        self.facts = _known(self._key)
        self.fingerprint = self.facts.fingerprint if self.facts else self._key

    def measure(self) -> Generator[tuple[int, int], None, "Facts"]:
        """Reads all tokens, unless that is known of these files; yields the bytes that are done, and their total.

        They are read twice: for their hashes, and for the bytes of text and the documents of each split.

        Raises DataError for a token that GPT-2's vocabulary does not have.
        """
        if self.facts is None:
            hashes, done, total = [], 0, 2 * sum(path.stat().st_size for path in self.files)
            for path in self.files:
                hashed = hashlib.sha256()
                for start, tokens in _parts(_opened(path)):
                    _refuse_foreign(path, start, tokens)
                    hashed.update(tokens.data)
                    done += tokens.nbytes
                    yield done, total
                hashes.append(hashed.hexdigest())
            sizes = [str(len(tokens)) for tokens in self.tokens.values()]
            train = yield from self._counts("train", done, total)
            done += 2 * len(self.tokens["train"])  # bytes
            validation = yield from self._counts("validation", done, total)
            self.facts = Facts(digest("token files", *hashes, *sizes), *train, *validation)
            self.fingerprint = self.facts.fingerprint
            _keep(self._key, self.facts)
        return self.facts

    def _counts(self, split: Split, done: int, total: int) -> Generator[tuple[int, int], None, tuple[int, int]]:
        """The bytes of a split's text and its documents; yields as `measure` does."""
        lengths, text_bytes, documents = gpt2().token_bytes(), 0, 0
        for _, tokens in _parts(self.tokens[split]):
            text_bytes += int(lengths[tokens].sum())
            documents += int((tokens == gpt2().eot).sum())
            done += tokens.nbytes
            yield done, total
        return text_bytes, documents

    def pieces(self, split: Split, start: Position = None) -> Iterator[TextPiece]:
        """The text of the tokens, cut into documents by end of text. A position is a number of tokens."""
        decoder, is_open = IncrementalDecoder(gpt2()), False
        place = start or 0
        for first, tokens in _parts(self.tokens[split].between(place, len(self.tokens[split]))):
            begin = 0
            for end in [*np.flatnonzero(tokens == gpt2().eot).tolist(), len(tokens)]:
                ends_document = end < len(tokens)
                text = decoder.feed(tokens[begin:end].tolist()) + (decoder.flush() if ends_document else "")
                is_open = is_open or bool(text)
                if is_open and (text or ends_document):
                    yield TextPiece(text, ends_document, place + first + end + ends_document)
                is_open, begin = is_open and not ends_document, end + 1
        if is_open:
            yield TextPiece(decoder.flush(), True, len(self.tokens[split]))

    def size(self, split: Split) -> int | None:
        """The bytes of the text, where they have been counted."""
        if self.facts is None:
            return None
        return self.facts.train_bytes if split == "train" else self.facts.validation_bytes


@dataclass(frozen=True)
class Facts:
    """What is known of token files once all of them have been read."""

    fingerprint: str
    train_bytes: int
    train_documents: int
    validation_bytes: int
    validation_documents: int


def _known(key: str) -> Facts | None:
    try:
        return Facts(**read_json(_file_of(key)))
    except (CheckpointError, TypeError):
        return None


def _keep(key: str, facts: Facts) -> None:
    with contextlib.suppress(OSError):  # a cache that is full or read-only
        _file_of(key).parent.mkdir(parents=True, exist_ok=True)
        replace_text(_file_of(key), json.dumps(vars(facts)))


def _file_of(key: str) -> Path:
    return cache_folder() / "hashes" / f"{key}.json"


def _begins_with_magic(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == MAGIC.to_bytes(4, "little")


def _opened(path: Path) -> "np.ndarray[Any, np.dtype[np.uint16]]":
    """The tokens of a file, memory-mapped. Raises DataError when its header is wrong."""
    try:
        with path.open("rb") as file:
            beginning = file.read(HEADER_BYTES)
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if len(beginning) < HEADER_BYTES:
        raise DataError(f"{path} has {size:,} bytes, and the header of a token file alone has {HEADER_BYTES:,}")
    magic, version, count = (int(number) for number in np.frombuffer(beginning, dtype="<i4", count=3))
    if magic == _LLAMA_MAGIC:
        raise DataError(f"{path} is tokens of Llama 3 (magic number {magic}); this program trains GPT-2")
    if magic != MAGIC:
        raise DataError(
            f"{path} is not a token file of llm.c or modded-nanogpt: it begins with {magic}, and their magic number is "
            f"{MAGIC}"
        )
    if version != VERSION:
        raise DataError(f"{path} is a token file of version {version}; version {VERSION} can be read")
    there = (size - HEADER_BYTES) // 2
    if count < 0 or count > there:
        raise DataError(
            f"{path} says that it has {count:,} tokens, and has room for {there:,}: it is cut off; download it again"
        )
    if not count:
        return np.empty(0, dtype=np.uint16)
    return np.memmap(path, dtype="<u2", mode="r", offset=HEADER_BYTES, shape=(count,))


def _parts(tokens: Any) -> Iterator[tuple[int, Any]]:
    """The tokens in parts that fit into memory, each with the place of its first."""
    for start in range(0, len(tokens), _AT_ONCE):
        yield start, np.ascontiguousarray(tokens[start : start + _AT_ONCE])


def _refuse_foreign(path: Path, start: int, tokens: Any) -> None:
    if tokens.max() >= GPT2_VOCAB_SIZE:
        place = int(np.argmax(tokens >= GPT2_VOCAB_SIZE))
        raise DataError(
            f"{path} is not tokens of GPT-2: its token {start + place:,} is {int(tokens[place]):,}, and the vocabulary "
            f"ends at {GPT2_VOCAB_SIZE - 1:,}"
        )
