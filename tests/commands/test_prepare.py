"""`gpt2tui prepare`: the tokens are there before the training asks for them."""

import json

import pytest

from gpt2tui.__main__ import main
from tests import tiny_runs

LOCAL = ("data.tokenizer=byte", "model.n_positions=16", "training.sequence_length=16")


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.setenv("GPT2TUI_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tiny_runs.corpus_file(tmp_path)


def test_what_is_prepared_is_what_the_training_reads(corpus, capsys):
    settings = [*LOCAL, "data.source=words.txt"]
    assert main(["prepare", "test", *settings]) == 0
    printed = capsys.readouterr()
    assert "training tokens and" in printed.out
    assert "tokenizing the training text" in printed.err
    (store,) = (corpus.parent / "cache" / "tokens").glob("*/meta.json")
    assert main(["prepare", "test", *settings, "--json"]) == 0
    printed = capsys.readouterr()
    (described,) = json.loads(printed.out)["sources"]
    assert described["train_tokens"] == json.loads(store.read_text())["splits"]["train"]["tokens"]
    assert "tokenizing" not in printed.err
    assert main(["train", "test", *settings, "--dry-run"]) == 0
    assert "words.txt: prepared" in capsys.readouterr().out


def test_each_source_of_a_mix_is_prepared(corpus, capsys):
    (corpus.parent / "other.txt").write_text("some other words\n" * 200)
    mix = '[{source="words.txt",weight=3},{source="other.txt"}]'
    assert main(["prepare", "test", *LOCAL, f"data.mix={mix}", "--json"]) == 0
    sources = json.loads(capsys.readouterr().out)["sources"]
    assert [each["source"].rpartition("/")[2] for each in sources] == ["words.txt", "other.txt"]


def test_a_preparation_has_at_least_one_process(corpus, capsys):
    assert main(["prepare", "test", "--processes", "0"]) == 2
    assert "at least 1 is needed" in capsys.readouterr().err
