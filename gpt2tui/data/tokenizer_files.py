"""Tokenizers on disk, in the form that transformers' AutoTokenizer loads, and back.

`tokenizer.json` alone defines the tokenizer. `tokenizer_config.json` tells transformers how to treat it, and
`gpt2tui_tokenizer.json` holds the kind and the SHA-256 of `tokenizer.json`. Folders of other programs, with
`vocab.json` and `merges.txt` or with `tokenizer.json`, are read as well, with the tokens added to them.
"""

import hashlib
import json
import reprlib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from gpt2tui.data.split_patterns import GPT2_PATTERN, PATTERNS
from gpt2tui.data.tokenizer_kinds import (
    BYTE_OF_CHARACTER,
    CHARACTER_OF_BYTE,
    EOT_TEXT,
    UNKNOWN,
    BytePairTokenizer,
    ByteTokenizer,
    CharTokenizer,
    ForeignTokenizer,
    Tokenizer,
    gpt2_ranks,
)
from gpt2tui.errors import CheckpointError, first_line
from gpt2tui.preset.template import CONFIG_FILE, TEMPLATE_KEY, Template
from gpt2tui.system.files import sync_file

if TYPE_CHECKING:
    import tokenizers

TOKENIZER_FILE = "tokenizer.json"
OWN_FILE = "gpt2tui_tokenizer.json"
ADDED_TOKENS_FILE = "added_tokens.json"
FORMAT_VERSION = 1
NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
KINDS = (None, "gpt2", "bpe", "char", "byte")
LARGEST_FILE_BYTES = 256 << 20  # a million tokens, which is the most that a model has, take a fifth of it


def save(tokenizer: Tokenizer, folder: Path, template: Template | None = None) -> None:
    """Writes the tokenizer's files into an existing folder, and waits until they are on the disk.

    The `template` of prompts and answers becomes transformers' chat template, beside its own text.
    """
    definition = _definition_text(tokenizer)
    is_foreign = isinstance(tokenizer, ForeignTokenizer)
    eot = tokenizer.token_table[tokenizer.eot].decode() if is_foreign else EOT_TEXT
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": eot,
        "eos_token": eot,
        "unk_token": UNKNOWN if tokenizer.name == "char" else eot,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        **({} if template is None else {"chat_template": template.jinja, TEMPLATE_KEY: template.text}),
    }
    texts = {TOKENIZER_FILE: definition, CONFIG_FILE: json.dumps(config, indent=1)}
    if not is_foreign:  # whose kind is read from its definition
        own = {"version": FORMAT_VERSION, "kind": tokenizer.name, "sha256": digest(tokenizer)}
        texts[OWN_FILE] = json.dumps(own, indent=1)
    for name, text in texts.items():
        (folder / name).write_bytes(text.encode())
        sync_file(folder / name)


def load(folder: Path) -> Tokenizer:
    """The tokenizer saved in a folder: ours, or a published GPT-2's.

    Raises CheckpointError when there is none, it is damaged, or it is of a kind that GPT-2 does not use.
    """
    if (folder / OWN_FILE).exists():
        return _load_own(folder)
    if (folder / TOKENIZER_FILE).exists() or ((folder / "vocab.json").exists() and (folder / "merges.txt").exists()):
        return _load_foreign(folder)
    raise CheckpointError(f"{folder} holds no tokenizer: neither {TOKENIZER_FILE} nor vocab.json with merges.txt")


def digest(tokenizer: Tokenizer) -> str:
    """The SHA-256 of the tokenizer's definition."""
    return hashlib.sha256(_definition_text(tokenizer).encode()).hexdigest()


def definition(tokenizer: Tokenizer) -> dict[str, Any]:
    """The content of the tokenizer's tokenizer.json."""
    content: dict[str, Any] = json.loads(_definition_text(tokenizer))
    return content


# Finding GPT-2's merges takes more than a second, too long to repeat at every checkpoint.
_definition_texts: WeakKeyDictionary[Tokenizer, str] = WeakKeyDictionary()


