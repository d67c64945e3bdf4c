import gzip
import hashlib
import json
import os
import random
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import tiktoken
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from gpt2tui.data import bpe_training, text_cuts, tokenizer_kinds, tokenizers
from gpt2tui.data.bpe_training import train_bpe
from gpt2tui.data.split_patterns import CODE_PATTERN
from gpt2tui.data.tokenizer_files import merges_of
from gpt2tui.data.tokenizer_kinds import BYTE_OF_CHARACTER, CHARACTER_OF_BYTE, without_surrogates
from gpt2tui.data.tokenizers import IncrementalDecoder
from gpt2tui.errors import CheckpointError
from gpt2tui.preset.schema import DataTable

KINDS = ["gpt2", "bpe", "char", "byte"]

TEXT = (
    'def greet(self, name=\'world\'):\n    """Say hello."""\n    return self.names[12345] + _x1\n\n\n'
    "It's déjà vu: 日本語, Ελληνικά, 🤖🏳️‍🌈, ½ of ٣٤٥٦, don't\t tab  \n   \n  end   "
) * 3

# Every script, white space and control characters that tokenizers are known to disagree about.
ODD_TEXTS = [
    "",
    " ",
    "\n\n\n",
    "a\r\nb\rc",
    "\x00\x07\x1b[0m\x1c\x85\xa0\u2028\u200b\u3000x",
    "   leading and trailing   ",
    "e\u0301 combining, \u0928\u092e\u0938\u094d\u0924\u0947",
    "<|endoftext|> is text, <|endoftext|>too",
    "1234567 x1y22 3.14159 １２３４",
]


def build(kind, text=TEXT, vocab_size=None):
    return tokenizers.build(DataTable(tokenizer=kind), vocab_size, [text])


@pytest.fixture(params=KINDS)
def tokenizer(request):
    return build(request.param)


def test_gpt2_tokens_are_the_published_ones():
    gpt2 = tokenizers.gpt2()
    assert gpt2.encode("hello world") == [31373, 995]
    assert (gpt2.vocab_size, gpt2.eot) == (50257, 50256)


@pytest.mark.slow
def test_gpt2_merges_have_the_checksum_that_tiktoken_pins():
    merges = merges_of(tokenizer_kinds.gpt2_ranks())
    lines = [" ".join("".join(CHARACTER_OF_BYTE[byte] for byte in side) for side in pair) for pair in merges]
    text = "\n".join(["#version: 0.2", *lines, ""])
    pinned = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
    assert hashlib.sha256(text.encode()).hexdigest() == pinned


def test_a_damaged_vocabulary_asset_is_refused(monkeypatch, tmp_path):
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "gpt2.tiktoken.gz").write_bytes(gzip.compress(b"IQ== 0\n"))
    monkeypatch.setattr("importlib.resources.files", lambda package: tmp_path)
    with pytest.raises(RuntimeError, match="damaged"):
        tokenizer_kinds.gpt2_ranks.__wrapped__()


@pytest.mark.parametrize("text", [TEXT, *ODD_TEXTS])
def test_decoding_gives_back_the_text(tokenizer, text):
    if tokenizer.name == "char":
        text = "".join(character for character in text if character in TEXT)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("text", [TEXT, *ODD_TEXTS])
def test_end_of_text_is_never_parsed_out_of_a_text(tokenizer, text):
    assert tokenizer.eot not in tokenizer.encode(text)


def test_token_bytes_add_up_to_the_text(tokenizer):
    ids = tokenizer.encode(TEXT)
    lengths = tokenizer.token_bytes()
    assert lengths.shape == (tokenizer.vocab_size,)
    assert lengths[ids].sum() == len(TEXT.encode())
    assert lengths[tokenizer.eot] == 0


