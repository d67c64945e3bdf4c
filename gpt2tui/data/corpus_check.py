"""Whether a corpus is long enough to train on: by its tokens, or before it is tokenized by its first megabytes."""

from collections.abc import Iterator

from gpt2tui.data.corpus import Corpus, TextPiece
from gpt2tui.errors import DataError, PresetError
from gpt2tui.preset.schema import Preset

READ_BYTES = 4 << 20
"""The training text that is read at most."""
LARGE_BYTES = 64 << 20
"""In a larger corpus the first validation rows may be too far in to look for them."""


def check_beginning(corpus: Corpus, window: int, streaming: bool) -> None:
    """Reads the beginning of a corpus.

    Raises DataError when it cannot be read, is not UTF-8, has no text, or when one of its splits is certainly
    shorter than `window` tokens. With streaming the training text has no end, so only the validation text counts.
    """
    train = _most_tokens(corpus.pieces("train"), max(window, READ_BYTES))
    if train < window and not streaming:
        raise too_short(corpus.name, f"at most {train:,} training tokens", window)
    if (corpus.size("train") or 0) <= LARGE_BYTES:
        validation = _most_tokens(corpus.held_out_pieces(), window)
        if validation < window:
            raise too_short(corpus.name, f"at most {validation:,} validation tokens", window)


def check_tokens(source: str, train: int, validation: int, window: int, streaming: bool) -> None:
    """Raises DataError when one of the splits, whose tokens are known, is shorter than `window` tokens."""
    if validation < window or (train < window and not streaming):
        raise too_short(source, f"{train:,} training tokens and {validation:,} validation tokens", window)


def check_vocabulary(preset: Preset, tokenizer_size: int) -> None:
    """Raises PresetError when the preset's own vocabulary has no room for the tokenizer's."""
    wanted = preset.model.vocab_size
    if wanted is not None and wanted < tokenizer_size:
        raise PresetError(
            f"model.vocab_size = {wanted} is smaller than the {preset.data.tokenizer} tokenizer needs, "
            f'{tokenizer_size}; leave it out, or write "auto" to leave out an inherited one, to have it filled in'
        )


def too_short(source: str, found: str, window: int) -> DataError:
    """The error for a corpus that does not fill one window."""
    return DataError(
        f"{source} is too short: {found}, and one window is {window:,} (training.sequence_length + 1); "
        "take more text, a shorter sequence_length or another validation_fraction"
    )


def _most_tokens(pieces: Iterator[TextPiece], enough: int) -> int:
    """At least as many tokens as any tokenizer makes of the pieces, read until there are enough.

    A token stands for one byte or more, and each document is followed by `<|endoftext|>`.
    """
    total = 0
    for piece in pieces:
        total += len(piece.text.encode()) + piece.ends_document
        if total >= enough:
            break
    return total