def _definition_text(tokenizer: Tokenizer) -> str:
    if isinstance(tokenizer, ForeignTokenizer):
        return tokenizer.definition()
    if tokenizer not in _definition_texts:
        _definition_texts[tokenizer] = json.dumps(_definition(tokenizer), ensure_ascii=False)
    return _definition_texts[tokenizer]


def merges_of(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The pair that each merged token is made of, in merge order.

    A token's pair is what its bytes become when only the merges before its own are applied.
    """
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            parts = _merge_below(token, rank, ranks)
            assert len(parts) == 2, token
            merges.append((parts[0], parts[1]))
    return merges


def _merge_below(token: bytes, limit: int, ranks: dict[bytes, int]) -> list[bytes]:
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 1:
        candidates = [ranks.get(left + right, limit) for left, right in pairwise(parts)]
        best = min(range(len(candidates)), key=candidates.__getitem__)
        if candidates[best] >= limit:
            break
        parts[best : best + 2] = [parts[best] + parts[best + 1]]
    return parts


def _definition(tokenizer: Tokenizer) -> dict[str, Any]:
    """The content of `tokenizer.json`, in the `tokenizers` library's own format."""
    if isinstance(tokenizer, CharTokenizer):
        # Without merges byte-pair encoding leaves characters: the one model there that keeps white space as
        # it is.
        model: dict[str, Any] = {
            "type": "BPE",
            "dropout": None,
            "unk_token": UNKNOWN,
            "fuse_unk": False,
            "vocab": {character: i for i, character in enumerate(tokenizer.characters)},
            "merges": [],
        }
        return _tokenizer_json(model, None, {"type": "Fuse"}, {EOT_TEXT: tokenizer.eot})
    if isinstance(tokenizer, BytePairTokenizer):
        ranks, pattern, special = tokenizer.ranks, tokenizer.pattern, tokenizer.special_ids
    else:
        ranks, pattern, special = {bytes([i]): i for i in range(256)}, None, {EOT_TEXT: tokenizer.eot}
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "vocab": {_printable(token): rank for token, rank in ranks.items()} | special,
        "merges": [[_printable(left), _printable(right)] for left, right in merges_of(ranks)],
    }
    return _tokenizer_json(model, _pre_tokenizer(pattern), _BYTE_LEVEL, special)


_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def _pre_tokenizer(pattern: str | None) -> dict[str, Any]:
    if pattern == GPT2_PATTERN:
        return _BYTE_LEVEL
    whole = _BYTE_LEVEL | {"use_regex": False}
    if pattern is None:
        return whole
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, whole]}


def _tokenizer_json(
    model: dict[str, Any],
    pre_tokenizer: dict[str, Any] | None,
    decoder: dict[str, Any],
    special: dict[str, int],
) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": text, **flags} for text, i in special.items()],
        "normalizer": None,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": model,
    }


def _load_own(folder: Path) -> Tokenizer:
    own = _read_json(folder / OWN_FILE)
    if own.get("version") != FORMAT_VERSION:
        version = reprlib.repr(own.get("version"))
        raise CheckpointError(f"{folder / OWN_FILE} is of version {version}; this program reads {FORMAT_VERSION}")
    file = folder / TOKENIZER_FILE
    if hashlib.sha256(_read(file)).hexdigest() != own.get("sha256"):
        raise CheckpointError(f"{file} is damaged: its SHA-256 is not the one in {OWN_FILE}; use another checkpoint")
    tokenizer = _from_definition(file, own.get("kind"))
    _definition_texts[tokenizer] = _decoded(file)
    return tokenizer