def test_encoding_in_parallel_is_encoding_one_by_one(tokenizer):
    texts = [TEXT * n for n in (1, 0, 700, 3, 400)]
    together = tokenizer.encode_documents(texts, threads=3)
    assert [ids.tolist() for ids in together] == [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_documents([], threads=3) == []


def test_ids_beyond_the_vocabulary_decode_to_the_replacement_character(tokenizer):
    assert tokenizer.decode([tokenizer.vocab_size + 3, -1]) == "\ufffd\ufffd"


def test_lone_surrogates_become_the_replacement_character(tokenizer):
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"


def test_bpe_vocabulary_is_bytes_then_merges_then_end_of_text():
    bpe = build("bpe", TEXT, 300)
    assert bpe.vocab_size == 300
    assert bpe.eot == 299
    assert bpe.token_table[:256] == tuple(bytes([i]) for i in range(256))


def test_bpe_of_a_small_corpus_is_smaller_than_asked_for():
    assert 257 <= build("bpe", "abc abc", 1000).vocab_size < 300


def test_bpe_of_no_text_is_bytes():
    assert train_bpe([], 4096).vocab_size == 257


def test_bpe_below_the_bytes_is_refused():
    with pytest.raises(ValueError, match="257"):
        train_bpe([TEXT], 256)


@pytest.mark.parametrize("word", ["x" * 3000, "ACGT" * 750, "-" * 3000, " " * 3000, "語" * 3000])
def test_bpe_training_cuts_words_whose_length_it_takes_the_square_of(word):
    bpe = train_bpe([TEXT, word, TEXT], 4096)
    assert max(len(token.decode(errors="ignore")) for token in bpe.ranks) <= 255


def test_bpe_training_learns_what_tokenizers_alone_learns_where_no_word_is_long():
    words = ["", "abcdefgh" * 15, "_" * 100, " " * 127, "=" * 127, "日本" * 60]
    texts = [f"{TEXT}{word} {TEXT}" for word in words for _ in range(2)]
    reference = Tokenizer(models.BPE())
    reference.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CODE_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=999, min_frequency=2, initial_alphabet=alphabet, show_progress=False)
    reference.train_from_iterator(texts, trainer)
    expected = {
        bytes(BYTE_OF_CHARACTER[character] for character in token): rank
        for token, rank in reference.get_vocab().items()
    }
    learnt = train_bpe(texts, 1000).ranks
    assert sorted(learnt, key=learnt.get)[256:] == sorted(expected, key=expected.get)[256:]
    assert len(learnt) > 300


@pytest.mark.parametrize(("first", "is_read"), [("é" * 200, False), ("é" * 199, True), ("e" * 399, True)])
def test_bpe_training_reads_so_many_bytes_and_not_characters(first, is_read, monkeypatch):
    monkeypatch.setattr(bpe_training, "TRAINING_BYTES", 400)
    read = []
    train_bpe((read.append(text) or text for text in (first, "q" * 100, "never")), 300)
    assert ("q" * 100 in read) == is_read
    assert "never" not in read


def test_bpe_training_stops_at_a_whole_character(monkeypatch):
    monkeypatch.setattr(bpe_training, "TRAINING_BYTES", 7)
    assert list(bpe_training._first_bytes(["ab", "語語語"])) == ["ab", "語"]


def test_bpe_training_is_the_same_in_another_process():
    code = (
        "import sys; from gpt2tui.data.bpe_training import train_bpe;"
        "print(hash(tuple(train_bpe([sys.argv[1]], 330).token_table)))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code, TEXT],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": "1", "RAYON_NUM_THREADS": threads},
        ).stdout
        for threads in ("1", "3")
    ]
    assert runs[0] == runs[1] != ""


def test_char_vocabulary_is_the_sorted_characters():
    char = build("char", "banana")
    assert char.characters == "abn\ufffd"
    assert (char.vocab_size, char.eot) == (5, 4)
    assert char.encode("nab!") == [2, 0, 1, 3]


def test_characters_never_seen_become_one_replacement_each():
    assert build("char", "ab").decode(build("char", "ab").encode("a🤖b~")) == "a\ufffdb\ufffd"


def test_a_character_never_seen_counts_as_the_one_byte_it_has_at_least():
    char = build("char", "abé")
    assert char.token_bytes()[char.encode("aé🤖")].tolist() == [1, 2, 1]


