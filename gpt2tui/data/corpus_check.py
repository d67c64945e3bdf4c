"""Whether a corpus is enough to train on: by the tokens it has, or before there are tokens by reading its beginning."""

from collections.abc import Iterator

from gpt2tui.data.corpus import Corpus, Piece
from gpt2tui.errors import DataError, PresetError
from gpt2tui.preset.schema import Preset

READ_BYTES = 4 << 20
"""So much training text is read to see whether it is text."""
LARGE_BYTES = 64 << 20
"""In a larger corpus held-out rows may be too far in to look for them."""


def check_beginning(corpus: Corpus, window: int, streaming: bool) -> None:
    """Reads the beginning of a corpus.

    Raises DataError when it cannot be read, is not UTF-8, has no text, or when one of its splits is certainly
    shorter than `window` tokens. With streaming the training text has no end, so only the held-out text counts.
    """
    train = _most_tokens(corpus.pieces("train"), max(window, READ_BYTES))
    if train < window and not streaming:
        raise too_short(corpus.name, f"at most {train:,} tokens to train on", window)
    if (corpus.size("train") or 0) <= LARGE_BYTES:
        held_out = _most_tokens(corpus.split_pieces(), window)
        if held_out < window:
            raise too_short(corpus.name, f"at most {held_out:,} tokens held out", window)


def check_tokens(source: str, train: int, held_out: int, window: int, streaming: bool) -> None:
    """Raises DataError when one of the splits, whose tokens are known, is shorter than `window` tokens."""
    if held_out < window or (train < window and not streaming):
        raise too_short(source, f"{train:,} tokens to train on and {held_out:,} held out", window)


def check_vocabulary(preset: Preset, tokenizer_size: int) -> None:
    """Raises PresetError when the preset's own vocabulary has no room for the tokenizer's."""
    wanted = preset.model.vocab_size
    if wanted is not None and wanted < tokenizer_size:
        raise PresetError(
            f"model.vocab_size = {wanted} is smaller than the {preset.data.tokenizer} tokenizer needs, "
            f"{tokenizer_size}; leave it out to have it filled in"
        )


def too_short(source: str, what_there_is: str, window: int) -> DataError:
    """The error for a corpus that does not fill one window."""
    return DataError(
        f"{source} is too short: {what_there_is}, and one window is {window:,} (training.sequence_length + 1); "
        "take more text, a shorter sequence_length or another validation_fraction"
    )


def _most_tokens(pieces: Iterator[Piece], enough: int) -> int:
    """At least as many tokens as any tokenizer makes of the pieces, read until there are enough.

    A token stands for one byte or more, and each document is followed by `<|endoftext|>`.
    """
    total = 0
    for piece in pieces:
        total += len(piece.text.encode()) + piece.ends_document
        if total >= enough:
            break
    return total
