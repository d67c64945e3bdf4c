"""Training byte-level BPE on a corpus (Sennrich et al. 2016; on bytes as in the GPT-2 paper, section 2.2)."""

import os
import re
from collections.abc import Iterable, Iterator

from gpt2tui.data.split_patterns import CODE_PATTERN
from gpt2tui.data.text_cuts import uniform_parts
from gpt2tui.data.tokenizer_kinds import BYTE_OF_CHARACTER, EOT_TEXT, BytePairTokenizer, without_surrogates

TRAINING_BYTES = 32 << 20
"""The UTF-8 bytes of training text that the merges are learnt from; more changes little and takes longer."""

WORD_CHARACTERS = 128
"""A word of twice as many characters, such as a line of DNA, is cut into words of this length for training, whose time
grows with the square of a word's length; shorter ones are left whole where they do not fill an aligned block."""

REPEATED_RUN = 1024
"""This many equal characters or more, such as the padding of a log, are cut into words of REPEATED_CHARACTERS, so that
the vocabulary is not spent on them. Rulers and indentation are shorter: the vocabulary of ordinary text stays."""
REPEATED_CHARACTERS = 32

_REPEATED = re.compile(rf"(.)\1{{{REPEATED_RUN - 1},}}", re.DOTALL)
_LETTER_OR_SPACE = re.compile(r"[^\W_]|\s")


def train_bpe(texts: Iterable[str], vocab_size: int) -> BytePairTokenizer:
    """Learns the merges from the first TRAINING_BYTES of the texts: 256 bytes, then merges in their order, then
    `<|endoftext|>`.

    Pairs seen only once are not merged, so a small corpus gives a smaller vocabulary than asked for. The same
    texts always give the same tokenizer. Raises ValueError when vocab_size is below 257.
    """
    if vocab_size < 257:
        raise ValueError(f"vocab_size must be at least 257, the 256 bytes and {EOT_TEXT}, not {vocab_size}")
    # Unset, the library prints a warning into the terminal whenever the process forks later.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CODE_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    beginning = _first_bytes(map(without_surrogates, texts))
    words_cut = (
        part
        for text in beginning
        for without_runs in _cut_runs(text)
        for part in uniform_parts(without_runs, WORD_CHARACTERS, _is_one_word)
    )
    trained.train_from_iterator(words_cut, trainer)
    return _with_byte_order(trained.get_vocab())


def _cut_runs(text: str) -> Iterator[str]:
    """The text, with runs of REPEATED_RUN equal characters in parts of REPEATED_CHARACTERS."""
    # The expression alone would take a second for the training text; every run fills an aligned block of this length.
    length = REPEATED_RUN // 2
    has_run = any(text[i : i + length] == text[i] * length for i in range(0, len(text) - length + 1, length))
    start = 0
    for match in _REPEATED.finditer(text) if has_run else ():
        yield text[start : match.start()]
        run = match.group()
        yield from (run[i : i + REPEATED_CHARACTERS] for i in range(0, len(run), REPEATED_CHARACTERS))
        start = match.end()
    yield text[start:]


def _is_one_word(block: str) -> bool:
    """Whether CODE_PATTERN leaves a block whole: nothing but letters, white space or symbols."""
    return block.isalpha() or block.isspace() or not _LETTER_OR_SPACE.search(block)


def _first_bytes(texts: Iterable[str]) -> Iterator[str]:
    """The beginning of the texts, TRAINING_BYTES of UTF-8 at most, cut at a whole character."""
    remaining = TRAINING_BYTES
    for text in texts:
        data = text.encode()
        if len(data) >= remaining:
            yield data[:remaining].decode(errors="ignore")
            return
        yield text
        remaining -= len(data)


def _with_byte_order(vocabulary: dict[str, int]) -> BytePairTokenizer:
    """The trained tokens: the single bytes in numeric order, then merges in the order they were learnt."""
    by_id = sorted(vocabulary, key=vocabulary.__getitem__)
    tokens = [bytes(BYTE_OF_CHARACTER[character] for character in token) for token in by_id]
    merged = [token for token in tokens if len(token) > 1]
    assert len(tokens) - len(merged) == 256
    ranks = {token: rank for rank, token in enumerate([*(bytes([i]) for i in range(256)), *merged])}
    return BytePairTokenizer("bpe", CODE_PATTERN, ranks, {EOT_TEXT: len(ranks)})
