"""`--dry-run`: which mistakes in a corpus or a run it finds before training."""

import json
import tomllib

import pytest

from gpt2tui.__main__ import main
from gpt2tui.data.corpora import open_corpus
from gpt2tui.data.corpus_check import LARGE_BYTES, check_beginning
from gpt2tui.data.token_store import prepare
from gpt2tui.errors import DataError
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.schema import DataTable
from gpt2tui.system.files import cache_folder
from tests import tiny_runs
from tests.data.corpus_files import write, write_rows


@pytest.fixture
def dry_run(capsys):
    """Runs `--headless --dry-run` with these arguments; returns its exit code, its document and its stderr."""

    def run(*arguments):
        code = main(["--headless", "--dry-run", "--json", *map(str, arguments)])
        captured = capsys.readouterr()
        return code, json.loads(captured.out) if code == 0 else None, captured.err

    return run


def sets(*settings):
    return [word for setting in settings for word in ("--set", setting)]


def real_error(source, **training):
    """The message with which a real run refuses the corpus."""
    settings = [f"data.source={source}", *(f"training.{key}={value}" for key, value in training.items())]
    preset = preset_files.load(["default"], ["data.tokenizer=byte", *settings]).preset
    with pytest.raises(DataError) as caught:
        tiny_runs.finish(prepare(preset, cache_folder()))
    return str(caught.value)


def test_a_vocabulary_that_the_preset_names_counts_although_the_text_has_fewer_tokens(dry_run, tmp_path):
    path = write(tmp_path / "short.txt", b"the quick brown fox\n" * 300)
    settings = [f"data.source={path}", "data.tokenizer=bpe", "model.vocab_size=1024", "training.sequence_length=8"]
    _, before, _ = dry_run("--preset", "test", *sets(*settings))
    corpus = tiny_runs.finish(prepare(preset_files.load(["test"], settings).preset, cache_folder()))
    assert corpus.tokenizer.vocab_size < 1024
    _, after, _ = dry_run("--preset", "test", *sets(*settings))
    assert after["data"]["state"] == "prepared"
    assert before["vocab_size"] == after["vocab_size"] == 1024
    assert before["estimate"]["parameters"] == after["estimate"]["parameters"]


def test_text_that_is_not_utf8_is_found_as_in_a_real_run(dry_run, tmp_path):
    path = write(tmp_path / "latin.txt", "d\u00e9j\u00e0 vu\n".encode("latin-1") * 5000)
    code, _, message = dry_run("--preset", "default", *sets(f"data.source={path}"))
    assert code == 3
    assert f"{path} is not UTF-8 text: line 1, the byte at offset 1 " in message
    assert real_error(path).startswith(f"{path} is not UTF-8 text: line 1, the byte at offset 1 ")


def test_a_later_file_that_is_not_utf8_is_found(dry_run, tmp_path):
    for i in range(30):
        write(tmp_path / "corpus" / f"{i:02}.txt", "good text\n" * 500)
    write(tmp_path / "corpus" / "99.txt", b"\xff" * 5000)
    code, _, message = dry_run("--preset", "default", *sets(f"data.source={tmp_path / 'corpus'}"))
    assert code == 3
    assert "99.txt is not UTF-8" in message


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_rows_without_text_are_found(dry_run, kind, tmp_path):
    path = write_rows(tmp_path / f"blank.{kind}", ["", ""])
    code, _, message = dry_run("--preset", "default", *sets(f"data.source={path}"))
    assert code == 3
    assert real_error(path) in message
    assert "they have no text in column text" in message


def test_a_corpus_that_is_certainly_shorter_than_a_window_is_found(dry_run, tmp_path):
    path = write(tmp_path / "short.txt", "0123456789\n" * 10)
    code, _, message = dry_run("--preset", "default", *sets(f"data.source={path}", "training.sequence_length=64"))
    assert code == 3
    assert "short.txt is too short: at most 6 validation tokens, and one window is 65" in message
    assert message.strip().endswith(real_error(path, sequence_length=64).partition(", and one window")[2])


def test_a_window_that_just_fits_passes_here_and_in_the_real_run(tmp_path):
    # 104 bytes for training and 6 for validation, each with its <|endoftext|>
    corpus = open_corpus(DataTable(source=str(write(tmp_path / "short.txt", "0123456789\n" * 10)), tokenizer="byte"))
    check_beginning(corpus, 6, streaming=False)
    with pytest.raises(DataError, match="validation tokens"):
        check_beginning(corpus, 7, streaming=False)


