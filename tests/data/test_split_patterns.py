"""The faster split gives tiktoken's own tokens with the pattern as it is."""

import pytest
import tiktoken
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpt2tui.data import tokenizer_kinds, tokenizers
from gpt2tui.data.bpe_training import train_bpe
from gpt2tui.data.corpora import open_corpus
from gpt2tui.data.split_patterns import CODE_PATTERN, PATTERNS, marked, without_lookahead
from gpt2tui.data.tokenizer_kinds import EOT_TEXT, BytePairTokenizer, gpt2_ranks
from gpt2tui.preset.schema import DataTable

SPACES = [" ", "\n", "\t", "\r", "\v", "\f", "\r\n", "    ", "\n\n\n"]
OTHER_SPACES = ["\x85", "\xa0", "\u1680", "\u2003", "\u2028", "\u202f", "\u205f", "\u3000"]
NO_SPACES = ["\0", "\x1c", "\x1f", "\u180e", "\u200b", "\ufeff"]  # of which Python calls some white space
VISIBLE = ["a", "the", "'s", "'ll", "'", "_", "0", "12345", "é", "語", "\u0300", "²", "😀", "!", "(", "..."]
TEXTS = st.lists(st.sampled_from(SPACES * 3 + VISIBLE * 2 + OTHER_SPACES + NO_SPACES), max_size=30).map("".join)


@pytest.fixture(scope="module", params=PATTERNS, ids=["gpt2", "code"])
def both(request):
    """Ours and tiktoken's with the same pattern and the vocabulary of GPT-2."""
    ours = BytePairTokenizer("bpe", request.param, gpt2_ranks(), {EOT_TEXT: 50256})
    assert ours._of_marked is not None
    return ours, tiktoken.Encoding(
        "reference", pat_str=request.param, mergeable_ranks=gpt2_ranks(), special_tokens={EOT_TEXT: 50256}
    )


@settings(max_examples=500, deadline=None)
@given(text=TEXTS)
@example(text="  ")
@example(text="a  ")
@example(text="\n\n\n  a   'll\n\n")
@example(text="a  \0  b")
@example(text="a \xa0 b  c")
@example(text="a  <|endoftext|>  b")
def test_the_tokens_are_those_of_the_whole_pattern(text, both):
    ours, reference = both
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer_kinds, "_LONG", 1)
        assert ours.encode(text) == reference.encode_ordinary(text)


@pytest.mark.parametrize("kind", ["gpt2", "bpe"])
def test_the_tokens_of_a_corpus_are_tiktokens(kind):
    documents = list(open_corpus(DataTable()).documents("validation"))
    assert any(marked(text) not in (text, None) for text in documents)
    ours = train_bpe(documents[:40], 1000) if kind == "bpe" else tokenizers.gpt2()
    reference = tiktoken.Encoding(
        "reference", pat_str=ours.pattern, mergeable_ranks=ours.ranks, special_tokens=ours.special_ids
    )
    for text, ids in zip(documents, ours.encode_documents(documents, threads=2), strict=True):
        assert ids.tolist() == reference.encode_ordinary(text)


def test_a_mark_stands_before_the_last_white_space_of_a_run():
    assert marked("def f():\n    return  1\n\n") == "def f():\n   \0 return \0 1\n\n"


@pytest.mark.parametrize("text", ["a\0b", "a\xa0 b", "\u3000\u3000x"])
def test_text_with_the_mark_or_other_white_space_is_not_marked(text):
    assert marked(text) is None


def test_only_the_own_patterns_have_a_way_without_look_ahead():
    assert without_lookahead(r"\s*[\r\n]+|\s+(?!\S)|\s+") is None
    assert all("(?!" not in without_lookahead(pattern) for pattern in PATTERNS)


def test_a_vocabulary_without_the_mark_is_split_by_the_whole_pattern():
    ranks = {bytes([byte]): byte - 1 for byte in range(1, 256)}
    ours = BytePairTokenizer("bpe", CODE_PATTERN, ranks, {EOT_TEXT: 255})
    assert ours._of_marked is None
    assert ours.decode(ours.encode("a  b" * 2000)) == "a  b" * 2000