@pytest.mark.parametrize("kind", KINDS)
def test_reloaded_tokenizer_gives_the_same_tokens(kind, tmp_path):
    saved = build(kind)
    tokenizers.save(saved, tmp_path)
    loaded = tokenizers.load(tmp_path)
    assert (loaded.name, loaded.vocab_size, loaded.eot) == (saved.name, saved.vocab_size, saved.eot)
    assert loaded.token_table == saved.token_table
    for text in (TEXT, *ODD_TEXTS):
        assert loaded.encode(text) == saved.encode(text)


@pytest.mark.parametrize("kind", KINDS)
def test_auto_tokenizer_gives_our_tokens(kind, tmp_path):
    from transformers import AutoTokenizer

    ours = build(kind)
    tokenizers.save(ours, tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}')
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert len(theirs) == ours.vocab_size
    assert theirs.eos_token_id == ours.eot
    for text in (TEXT, *ODD_TEXTS):
        # They do parse <|endoftext|> out of text.
        text = text.replace("<|endoftext|>", "")
        assert theirs(text)["input_ids"] == ours.encode(text)
        assert theirs.decode(ours.encode(text)) == ours.decode(ours.encode(text))


@pytest.mark.slow
def test_published_vocab_json_and_merges_txt_give_the_published_tokens(tmp_path):
    from transformers import GPT2Tokenizer

    gpt2 = tokenizers.gpt2()
    write_published_files(tmp_path, gpt2)
    theirs = GPT2Tokenizer.from_pretrained(tmp_path)
    ours = tokenizers.load(tmp_path)
    for text in (TEXT, *ODD_TEXTS):
        text = text.replace("<|endoftext|>", "")
        assert ours.encode(text) == gpt2.encode(text) == theirs(text)["input_ids"]


def test_published_tokenizer_json_alone_is_enough(tmp_path):
    tokenizers.save(tokenizers.gpt2(), tmp_path)
    (tmp_path / "gpt2tui_tokenizer.json").unlink()
    loaded = tokenizers.load(tmp_path)
    assert loaded.encode("hello world") == [31373, 995]


def write_published_files(folder, gpt2):
    def printable(token):
        return "".join(CHARACTER_OF_BYTE[byte] for byte in token)

    vocabulary = {printable(token): i for token, i in gpt2.ranks.items()} | {"<|endoftext|>": 50256}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    merges = [f"{printable(left)} {printable(right)}" for left, right in merges_of(gpt2.ranks)]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("tokenizer.json", "cut"),
        ("tokenizer.json", "empty"),
        ("tokenizer.json", "flipped"),
        ("tokenizer.json", "missing"),
        ("gpt2tui_tokenizer.json", "cut"),
        ("gpt2tui_tokenizer.json", "empty"),
        ("gpt2tui_tokenizer.json", "flipped"),
    ],
)
def test_a_damaged_tokenizer_is_a_checkpoint_error(kind, file, damage, tmp_path):
    tokenizers.save(build(kind), tmp_path)
    path = tmp_path / file
    data = path.read_bytes()
    match damage:
        case "cut":
            path.write_bytes(data[: len(data) // 2])
        case "empty":
            path.write_bytes(b"")
        case "flipped":
            path.write_bytes(bytes([data[0] ^ 0x80]) + data[1:])
        case "missing":
            path.unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        tokenizers.load(tmp_path)


@pytest.mark.parametrize(
    "definition",
    [
        {"model": {"type": "Unigram", "vocab": []}},
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "pre_tokenizer": None},
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "pre_tokenizer": {"type": "ByteLevel"}},
        {"model": "BPE"},
        {},
        [],
    ],
)
def test_other_tokenizers_are_refused_in_one_sentence(definition, tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        tokenizers.load(tmp_path)


def set_pattern(definition, pattern):
    definition["pre_tokenizer"]["pretokenizers"][0]["pattern"] = pattern


def test_a_pattern_whose_search_does_not_end_is_an_error_of_the_checkpoint(tmp_path):
    tokenizers.save(build("bpe"), tmp_path)
    (tmp_path / "gpt2tui_tokenizer.json").unlink()
    definition = json.loads((tmp_path / "tokenizer.json").read_text())
    set_pattern(definition, {"Regex": "(a+)+$"})
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition))
    with pytest.raises(CheckpointError, match="cannot encode this text"):
        tokenizers.load(tmp_path).encode("a" * 60 + "c")


