"""The .bin files of llm.c and modded-nanogpt as a source."""

import struct

import numpy as np
import pytest

from gpt2tui.data import token_files
from gpt2tui.data.corpora import open_corpus
from gpt2tui.data.token_store import find_prepared, prepare
from gpt2tui.data.tokenizers import gpt2
from gpt2tui.errors import DataError, PresetError
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.schema import DataTable, ModelTable, Preset, TrainingTable
from tests.tiny_runs import finish

EOT = 50256
TEXTS = [f"Document {i} — déjà vu, with {i * i} words.\n" * 3 for i in range(30)]


def tokens_of(texts):
    """As llm.c's data scripts write them: end of text before each document."""
    return [token for text in texts for token in [EOT, *gpt2().encode(text)]]


def write_tokens(path, tokens, magic=20240520, version=1, count=None):
    """What `write_datafile` of llm.c's dev/data/data_common.py writes."""
    header = [magic, version, len(tokens) if count is None else count, *[0] * 253]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<256i", *header) + np.array(tokens, dtype="<u2").tobytes())
    return path


@pytest.fixture
def folder(tmp_path):
    write_tokens(tmp_path / "fineweb" / "fineweb_train_000001.bin", tokens_of(TEXTS[:10]))
    write_tokens(tmp_path / "fineweb" / "fineweb_train_000002.bin", tokens_of(TEXTS[10:25]))
    write_tokens(tmp_path / "fineweb" / "fineweb_val_000000.bin", tokens_of(TEXTS[25:]))
    return tmp_path / "fineweb"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GPT2TUI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def preset(source, **table):
    return Preset(
        model=ModelTable(),
        data=DataTable(source=str(source), **table),
        training=TrainingTable(sequence_length=16),
    )


def test_the_files_of_a_folder_are_one_text_and_val_is_the_validation_text(folder, cache):
    corpus = finish(prepare(preset(folder), cache))
    assert corpus.train[:].tolist() == tokens_of(TEXTS[:25])
    assert corpus.validation[:].tolist() == tokens_of(TEXTS[25:])
    assert corpus.train_bytes == sum(len(text.encode()) for text in TEXTS[:25])
    assert (corpus.train_documents, corpus.validation_documents) == (25, 5)
    assert corpus.tokenizer is gpt2()
    assert not (cache / "tokens").exists()
    assert find_prepared(preset(folder), cache).fingerprint == corpus.fingerprint


@pytest.mark.parametrize("place", ["fineweb/*.bin", "fineweb/fineweb_train_*.bin", "fineweb/fineweb_train_000001.bin"])
def test_a_glob_or_a_file_is_a_source_and_without_val_its_end_is_the_validation_text(place, folder, cache):
    corpus = finish(prepare(preset(folder.parent / place, validation_fraction=0.1), cache))
    if "*.bin" in place and "train" not in place:
        assert corpus.validation[:].tolist() == tokens_of(TEXTS[25:])
        return
    whole = tokens_of(TEXTS[:10] if "000001" in place else TEXTS[:25])
    cut = len(whole) - int(len(whole) * 0.1)
    assert (corpus.train[:].tolist(), corpus.validation[:].tolist()) == (whole[:cut], whole[cut:])


def test_as_text_the_tokens_are_the_documents(folder):
    corpus = open_corpus(DataTable(source=str(folder)))
    assert list(corpus.documents("train")) == TEXTS[:25]
    assert list(corpus.documents("validation")) == TEXTS[25:]


def test_text_that_is_cut_within_a_character_is_whole(folder, monkeypatch):
    monkeypatch.setattr(token_files, "_AT_ONCE", 1)
    assert list(open_corpus(DataTable(source=str(folder))).documents("train")) == TEXTS[:25]


def test_changed_tokens_are_another_corpus(folder, cache):
    before = finish(prepare(preset(folder), cache)).fingerprint
    write_tokens(folder / "fineweb_train_000001.bin", tokens_of(["another text\n" * 3, *TEXTS[1:10]]))
    assert finish(prepare(preset(folder), cache)).fingerprint != before
    write_tokens(folder / "fineweb_train_000001.bin", tokens_of(TEXTS[:10]))
    assert finish(prepare(preset(folder), cache)).fingerprint == before


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"magic": 20240801}, "tokens of Llama 3"),
        ({"magic": 7}, r"it begins with 7, and their magic number is 20240520"),
        ({"version": 2}, "version 2; version 1 can be read"),
        ({"count": 10**6}, r"says that it has 1,000,000 tokens, and has room for \d+: it is cut off"),
        ({"count": -1}, "cut off"),
        ({"tokens": [5, 50257, 6] * 50}, "its token 1 is 50,257, and the vocabulary ends at 50,256"),
    ],
)
def test_a_wrong_file_is_one_clear_message(wrong, message, folder, cache):
    path = folder / "fineweb_train_000002.bin"
    write_tokens(path, **{"tokens": tokens_of(TEXTS[10:25]), **wrong})
    with pytest.raises(DataError, match=message) as caught:
        finish(prepare(preset(folder), cache))
    assert str(path) in str(caught.value)


def test_a_file_without_a_header_is_named(tmp_path, cache):
    (tmp_path / "train.bin").write_bytes(b"12")
    with pytest.raises(DataError, match=r"train\.bin has 2 bytes, and the header of a token file alone has 1,024"):
        finish(prepare(preset(tmp_path / "train.bin"), cache))


def test_another_tokenizer_is_refused_with_the_reason(folder, cache):
    with pytest.raises(DataError, match=r"tokens of GPT-2's own vocabulary, and data.tokenizer is bpe"):
        finish(prepare(preset(folder, tokenizer="bpe"), cache))
    with pytest.raises(PresetError, match=r"data\.tokenizer: bpe is not gpt2, whose tokens are in files that end in"):
        preset_files.load(["small"], ["data.source=fineweb/*.bin"])


@pytest.mark.parametrize(
    ("table", "message"),
    [({"streaming": True}, "leave out data.streaming"), ({"messages_column": "m"}, "which have no columns")],
)
def test_what_token_files_cannot_have_is_refused(table, message, folder, cache):
    with pytest.raises(DataError, match=message):
        finish(prepare(preset(folder, **table), cache))


def test_a_folder_of_text_with_another_programs_bin_file_is_text(tmp_path):
    (tmp_path / "notes.txt").write_text("notes\n" * 100)
    (tmp_path / "model.bin").write_bytes(b"weights" * 1000)
    assert token_files.find(str(tmp_path)) is None
    write_tokens(tmp_path / "a_train_0.bin", tokens_of(TEXTS))
    (tmp_path / "model.bin").unlink()
    assert token_files.find(str(tmp_path)) == [tmp_path / "a_train_0.bin"]


def test_token_files_are_a_source_of_a_mix(folder, tmp_path, cache):
    (tmp_path / "notes.txt").write_text("notes and more notes\n" * 300)
    mix = [{"source": str(folder)}, {"source": str(tmp_path / "notes.txt")}]
    loaded = Preset(
        data=DataTable.model_validate({"mix": mix, "tokenizer": "gpt2"}), training=TrainingTable(sequence_length=16)
    )
    corpus = finish(prepare(loaded, cache))
    assert corpus.mix[0].train[:].tolist() == tokens_of(TEXTS[:25])