def _load_foreign(folder: Path) -> ForeignTokenizer:
    """A tokenizer of another program, run by the `tokenizers` library so that it gives AutoTokenizer's ids."""
    import tokenizers

    file = folder / TOKENIZER_FILE
    file = file if file.exists() else folder / "vocab.json"
    config = _read_json(folder / CONFIG_FILE) if (folder / CONFIG_FILE).exists() else {}
    try:
        if file.name == TOKENIZER_FILE:
            definition = _read_json(file)
            special = {token["content"]: token["id"] for token in definition.get("added_tokens") or []}
            require_ids(definition["model"]["vocab"], special, file)
            backend = tokenizers.Tokenizer.from_str(_decoded(file))
        else:
            backend = _from_vocabulary_and_merges(folder, bool(config.get("add_prefix_space")))
        _add_tokens(backend, folder, config)
        return ForeignTokenizer(backend, _end_of_text(backend, file, config))
    except (CheckpointError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises bare Exceptions, and panics are not even those
        raise CheckpointError(f"{file} is not a tokenizer that this program can read: {first_line(error)}") from error


def _from_vocabulary_and_merges(folder: Path, add_prefix_space: bool) -> "tokenizers.Tokenizer":
    import tokenizers

    file = folder / "vocab.json"
    vocabulary = _read_json(file)
    require_ids(vocabulary, {}, file)
    lines = _decoded(folder / "merges.txt").splitlines()
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, merges))  # type: ignore[arg-type]
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space)
    backend.decoder = tokenizers.decoders.ByteLevel()
    if EOT_TEXT in vocabulary:
        backend.add_special_tokens([EOT_TEXT])
    return backend


def _add_tokens(backend: "tokenizers.Tokenizer", folder: Path, config: Mapping[str, Any]) -> None:
    """Adds the tokens that stand in the files beside the vocabulary, with their ids and flags."""
    import tokenizers

    flagged: dict[int, tokenizers.AddedToken] = {}
    if (folder / ADDED_TOKENS_FILE).exists():
        flagged = {i: tokenizers.AddedToken(text) for text, i in _read_json(folder / ADDED_TOKENS_FILE).items()}
    for i, token in (config.get("added_tokens_decoder") or {}).items():
        flags = {flag: bool(token.get(flag)) for flag in ("lstrip", "rstrip", "single_word", "normalized", "special")}
        flagged[int(i)] = tokenizers.AddedToken(token["content"], **flags)
    for i, added in sorted(flagged.items()):
        backend.add_tokens([added])
        if backend.token_to_id(added.content) != i:
            raise CheckpointError(
                f"{folder}: the added token {reprlib.repr(added.content)} is to have the id {i}, but its vocabulary "
                f"gives it {backend.token_to_id(added.content)}"
            )
    named = [config.get(name) for name in NAMED_TOKENS]
    for names in ("additional_special_tokens", "extra_special_tokens"):
        named += config[names] if isinstance(config.get(names), list) else []
    for token in named:
        content = token.get("content") if isinstance(token, dict) else token
        if isinstance(content, str) and content not in {each.content for each in flagged.values()}:
            backend.add_special_tokens([content])


def _end_of_text(backend: "tokenizers.Tokenizer", file: Path, config: Mapping[str, Any]) -> int:
    """The id of the token between documents: the model's eos_token_id, else the tokenizer's eos_token."""
    model_config = file.with_name("config.json")
    model = _read_json(model_config) if model_config.exists() else {}
    named = model.get("eos_token_id")
    eos = named[0] if isinstance(named, list) and named else named
    if type(eos) is int and backend.id_to_token(eos) is not None:
        return eos
    text = config.get("eos_token", EOT_TEXT)
    for content in (text["content"] if isinstance(text, dict) else text, EOT_TEXT):
        found = backend.token_to_id(content) if isinstance(content, str) else None
        if found is not None:
            return found
    raise CheckpointError(
        f"{file} has no {EOT_TEXT}, which separates documents, nor the eos_token_id of config.json or the eos_token of "
        f"{CONFIG_FILE}"
    )