PROMPTS = (
    "<|user|> hello <|bot|>",
    "a word  and  another",
    "<|endoftext|>x</s>y",
    " [PAD]word HELLO WORD",
    "\ud800 é語🤖\n\n  x",
    "",
)


def foreign_folder(folder, *, pre_tokenizer="byte-level", eos="<|endoftext|>", files="json"):
    """A byte-level BPE with added tokens of all kinds, saved by transformers, and AutoTokenizer of it."""
    import tokenizers as library
    from transformers import AddedToken, AutoTokenizer, GPT2Tokenizer, PreTrainedTokenizerFast

    backend = library.Tokenizer(library.models.BPE())
    split = library.pre_tokenizers.Split(library.Regex(CODE_PATTERN), "isolated")
    byte_level = library.pre_tokenizers.ByteLevel(
        add_prefix_space=pre_tokenizer == "prefix", use_regex=pre_tokenizer != "split"
    )
    backend.pre_tokenizer = (
        library.pre_tokenizers.Sequence([split, byte_level]) if pre_tokenizer == "split" else byte_level
    )
    if pre_tokenizer == "lowercase":
        backend.normalizer = library.normalizers.Lowercase()
    backend.decoder = library.decoders.ByteLevel()
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    trainer = library.trainers.BpeTrainer(
        vocab_size=330, special_tokens=[eos], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([TEXT], trainer)
    if files == "json":
        theirs = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=eos)
    else:
        vocab, merges = backend.model.save(str(folder))
        theirs = GPT2Tokenizer(vocab, merges, eos_token=eos, bos_token=eos, unk_token=eos)
    theirs.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|bot|>"], "pad_token": "[PAD]"})
    theirs.add_tokens([AddedToken("word", lstrip=True, rstrip=True, normalized=True), "another"])
    theirs.add_tokens([AddedToken("HELLO", single_word=True, normalized=False)])
    theirs.save_pretrained(folder)
    if files == "vocab and merges":
        (folder / "tokenizer.json").unlink()
        backend.model.save(str(folder))
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("pre_tokenizer", ["byte-level", "prefix", "split", "lowercase"])
@pytest.mark.parametrize("eos", ["<|endoftext|>", "</s>"])
def test_a_tokenizer_of_another_program_gives_autotokenizers_ids(pre_tokenizer, eos, tmp_path):
    theirs = foreign_folder(tmp_path, pre_tokenizer=pre_tokenizer, eos=eos)
    ours = tokenizers.load(tmp_path)
    assert ours.eot == theirs.eos_token_id
    for text in PROMPTS:
        valid = without_surrogates(text)
        ids = theirs(valid, add_special_tokens=False)["input_ids"]
        assert ours.encode(text) == ids
        assert ours.decode(ids) == theirs.decode(ids, clean_up_tokenization_spaces=False)
    assert 256 < theirs.convert_tokens_to_ids("<|user|>") == ours.encode("<|user|>")[-1]


def test_added_tokens_beside_vocab_json_and_merges_txt_are_tokens(tmp_path):
    theirs = foreign_folder(tmp_path, files="vocab and merges")
    texts = dict(theirs.get_added_vocab())
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    for ours in (tokenizers.load(tmp_path), None):
        if ours is None:  # as older versions of transformers wrote it
            config.pop("added_tokens_decoder", None)
            (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
            (tmp_path / "added_tokens.json").write_text(json.dumps(texts))
            ours = tokenizers.load(tmp_path)
        for text in ("<|user|> hello <|bot|>", "an [PAD] another x"):
            assert ours.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]


