"""A corpus as training reads it: the tokens of its splits, and what is known of them."""

from collections.abc import Sequence
from dataclasses import dataclass

from gpt2tui.data.corpus import Corpus, digest
from gpt2tui.data.joined_tokens import JoinedTokens, TokenSequence
from gpt2tui.data.mix import validation_windows
from gpt2tui.data.token_stream import TokenStream
from gpt2tui.data.tokenizer_kinds import Tokenizer
from gpt2tui.preset.schema import MIX
from gpt2tui.preset.template import Template

_AT_ONCE = 1 << 20  # tokens


@dataclass(frozen=True)
class TokenizedCorpus:
    """A corpus ready for training. With streaming only the validation split is on disk, and `train` is empty."""

    source: str
    fingerprint: str
    tokenizer: Tokenizer
    train: TokenSequence
    validation: TokenSequence
    train_bytes: int
    """UTF-8 bytes of the training text, `<|endoftext|>` not counted; 0 with streaming."""
    validation_bytes: int
    train_documents: int
    validation_documents: int
    xz_bits_per_byte: float | None
    """The size of the validation text under `xz -9`, in bits per byte; None where it is too long to compress."""
    xz_after_training_bits_per_byte: float | None
    """What the validation text adds to `xz -9` of the training text, in bits per byte of it; see data/xz.py.

    None where a text is too long to compress, with streaming, and from `find_prepared` for a store that no run has
    opened since the figure exists.
    """
    notices: tuple[str, ...]
    """Sentences to show the user, about fallbacks and a vocabulary smaller than asked for."""
    streaming: bool
    corpus: Corpus | None
    """The source that `stream` reads; None where the store was opened without it."""
    train_mask: TokenSequence | None = None
    """Of prompts and answers: 1 where a training token counts in the loss, shape (tokens,). None: all count."""
    validation_mask: TokenSequence | None = None
    template: Template | None = None
    """The template of prompts and answers; None for text."""
    mix: "tuple[TokenizedCorpus, ...]" = ()
    """The sources of a mix, each by itself; empty where there is one source. Those fields that are of all of them are
    then joined."""
    weights: tuple[int, ...] = ()
    """The weights of the mix, as whole numbers without a common divisor."""

    def stream(self) -> TokenStream:
        """The training text as an endless stream of tokens, from its start."""
        assert self.corpus is not None
        return TokenStream(self.corpus, self.tokenizer)


def mixed(parts: Sequence[TokenizedCorpus], weights: Sequence[int], window: int) -> TokenizedCorpus:
    """Several corpora with one tokenizer as a mix; `weights` are whole numbers without a common divisor.

    The validation text is the beginning of that of each source, as many windows of `window` tokens as stand in the
    proportions of the weights, so that the loss over it estimates that of the training text.
    """
    windows = validation_windows(weights, [(len(part.validation) - 1) // window for part in parts])
    validation = _windows([part.validation for part in parts], windows, window)
    text_bytes, documents = _counts(validation, parts[0].tokenizer)
    return TokenizedCorpus(
        source=MIX,
        fingerprint=digest(*(f"{part.fingerprint} {weight}" for part, weight in zip(parts, weights, strict=True))),
        tokenizer=parts[0].tokenizer,
        train=_joined([part.train for part in parts]),
        validation=validation,
        train_bytes=sum(part.train_bytes for part in parts),
        validation_bytes=text_bytes,
        train_documents=sum(part.train_documents for part in parts),
        validation_documents=documents,
        xz_bits_per_byte=None,
        xz_after_training_bits_per_byte=None,
        notices=tuple(notice for part in parts for notice in part.notices),
        streaming=False,
        corpus=None,
        validation_mask=_masks([part.validation_mask for part in parts], windows, window),
        template=parts[0].template,
        mix=tuple(parts),
        weights=tuple(weights),
    )


def _joined(tokens: Sequence[TokenSequence]) -> JoinedTokens:
    arrays = [each.arrays if isinstance(each, JoinedTokens) else (each[:],) for each in tokens]
    return JoinedTokens([array for some in arrays for array in some])


def _windows(tokens: Sequence[TokenSequence], counts: Sequence[int], window: int) -> JoinedTokens:
    """The first windows of each, and the token that the last of them ends with."""
    ends = [count * window for count in counts]
    ends[-1] += 1
    return _joined([_joined([each]).between(0, end) for each, end in zip(tokens, ends, strict=True)])


def _masks(masks: Sequence[TokenSequence | None], counts: Sequence[int], window: int) -> JoinedTokens | None:
    known = [mask for mask in masks if mask is not None]
    return _windows(known, counts, window) if len(known) == len(masks) else None


def _counts(tokens: TokenSequence, tokenizer: Tokenizer) -> tuple[int, int]:
    """The UTF-8 bytes of the tokens' text, and how many of them end a document."""
    lengths = tokenizer.token_bytes()
    text_bytes = documents = 0
    for start in range(0, len(tokens), _AT_ONCE):
        part = tokens[start : start + _AT_ONCE]
        text_bytes += int(lengths[part].sum())
        documents += int((part == tokenizer.eot).sum())
    return text_bytes, documents
