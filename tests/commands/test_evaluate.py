"""`gpt2tui eval`: which text it measures, and the comparison with xz."""

import json
import lzma
import math
import shutil
import sysconfig

import pytest
import torch
from safetensors.torch import save_file

from gpt2tui.__main__ import main
from gpt2tui.data.corpora import open_corpus
from gpt2tui.data.corpus import stable_hash
from gpt2tui.data.text_files import TextFiles
from gpt2tui.preset.schema import DataTable
from gpt2tui.run import checkpoint
from gpt2tui.run import folder as runs
from tests import tiny_runs


def run_on(folder, *overrides):
    """The folder of a finished tiny run."""
    trainer = tiny_runs.trainer(folder, *overrides, run=runs.create("tiny"))
    list(trainer.train())
    return trainer.run.folder


def measured(capsys, *arguments):
    """The JSON that `gpt2tui eval` prints, and its stderr."""
    assert main(["eval", *map(str, arguments), "--json"]) == 0
    output = capsys.readouterr()
    return json.loads(output.out), output.err


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A standard library of 60 small files: (name, text) by stable hash, lowest first."""
    root = tmp_path / "lib"
    root.mkdir()
    for i in range(10, 70):
        (root / f"module{i}.py").write_text(f"# this is the file {i}\n" * 20)
    get_path = sysconfig.get_path
    monkeypatch.setattr(
        sysconfig, "get_path", lambda name, *a, **k: str(root) if name == "stdlib" else get_path(name, *a, **k)
    )
    return sorted(((path.name, path.read_text()) for path in root.iterdir()), key=lambda file: stable_hash(file[0]))


def test_an_exported_model_is_measured_over_the_length_it_was_trained_with(tmp_path, capsys):
    folder = run_on(tmp_path, "training.sequence_length=8")
    saved = checkpoint.best(folder / "checkpoints").folder
    source = ["--source", tiny_runs.corpus_file(tmp_path), "--split", "validation"]
    for name in (checkpoint.MANIFEST, "trainer.json", "training_state.safetensors", "preset.toml"):
        (saved / name).unlink()
    tensors = checkpoint.load_tensors(saved / "model.safetensors")
    tensors["transformer.wpe.weight"][8:] = torch.nan
    save_file(tensors, saved / "model.safetensors")
    exported, _ = measured(capsys, saved, *source)
    assert math.isfinite(exported["splits"]["validation"]["loss"])


def test_the_runs_own_text_is_recognised(tmp_path, capsys):
    result, stderr = measured(capsys, run_on(tmp_path))
    assert result["is_training_corpus"] is True
    assert "gpt2tui:" not in stderr


def test_another_text_is_reported_and_never_called_the_validation_text_of_the_run(tmp_path, capsys):
    run = run_on(tmp_path)
    other = tmp_path / "other.txt"
    other.write_text("quite another text\n" * 200)
    result, stderr = measured(capsys, run, "--source", other)
    assert result["is_training_corpus"] is False
    assert f"{other} is not the text that" in stderr
    assert result["splits"]["validation"]["xz_after_training_bits_per_byte"] is None  # that text is not at hand
    assert main(["eval", str(run), "--source", str(other)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "bits/byte" in line and line.startswith("other text (validation) ")]
    assert not [line for line in lines if line.startswith("validation")]


def test_a_corpus_that_has_changed_since_is_another_text(tmp_path, capsys):
    run = run_on(tmp_path)
    corpus = tmp_path / "words.txt"
    corpus.write_text(corpus.read_text().replace("lazy", "busy"))
    result, stderr = measured(capsys, run)
    assert result["is_training_corpus"] is False
    assert "fingerprints differ" in stderr


def test_a_model_that_does_not_record_its_corpus_gets_no_warning(tmp_path, capsys):
    run = run_on(tmp_path)
    published = shutil.copytree(run / "checkpoints" / "step-00000012", tmp_path / "published")
    for name in ("MANIFEST.json", "preset.toml", "trainer.json", "training_state.safetensors"):
        (published / name).unlink()
    result, _ = measured(capsys, published, "--source", tmp_path / "words.txt")
    assert result["is_training_corpus"] is None


def test_the_test_split_is_measured_beside_the_validation_split_or_alone(tmp_path, library, capsys):
    run = run_on(tmp_path, "data.source=python-stdlib")
    both, _ = measured(capsys, run)
    assert set(both["splits"]) == {"validation", "test"}
    for split in both["splits"]:
        alone, _ = measured(capsys, run, "--split", split)
        assert alone["splits"] == {split: both["splits"][split]}
    test = both["splits"]["test"]
    text = "".join(text for _, text in sorted(library[-3:])).encode()  # 5 % of 60 files
    assert test["bytes"] == len(text) - 1  # the first token is not predicted
    assert test["xz_bits_per_byte"] == pytest.approx(8 * len(lzma.compress(text, preset=9)) / len(text), rel=0.2)
    assert test["xz_ratio"] == pytest.approx(test["bits_per_byte"] / test["xz_bits_per_byte"])
    corpus = open_corpus(DataTable(source="python-stdlib", tokenizer="byte"))
    training, text = ("".join(corpus.documents(split)).encode() for split in ("train", "test"))
    added = len(lzma.compress(training + text, preset=9)) - len(lzma.compress(training, preset=9))
    assert test["xz_after_training_bits_per_byte"] == pytest.approx(8 * added / len(text), abs=8 * 8 / len(text))
    assert test["xz_after_training_ratio"] == test["bits_per_byte"] / test["xz_after_training_bits_per_byte"]
    assert main(["eval", str(run)]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("test ")
    after = f"{test['xz_after_training_bits_per_byte']:.2f}, ratio {test['xz_after_training_ratio']:.2f}"
    assert f"xz {test['xz_bits_per_byte']:.2f}, ratio {test['xz_ratio']:.2f}; after the training text {after}" in line


def test_training_never_reads_the_test_split(tmp_path, library, capsys, monkeypatch):
    read = []
    pieces = TextFiles.pieces
    monkeypatch.setattr(TextFiles, "pieces", lambda self, split, *a: read.append(split) or pieces(self, split, *a))
    run = run_on(tmp_path, "data.source=python-stdlib", "data.validation_fraction=0.5")
    assert set(read) == {"train", "validation"}
    assert main(["eval", str(run)]) == 0
    assert "test" in read


def test_a_corpus_without_a_test_split_says_so(tmp_path, capsys):
    run = run_on(tmp_path)
    assert main(["eval", str(run), "--split", "test"]) == 3
    assert "has no test split; measure with --split validation" in capsys.readouterr().err
