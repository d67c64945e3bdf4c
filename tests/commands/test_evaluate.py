"""`gpt2tui eval`: which text it measures, and the comparison with xz."""

import json
import lzma
import math
import re
import shutil
import sysconfig

import pytest
import torch
import transformers
from safetensors.torch import save_file

from gpt2tui.__main__ import main
from gpt2tui.data import tokenizers
from gpt2tui.data.corpora import open_corpus
from gpt2tui.data.corpus import stable_hash
from gpt2tui.data.text_files import TextFiles
from gpt2tui.data.tokenizer_kinds import ByteTokenizer
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


def printed_table(capsys):
    """The rows that `gpt2tui eval` prints, by label; the header's label is empty."""
    rows = [re.split(r"  +", line.rstrip()) for line in capsys.readouterr().out.splitlines()]
    return {label: values for label, *values in rows}


@pytest.fixture
def random_model(tmp_path):
    """A random GPT-2 with the byte tokenizer, in the form in which transformers saves it."""
    torch.manual_seed(0)
    folder = tmp_path / "random"
    config = transformers.GPT2Config(vocab_size=257, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    model = transformers.GPT2LMHeadModel(config)
    with torch.no_grad():
        for parameter in model.parameters():  # far from uniform, so that every token of context matters
            parameter.mul_(4)
    model.save_pretrained(folder)
    tokenizers.save(ByteTokenizer(), folder)
    return folder


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
    exported, _ = measured(capsys, saved, *source)
    tensors = checkpoint.load_tensors(saved / "model.safetensors")
    tensors["transformer.wpe.weight"][8:] = 1e3  # of positions that were never trained
    save_file(tensors, saved / "model.safetensors")
    again, _ = measured(capsys, saved, *source)
    assert again["splits"]["validation"]["loss"] == exported["splits"]["validation"]["loss"]


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
    printed = capsys.readouterr().out
    assert printed.count("validation") == printed.count("other text (validation)") == 1


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
    table = printed_table(capsys)
    assert table[""] == ["validation", "test"]
    assert table["xz, bits per byte"][1] == f"{test['xz_bits_per_byte']:.4f}"
    assert table["ratio to xz"][1] == f"{test['xz_ratio']:.2f}"
    assert table["ratio to xz after the training text"][1] == f"{test['xz_after_training_ratio']:.2f}"


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


def transformers_perplexity(folder, ids, max_length, stride):
    """exp of the mean loss, by the loop of the page "Perplexity of fixed-length models" in transformers' docs."""
    model = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    nll_sum, n_tokens, prev_end_loc = 0.0, 0, 0
    for begin_loc in range(0, len(ids), stride):
        end_loc = min(begin_loc + max_length, len(ids))
        trg_len = end_loc - prev_end_loc
        input_ids = torch.tensor([ids[begin_loc:end_loc]])
        target_ids = input_ids.clone()
        target_ids[:, :-trg_len] = -100
        with torch.no_grad():
            loss = model(input_ids, labels=target_ids).loss
        counted = int((target_ids[:, 1:] != -100).sum())
        nll_sum += float(loss) * counted if counted else 0.0
        n_tokens += counted
        prev_end_loc = end_loc
        if end_loc == len(ids):
            break
    return math.exp(nll_sum / n_tokens), n_tokens


@pytest.mark.parametrize(("context", "stride"), [(16, 16), (16, 5), (12, 1), (2, 2)])
def test_perplexity_of_a_text_equals_transformers_on_the_same_windows(random_model, tmp_path, capsys, context, stride):
    text = "Größe matters, said the fox, 2 times.\n" * 3
    file = tmp_path / "text.txt"
    file.write_text(text, encoding="utf-8")
    result, _ = measured(capsys, random_model, "--text", file, "--context", context, "--stride", stride)
    expected, count = transformers_perplexity(random_model, list(text.encode()), context, stride)
    assert result["perplexity"] == pytest.approx(expected, rel=1e-4)
    assert result["tokens"] == count
    assert (result["context"], result["stride"], result["precision"]) == (context, stride, "fp32")
    assert result["perplexity_per"] == "token"


def test_the_next_token_is_right_where_it_is_transformers_most_probable_one(tmp_path, capsys):
    folder = checkpoint.best(run_on(tmp_path) / "checkpoints").folder
    file = tmp_path / "text.txt"
    file.write_text((tmp_path / "words.txt").read_text()[:300])
    result, _ = measured(capsys, folder, "--text", file)
    ids = torch.tensor(list(file.read_bytes()))
    model = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    right = 0
    for begin in range(0, len(ids) - 1, 16):
        window = ids[begin : begin + 17]
        with torch.no_grad():
            right += int((model(window[None, :-1]).logits[0].argmax(-1) == window[1:]).sum())
    assert 0 < right < len(ids) - 1
    assert result["accuracy"] == pytest.approx(right / (len(ids) - 1))


def test_without_a_stride_all_tokens_but_the_first_are_predicted(random_model, tmp_path, capsys):
    file = tmp_path / "text.txt"
    file.write_text("Größe matters " * 5, encoding="utf-8")
    result, _ = measured(capsys, random_model, "--text", file)
    ids = file.read_bytes()
    model = transformers.GPT2LMHeadModel.from_pretrained(random_model).eval()
    nats = 0.0
    for begin in range(0, len(ids) - 1, 16):
        window = torch.tensor([list(ids[begin : begin + 17])])
        with torch.no_grad():
            logits = model(window[:, :-1]).logits
        nats += float(torch.nn.functional.cross_entropy(logits[0], window[0, 1:], reduction="sum"))
    assert result["tokens"] == result["bytes"] == len(ids) - 1
    assert result["perplexity"] == pytest.approx(math.exp(nats / (len(ids) - 1)), rel=1e-4)
    assert result["bits_per_byte"] == pytest.approx(nats / math.log(2) / (len(ids) - 1), rel=1e-4)
    assert (result["context"], result["stride"], result["windows"]) == (16, 16, "adjacent")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--context", "17"], "--context 17 is not between 2 and 16"),
        (["--context", "8", "--stride", "9"], "--stride 9 is not between 1 and the context, 8 tokens"),
        (["--stride", "0"], "--stride 0 is not between 1 and the context, 16 tokens"),
        (["--source", "x.txt"], "does not go with --source"),
    ],
)
def test_windows_that_cannot_be_are_usage_errors(random_model, tmp_path, capsys, options, message):
    file = tmp_path / "text.txt"
    file.write_text("some text")
    assert main(["eval", str(random_model), "--text", str(file), *options]) == 2
    assert message in capsys.readouterr().err


def test_too_little_memory_is_a_resource_error(random_model, tmp_path, capsys, monkeypatch):
    def full(*arguments, **options):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore")

    monkeypatch.setattr("gpt2tui.evaluation.loss_report.validation_loss", full)
    (tmp_path / "text.txt").write_text("some text")
    assert main(["eval", str(random_model), "--text", str(tmp_path / "text.txt")]) == 6
    assert "Tried to allocate 2 GiB); measure it on the CPU with --device cpu" in " ".join(
        capsys.readouterr().err.split()
    )


def test_a_text_of_one_token_is_a_data_error(random_model, tmp_path, capsys):
    file = tmp_path / "text.txt"
    file.write_text("a")
    assert main(["eval", str(random_model), "--text", str(file)]) == 3
    assert "has 1 tokens; at least 2 are needed" in capsys.readouterr().err


def test_a_file_is_never_called_validation_text(tmp_path, capsys):
    run = run_on(tmp_path)
    assert main(["eval", str(run), "--text", str(tmp_path / "words.txt")]) == 0
    output = capsys.readouterr()
    assert "validation" not in output.out
    assert "this is not its validation loss" in " ".join(output.err.split())
