"""`gpt2tui eval CHECKPOINT completions` and `continuation`: what a model writes against what was written there."""

import csv
import json

import numpy as np
import pytest
import torch
import transformers

from gpt2tui.__main__ import main
from gpt2tui.data.tokenizer_kinds import ByteTokenizer
from gpt2tui.evaluation.completions import halves
from gpt2tui.evaluation.text_scores import text_scores
from gpt2tui.run import folder as runs
from tests import tiny_runs
from tests.evaluation.random_gpt2 import random_gpt2

EOT = ByteTokenizer().eot


@pytest.fixture
def random_model(tmp_path):
    return random_gpt2(tmp_path / "random")


def greedy(folder, prompt, length):
    """What transformers writes after a prompt, most probable token by token, up to the end of the document."""
    model = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    ids = torch.tensor([list(prompt)])
    options = {"do_sample": False, "max_new_tokens": length, "eos_token_id": EOT, "pad_token_id": EOT}
    written = model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, ids.size(1) :].tolist()
    return bytes(token for token in written if token < 256).decode("utf-8", "replace").strip()


def measured(capsys, *words):
    assert main(["eval", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def write_rows(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.tsv"])
def test_completions_are_scored_as_transformers_writes_them(random_model, tmp_path, capsys, name):
    rows = [{"question": "The fox, said", "answer": "the fox"}, {"question": "2 + 2,", "answer": "is four"}]
    write_rows(tmp_path / name, [*rows, {"question": "not", "answer": "measured"}])
    columns = ["--prompt-column", "question", "--reference-column", "answer"]
    options = ["--data", tmp_path / name, *columns, "--max-length", 12, "--limit", 2]
    (result,) = measured(capsys, random_model, "completions", *options)["tasks"]
    written = [greedy(random_model, row["question"].encode(), 12) for row in rows]
    expected = text_scores(written, [row["answer"] for row in rows])
    defined = {name: value for name, value in expected.metrics.items() if value == value}
    assert {name: value for name, value in result["metrics"].items() if value is not None} == defined
    assert result["documents"] == 2
    assert result["signatures"] == expected.signatures


def test_the_second_half_of_a_texts_windows_is_the_reference(random_model, tmp_path, capsys):
    text = "The quick brown fox jumps over the lazy dog. " * 5
    (tmp_path / "text.txt").write_text(text)
    options = ["--text", tmp_path / "text.txt", "--context", 40, "--limit", 3]
    result = measured(capsys, random_model, "continuation", *options)["splits"]["text"]
    windows = [text[start : start + 40] for start in (0, 40, 120)]  # of five, spread evenly
    written = [greedy(random_model, window[:20].encode(), 20) for window in windows]
    expected = text_scores(written, [window[20:].strip() for window in windows]).metrics
    assert result["documents"] == 3
    assert {n: v for n, v in result["metrics"].items() if v is not None} == {
        n: v for n, v in expected.items() if v == v
    }


def test_a_reference_ends_with_its_document():
    tokens = np.array([*b"abcdef", EOT, *b"gh", EOT, *b"xyz"], dtype=np.uint16)
    found = halves(tokens, 6, 9, ByteTokenizer())
    assert [(bytes(each.prompt), each.reference) for each in found] == [(b"abc", "def")]  # then the next ends at once
    tokens = np.array([*b"abcde", EOT, *b"fghijk"], dtype=np.uint16)
    assert [each.reference for each in halves(tokens, 6, 9, ByteTokenizer())] == ["de", "ijk"]
    assert [each.reference for each in halves(tokens, 6, 9, ByteTokenizer(), longest=1)] == ["d", "i"]


def test_a_runs_own_validation_text_is_continued(tmp_path, capsys):
    trainer = tiny_runs.trainer(tmp_path, run=runs.create("tiny"))
    list(trainer.train())
    result = measured(capsys, trainer.run.folder, "continuation", "--limit", 2)
    assert result["is_training_corpus"] is True
    assert list(result["splits"]) == ["validation"]
    assert result["splits"]["validation"]["documents"] == 2
    assert main(["eval", str(trainer.run.folder), "continuation", "--limit", "2"]) == 0
    printed = capsys.readouterr().out
    assert "sacrebleu nrefs:1" in printed
    assert "without stemming" in printed


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["completions", "--data", "rows.csv"], 3, "row 1 has no text in the column prompt; its columns are a, b"),
        (["completions", "--text", "x"], 2, "the task completions does not go with --text"),
        (["continuation", "lambada"], 2, "the task continuation measures a text"),
        (["continuation", "--data", "x"], 2, "the task continuation does not go with --data"),
        (["continuation", "--text", "text.txt"], 3, "has no window of 64 tokens to continue; choose less --context"),
        (["continuation"], 2, "does not record what it was trained on"),
        (["lambada", "--max-length", "3"], 2, "the task lambada does not go with --max-length"),
        (["--limit", "3"], 2, "the loss does not go with --limit"),
        (["completions", "--limit", "0", "--data", "rows.csv"], 2, "--limit 0 measures nothing"),
    ],
)
def test_what_cannot_be_measured_is_said(random_model, tmp_path, monkeypatch, capsys, words, code, message):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.csv", [{"a": "1", "b": "2"}])
    (tmp_path / "text.txt").write_text("short")
    assert main(["eval", str(random_model), *words]) == code
    assert message in " ".join(capsys.readouterr().err.split())


def test_without_the_packages_nothing_is_loaded_and_one_line_says_how_to_install_them(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("gpt2tui.evaluation.text_scores.find_spec", lambda name: None)
    assert main(["eval", str(tmp_path), "continuation"]) == 2
    assert "pip install 'gpt2tui[metrics]'" in capsys.readouterr().err