HOSTILE = {
    "an invalid regex": lambda d: set_pattern(d, {"Regex": "("}),
    "a pattern that is a number": lambda d: set_pattern(d, 5),
    "a special id below zero": lambda d: d["added_tokens"][0].update(id=-5),
    "an absurd special id": lambda d: d["added_tokens"][0].update(id=2 * 10**9),
    "an absurd special id in both places": lambda d: (
        d["added_tokens"][0].update(id=2 * 10**9),
        d["model"]["vocab"].update({"<|endoftext|>": 2 * 10**9}),
    ),
    "two ids of one special token": lambda d: d["added_tokens"][0].update(id=3),
    "a special id that is true": lambda d: d["added_tokens"].append({"id": True, "content": "<x>"}),
    "a special token of no text": lambda d: d["added_tokens"].append({"id": 300, "content": ""}),
    "a special token that is null": lambda d: d["added_tokens"].append({"id": 300, "content": None}),
    "a special token that is not Unicode": lambda d: d["added_tokens"].append({"id": 300, "content": "\ud800"}),
    "a special token that is a list": lambda d: d["added_tokens"].append({"id": 300, "content": []}),
    "an absurd id": lambda d: d["model"]["vocab"].update(a=2 * 10**9),
    "an id below zero": lambda d: d["model"]["vocab"].update(a=-1),
    "an id that is text": lambda d: d["model"]["vocab"].update(a="97"),
    "an id with a fraction": lambda d: d["model"]["vocab"].update(a=97.0),
    "an id of 400 digits": lambda d: d["model"]["vocab"].update(a=10**400),
    "an id of two tokens": lambda d: d["model"]["vocab"].update(a=d["model"]["vocab"]["b"]),
    "a byte that is missing": lambda d: d["model"]["vocab"].pop("a"),
    "an empty token": lambda d: d["model"]["vocab"].update({"": 300}),
    "a vocabulary that is a list": lambda d: d["model"].update(vocab=[]),
    "a merge of one part": lambda d: d["model"]["merges"].append(["a"]),
    "a merge of one part as text": lambda d: d["model"]["merges"].append("a"),
    "a merge of three parts": lambda d: d["model"]["merges"].append(["a", "b", "c"]),
    "a merge of numbers": lambda d: d["model"]["merges"].append([1, 2]),
    "a merge that is null": lambda d: d["model"]["merges"].append(None),
    "a merge of nothing": lambda d: d["model"]["merges"].append(["", "a"]),
    "merges that are a number": lambda d: d["model"].update(merges=5),
}


@pytest.mark.parametrize("damage", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_byte_pairs_are_refused_without_taking_memory(damage, tmp_path):
    tokenizers.save(build("bpe"), tmp_path)
    (tmp_path / "gpt2tui_tokenizer.json").unlink()
    path = tmp_path / "tokenizer.json"
    definition = json.loads(path.read_text())
    damage(definition)
    path.write_text(json.dumps(definition))
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=r"tokenizer\.json") as caught:
            tokenizers.load(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 50 << 20
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < len(str(path)) + 200


@pytest.mark.parametrize(
    "vocabulary",
    [
        {"ab": 0, "\ufffd": 1},
        {"a": 0, chr(0xD800): 1, "\ufffd": 2},
        {"a": 1, "b": 0, "\ufffd": 2},
        {"a": 2 * 10**9, "\ufffd": 1},
        {"a": None},
        ["a"],
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["char", "chars", 5, []], ids=str)
def test_hostile_characters_and_kinds_are_refused(kind, vocabulary, tmp_path):
    tokenizers.save(build("char", "ab"), tmp_path)
    definition = json.loads((tmp_path / "tokenizer.json").read_text())
    definition["model"]["vocab"] = vocabulary
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition))
    own = json.loads((tmp_path / "gpt2tui_tokenizer.json").read_text())
    own |= {"kind": kind, "sha256": hashlib.sha256((tmp_path / "tokenizer.json").read_bytes()).hexdigest()}
    (tmp_path / "gpt2tui_tokenizer.json").write_text(json.dumps(own))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        tokenizers.load(tmp_path)


@pytest.mark.parametrize(
    ("merges", "a"),
    [("#version: 0.2\na\n", 0), ("a b c\n", 0), ("", -5), ("", 2 * 10**9), ("", "x"), ("", None)],
)
def test_hostile_vocab_json_and_merges_txt_are_refused(merges, a, tmp_path):
    vocabulary = {character: i for i, character in enumerate([*CHARACTER_OF_BYTE, "<|endoftext|>"])}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("")
    assert tokenizers.load(tmp_path).vocab_size == 257
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary if a == 0 else vocabulary | {"a": a}))
    (tmp_path / "merges.txt").write_text(merges)
    with pytest.raises(CheckpointError, match=r"vocab\.json"):
        tokenizers.load(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "gpt2tui_tokenizer.json"])