def _from_definition(file: Path, kind: object) -> Tokenizer:
    definition = _read_json(file)
    try:
        model = definition["model"]
        special = {token["content"]: token["id"] for token in definition.get("added_tokens") or []}
        if model["type"] != "BPE":
            raise CheckpointError(f"{file} holds a {reprlib.repr(model['type'])} tokenizer; GPT-2's is byte-level BPE")
        if kind not in KINDS:
            raise CheckpointError(f"{file} is of an unknown kind: {reprlib.repr(kind)}")
        if kind == "byte":
            return ByteTokenizer()
        if kind == "char":
            return _characters(model["vocab"], special, file)
        merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
        return _byte_pairs(model["vocab"], merges, special, _pattern(definition, file), kind, file)
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file} is not a tokenizer that this program can read: {error!r}") from error


def _characters(vocabulary: dict[str, int], special: dict[str, int], file: Path) -> CharTokenizer:
    require_ids(vocabulary, special, file)
    if any(len(token) != 1 for token in vocabulary):
        raise CheckpointError(f"{file}: a token of its vocabulary is not one character")
    tokenizer = CharTokenizer(vocabulary)
    known = {character: i for i, character in enumerate(tokenizer.characters)}
    if known != vocabulary or special != {EOT_TEXT: tokenizer.eot}:
        raise CheckpointError(f"{file}: its characters are not numbered in their order")
    return tokenizer


def _pattern(definition: dict[str, Any], file: Path) -> str:
    """The pattern by which the definition splits text before merging."""
    pre_tokenizer = definition["pre_tokenizer"] or {}
    if definition.get("normalizer") is None:
        if pre_tokenizer.get("type") == "ByteLevel" and pre_tokenizer.get("use_regex", True):
            return GPT2_PATTERN
        steps = pre_tokenizer.get("pretokenizers", [])
        if [step["type"] for step in steps] == ["Split", "ByteLevel"] and steps[0]["pattern"].get("Regex") in PATTERNS:
            return str(steps[0]["pattern"]["Regex"])
    raise CheckpointError(f"{file} prepares text in another way than GPT-2 does; this program cannot use it")


def _byte_pairs(
    vocabulary: dict[str, int],
    merges: list[list[str]],
    special: dict[str, int],
    pattern: str,
    kind: str | None,
    file: Path,
) -> BytePairTokenizer:
    require_ids(vocabulary, special, file)
    if EOT_TEXT in vocabulary:
        special = {EOT_TEXT: vocabulary[EOT_TEXT]} | special
    if EOT_TEXT not in special:
        raise CheckpointError(f"{file} has no {EOT_TEXT} token, which separates documents")
    try:
        ranks = {
            bytes(BYTE_OF_CHARACTER[character] for character in token): i
            for token, i in vocabulary.items()
            if token not in special
        }
    except KeyError as error:
        raise CheckpointError(f"{file} is not a byte-level vocabulary: it holds the character {error}") from error
    require_merges(vocabulary, merges, ranks, file)
    is_gpt2 = ranks == gpt2_ranks() and pattern == GPT2_PATTERN
    return BytePairTokenizer(kind or ("gpt2" if is_gpt2 else "bpe"), pattern, ranks, special)


def _printable(token: bytes) -> str:
    return "".join(CHARACTER_OF_BYTE[byte] for byte in token)


def _read(file: Path) -> bytes:
    try:
        if file.exists() and not file.is_file():
            raise CheckpointError(f"{file} is not a regular file")
        if file.stat().st_size > LARGEST_FILE_BYTES:
            raise CheckpointError(f"{file} is too large to be what its name says")
        return file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror or error}") from error


def _decoded(file: Path) -> str:
    try:
        return _read(file).decode()
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{file} is damaged: not UTF-8 at byte {error.start}") from error


def _read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(_decoded(file))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is damaged: not JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{file} is damaged: not a JSON object")
    return value


# ---- checks of vocabularies that come from files


def require_ids(vocabulary: Mapping[str, Any], special: Mapping[str, Any], file: Path) -> None:
    """Raises CheckpointError for ids that are not small integers, two tokens with one id, or one token with two."""
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
    """Raises CheckpointError unless each merged token is made of two tokens with lower ids, after the 256 bytes."""
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
