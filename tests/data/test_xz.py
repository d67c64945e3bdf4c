"""How small xz makes the validation text, alone and after the training text."""

import contextlib
import errno
import json
import lzma
import os
import random
import subprocess
import sys

import pytest

from gpt2tui.data import token_store, xz
from gpt2tui.data.corpus import TextPiece
from gpt2tui.data.token_store import find_prepared
from tests.data.corpus_files import opened
from tests.data.preparing import built, preset, run


def test_xz_bits_per_byte_are_those_of_xz_9(folder, cache):
    corpus, _ = run(preset(folder), cache)
    text = "".join(opened(folder).documents("validation")).encode()
    assert corpus.xz_bits_per_byte == pytest.approx(8 * len(lzma.compress(text, preset=9)) / len(text), rel=0.01)


def xz_after_training(folder):
    train, validation = ("".join(opened(folder).documents(split)).encode() for split in ("train", "validation"))
    added = len(lzma.compress(train + validation, preset=9)) - len(lzma.compress(train, preset=9))
    return 8 * added / len(validation)


def test_xz_that_has_read_the_training_text_is_that_of_lzma(folder, cache):
    corpus, _ = run(preset(folder), cache)
    assert corpus.xz_after_training_bits_per_byte == xz_after_training(folder) < corpus.xz_bits_per_byte
    assert find_prepared(preset(folder), cache).xz_after_training_bits_per_byte == xz_after_training(folder)


def test_a_store_from_before_xz_after_training_gets_it_when_it_is_used(folder, cache):
    run(preset(folder), cache)
    (meta,) = (cache / "tokens").glob("*/meta.json")
    kept = json.loads(meta.read_text())
    del kept["xz_after_training_bits_per_byte"]
    meta.write_text(json.dumps(kept))
    assert find_prepared(preset(folder), cache).xz_after_training_bits_per_byte is None
    corpus, stages = run(preset(folder), cache)
    assert not built(stages)
    assert corpus.xz_after_training_bits_per_byte == xz_after_training(folder)
    assert json.loads(meta.read_text())["xz_after_training_bits_per_byte"] == xz_after_training(folder)


def test_xz_after_training_is_computed_once_for_all_tokenizers_of_a_text(folder, cache, monkeypatch):
    run(preset(folder), cache)
    monkeypatch.setattr(xz, "XzAfterTraining", None)  # calling it raises
    assert run(preset(folder, "char"), cache)[0].xz_after_training_bits_per_byte == xz_after_training(folder)
    with pytest.raises(TypeError):
        run(preset(folder, "char", validation_fraction=0.2), cache)  # other text


def test_xz_after_training_is_not_computed_for_a_long_training_text(folder, cache, monkeypatch):
    monkeypatch.setattr(xz, "TRAINING_LIMIT_BYTES", 1000)
    corpus, _ = run(preset(folder), cache)
    assert corpus.xz_bits_per_byte is not None
    assert corpus.xz_after_training_bits_per_byte is None


def test_a_text_over_the_limit_is_not_read_to_its_end():
    pieces = iter([TextPiece(text, True, None) for text in ("abc", "def", "gh", "ij")])
    assert xz.text_of(pieces, 5) is None
    assert [piece.text for piece in pieces] == ["gh", "ij"]
    assert xz.text_of([TextPiece("abc", True, None)], 5) == b"abc"


def test_several_texts_are_compressed_after_one_training_text():
    rng = random.Random(1)
    training, *texts = (bytes(rng.choices(b"abcdefgh ", k=k)) + b"the end" for k in (20_000, 3_000, 500))
    with contextlib.closing(xz.XzAfterTraining(training, texts)) as work:
        found = work.result()
        assert work.done(0)
        assert work.done_bytes == work.total_bytes == len(training)
    alone, *together = (len(lzma.compress(training + text, preset=9)) for text in (b"", *texts))
    assert found == [8 * (size - alone) / len(text) for size, text in zip(together, texts, strict=True)]


def test_a_stop_ends_the_compression_within_a_moment():
    work = xz.XzAfterTraining(random.Random(1).randbytes(16 << 20), [b"y"])  # takes ten seconds and more
    while not work.done_bytes:
        assert not work.done(0.01)
    work.close()
    assert work.done(0)
    assert work.done_bytes < work.total_bytes / 2
    with pytest.raises(xz.CompressionError):
        work.result()


def test_without_fork_xz_says_so_at_once(monkeypatch):
    monkeypatch.delattr(os, "fork")
    with pytest.raises(xz.CompressionError, match="forked"):
        xz.XzAfterTraining(b"abc", [b"d"])


def no_process(*arguments, **options):
    raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


started = subprocess.Popen


def process_that_dies(command, **options):
    return started([sys.executable, "-c", "import os; os.abort()"], **options)


@pytest.mark.parametrize("broken", [no_process, process_that_dies])
def test_without_a_process_the_figure_is_unknown_and_the_tokens_are_prepared(folder, cache, monkeypatch, broken):
    monkeypatch.setattr(subprocess, "Popen", broken)
    assert run(preset(folder), cache)[0].xz_after_training_bits_per_byte is None
    monkeypatch.undo()
    assert run(preset(folder), cache)[0].xz_after_training_bits_per_byte == xz_after_training(folder)


def test_the_comparison_begins_before_the_tokenizer_and_ends_with_a_preparation_that_is_stopped(
    folder, cache, monkeypatch
):
    begun = []

    class Slow(xz.XzAfterTraining):
        def __init__(self, training, texts):
            super().__init__(random.Random(1).randbytes(16 << 20), texts)
            begun.append(self)

    monkeypatch.setattr(xz, "XzAfterTraining", Slow)
    preparing = token_store.prepare(preset(folder, "bpe", vocab_size=270), cache)
    for progress in preparing:
        if progress.stage.startswith("building the bpe tokenizer"):
            break
    assert not begun[0].done(0)
    preparing.close()
    assert begun[0].done(0)


def test_xz_is_not_tried_on_too_much_text(folder, cache, monkeypatch):
    monkeypatch.setattr(xz, "LIMIT_BYTES", 100)
    assert run(preset(folder), cache)[0].xz_bits_per_byte is None