def test_a_tokenizer_file_that_never_ends_is_refused(name, tmp_path):
    tokenizers.save(build("byte"), tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match="not a regular file"):
        tokenizers.load(tmp_path)


def test_a_folder_without_tokenizer_is_a_checkpoint_error(tmp_path):
    with pytest.raises(CheckpointError, match="no tokenizer"):
        tokenizers.load(tmp_path)


@pytest.mark.parametrize("character", ["a", " ", "\n", "=", "1", "é", "語"])
def test_a_run_of_a_million_equal_characters_is_encoded(character):
    gpt2 = tokenizers.gpt2()
    ids = gpt2.encode(character * 1_000_000)
    assert gpt2.decode(ids) == character * 1_000_000


@pytest.mark.parametrize("kind", ["gpt2", "bpe"])
def test_long_words_and_long_white_space_give_tiktokens_own_tokens(kind):
    tokenizer = build(kind)
    reference = tiktoken.Encoding(
        kind, pat_str=tokenizer.pattern, mergeable_ranks=tokenizer.ranks, special_tokens=tokenizer.special_ids
    )
    dna = "".join(random.Random(0).choices("ACGT", k=20_000))
    for text in (
        "x" * 20_000,
        dna,
        "-=" * 10_000,
        "é" * 20_000,
        " " * 200_000 + "x",
        "a" + "\n" * 200_000,
        "7" * 20_000,
    ):
        assert tokenizer.encode(text) == reference.encode_ordinary(text)


def test_text_without_uniform_blocks_is_not_cut_up():
    text = TEXT * 500
    assert list(text_cuts.uniform_parts(text, 128, str.isspace)) == [text]


def test_uniform_parts_join_to_the_text_and_leave_no_long_run():
    text = "word " * 300 + "x" * 10_000 + " " + "\n" * 9_000 + "word " * 3000
    parts = list(text_cuts.uniform_parts(text, 2048, str.isspace))
    assert "".join(parts) == text
    assert any("x" * 10_000 in part for part in parts)
    assert all("\n" * 4096 not in part for part in parts)


@pytest.mark.parametrize("kind", ["gpt2", "bpe"])
@pytest.mark.parametrize("length", [50, 64, 257])
def test_tokens_of_the_parts_are_the_tokens_of_the_whole(kind, length):
    tokenizer = build(kind)
    for text in (TEXT, *ODD_TEXTS):
        parts = list(text_cuts.parts(text, length))
        assert "".join(parts) == text
        assert [i for part in parts for i in tokenizer.encode(part)] == tokenizer.encode(text)


def test_incremental_decoder_gives_out_whole_characters_only():
    decoder = IncrementalDecoder(build("byte"))
    given = [decoder.feed([byte]) for byte in "é🤖!".encode()]
    assert given == ["", "é", "", "", "", "🤖", "!"]
    assert decoder.flush() == ""


def test_incremental_decoder_flushes_an_unfinished_character_as_replacement():
    decoder = IncrementalDecoder(build("byte"))
    assert decoder.feed([0xF0, 0x9F]) == ""
    assert decoder.flush() == "\ufffd"


def test_incremental_decoding_joins_to_the_decoded_text(tokenizer):
    ids = np.random.default_rng(0).integers(0, tokenizer.vocab_size, 500).tolist()
    decoder = IncrementalDecoder(tokenizer)
    assert "".join(decoder.feed([i]) for i in ids) + decoder.flush() == tokenizer.decode(ids)


@pytest.mark.parametrize("character", [" ", "=", "a", "語"])
def test_a_long_run_of_one_character_becomes_short_tokens(character):
    ruler = "# " + "-" * 70 + "\n"
    words = "".join(f"line {i}: the quick brown fox\n{ruler}" for i in range(200))
    trained = train_bpe([words + character * 20_000 + "\n" + words], 1024)
    longest = max((trained.decode([i]) for i in range(trained.vocab_size - 1)), key=lambda text: text.count(character))
    assert longest.count(character) <= 32
    assert any(trained.decode([i]).count("-") >= 70 for i in range(trained.vocab_size - 1))  # as in ordinary text