def test_a_prepared_corpus_shorter_than_a_window_is_found(dry_run, tmp_path):
    path = write(tmp_path / "short.txt", "0123456789\n" * 100)
    settings = [f"data.source={path}", "data.tokenizer=byte"]
    tiny_runs.finish(
        prepare(preset_files.load(["default"], [*settings, "training.sequence_length=8"]).preset, cache_folder())
    )
    code, document, _ = dry_run("--preset", "default", *sets(*settings, "training.sequence_length=8"))
    assert (code, document["data"]["state"]) == (0, "prepared")
    code, _, message = dry_run("--preset", "default", *sets(*settings, "training.sequence_length=512"))
    assert code == 3
    assert real_error(path, sequence_length=512) in message


def test_validation_rows_of_a_large_corpus_are_not_looked_for(tmp_path, monkeypatch):
    corpus = open_corpus(DataTable(source=str(write(tmp_path / "short.txt", "0123456789\n" * 10))))
    monkeypatch.setattr(corpus, "size", lambda split: LARGE_BYTES + 1)
    check_beginning(corpus, 65, streaming=False)
    with pytest.raises(DataError, match="training tokens"):
        check_beginning(corpus, 650, streaming=False)


def test_resume_is_a_dry_run_of_the_runs_own_preset(dry_run, tmp_path):
    trainer = tiny_runs.trainer(tmp_path, "training.num_iterations=4")
    for _ in trainer.train():
        pass
    code, document, _ = dry_run("--resume", trainer.run.folder, *sets("training.num_iterations=9"))
    assert code == 0
    expected = trainer.preset.model_dump()
    expected["training"]["num_iterations"] = 9
    assert document["resolved"] == expected
    assert document["preset"] == "tiny"

    trainer.run.preset_file.write_text("what a run is resumed from is its newest checkpoint")
    code, _, message = dry_run("--resume", trainer.run.folder, *sets("model.n_layer=7", "training.num_iterations=9"))
    assert code == 4  # as the run itself would end
    assert "model.n_layer: the run has 2, the preset 7" in message

    for weights in trainer.run.checkpoints.glob("*/model.safetensors"):
        weights.write_bytes(b"damaged")
    code, _, message = dry_run("--resume", trainer.run.folder)
    assert code == 4
    assert "has no valid checkpoint" in message


def test_the_estimate_comes_last_and_the_settings_only_when_asked_for(tmp_path, capsys):
    words = ["--dry-run", "--preset", "default", *sets(*tiny_runs.options(tmp_path))]
    assert main(words) == 0  # without --headless
    plain = capsys.readouterr()
    assert plain.err == ""
    assert plain.out.startswith("preset ")
    assert "[optimizer]" not in plain.out
    assert len(plain.out.splitlines()) <= 24
    assert main(["train", *words, "--toml"]) == 0
    with_settings = capsys.readouterr().out
    toml, _, estimate = with_settings.partition("\npreset ")
    assert "[optimizer]" in toml
    assert preset_files.load(["default"], tiny_runs.options(tmp_path)).preset.model_dump(
        exclude_none=True
    ) == tomllib.loads(toml)
    assert estimate.splitlines()[1].startswith("corpus ")


def test_a_partial_preset_alone_is_trained_with_a_warning(dry_run, tmp_path, capsys):
    path = tmp_path / "mine.toml"
    path.write_text("[optimizer]\nlr = 0.01\n")
    settings = sets(*(text for text in tiny_runs.options(tmp_path) if not text.startswith("model.")))
    code, _, message = dry_run("--preset", path, *settings, "--set", "training.sequence_length=8")
    assert code == 0
    assert "mine is a partial preset: it has no [model] and no extends" in message
    code, _, message = dry_run("--preset", "small", "--preset", path, *settings)
    assert (code, message) == (0, "")


def test_a_missing_shakespeare_is_answered_with_the_command_that_downloads_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "shakespeare-char"]) == 3
    message = capsys.readouterr().err
    assert "shakespeare.txt does not exist; download it: curl -fLo shakespeare.txt https://" in message
    described = " ".join(preset_files.load(["shakespeare-char"]).preset.description.split())
    assert described.rpartition(" ")[2] in message  # the same address
    assert not list((tmp_path / "runs").glob("*"))
    assert main(["train", "shakespeare-char", "--dry-run"]) == 0
    assert "curl -fLo" in capsys.readouterr().out
    assert main(["train", "small", "data.source=wikitext103", "training.device=cpu"]) == 3
    assert "did you mean wikitext-103?" in capsys.readouterr().err
