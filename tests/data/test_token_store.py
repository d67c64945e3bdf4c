"""Text becomes tokens on the disk once, and whatever happens meanwhile."""

import contextlib
import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from gpt2tui.data import content_hashes, store_building, token_store, token_writing, tokenizer_kinds
from gpt2tui.data.token_store import find_prepared, prepare, tokenize
from gpt2tui.errors import DataError, PresetError, ResourceError
from tests.data.corpus_files import opened, write, write_hub_folder, write_rows
from tests.data.preparing import TEXTS, built, preset, run, stores


@pytest.mark.parametrize("tokenizer", ["gpt2", "bpe", "char", "byte"])
def test_tokens_are_the_documents_each_followed_by_end_of_text(tokenizer, folder, cache):
    corpus, _ = run(preset(folder, tokenizer), cache)
    source = opened(folder)
    for split in ("train", "validation"):
        documents = list(source.documents(split))
        expected = [i for text in documents for i in [*corpus.tokenizer.encode(text), corpus.tokenizer.eot]]
        assert getattr(corpus, split).tolist() == expected
        assert getattr(corpus, f"{split}_documents") == len(documents)
        assert getattr(corpus, f"{split}_bytes") == len("".join(documents).encode())
    assert isinstance(corpus.train, np.memmap)


@pytest.mark.slow
def test_token_ids_take_two_bytes_where_they_fit_and_four_where_not(folder, tmp_path, cache):
    assert run(preset(folder, "gpt2"), cache)[0].train.dtype == np.uint16
    many = "".join(map(chr, [*range(0x100, 0xD800), *range(0xE000, 0x1A000)]))
    path = write(tmp_path / "many.txt", many * 2)
    corpus, _ = run(preset(path, "char"), cache)
    assert corpus.train.dtype == np.uint32
    train, validation = (corpus.tokenizer.decode(tokens[:-1]) for tokens in (corpus.train, corpus.validation))
    assert train + validation == many * 2


def test_a_prepared_corpus_is_opened_without_tokenizing_again(folder, cache):
    first, stages = run(preset(folder, "bpe"), cache)
    assert built(stages)
    again, stages = run(preset(folder, "bpe"), cache)
    assert not built(stages)
    assert again.train.tolist() == first.train.tolist()
    assert again.tokenizer.token_table == first.tokenizer.token_table
    assert (again.fingerprint, again.xz_bits_per_byte) == (first.fingerprint, first.xz_bits_per_byte)


@pytest.mark.parametrize("refused", ["lock", "folder"])
def test_a_shared_cache_that_cannot_be_written_serves_what_is_prepared(folder, cache, monkeypatch, refused):
    first, _ = run(preset(folder), cache)

    def refuse(*arguments, **named):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    if refused == "lock":
        monkeypatch.setattr(token_store.FileLock, "acquire", refuse)
    else:
        monkeypatch.setattr(Path, "mkdir", refuse)
    again, _ = run(preset(folder), cache)
    assert again.train.tolist() == first.train.tolist()
    with pytest.raises(ResourceError, match="Read-only"):
        run(preset(folder, "char"), cache)


def test_a_large_corpus_with_new_time_stamps_is_not_prepared_again(folder, cache, monkeypatch):
    monkeypatch.setattr(content_hashes, "SMALL_BYTES", 10)
    first, stages = run(preset(folder), cache)
    assert any("hashing" in str(stage) for stage in stages)
    for path in folder.iterdir():
        os.utime(path, ns=(0, 0))
    again, stages = run(preset(folder), cache)
    assert not built(stages)
    assert again.fingerprint == first.fingerprint


def test_sequence_length_and_other_settings_share_a_store(folder, cache):
    run(preset(folder), cache)
    assert not built(run(preset(folder, sequence_length=16, vocab_size=300), cache)[1])


@pytest.mark.parametrize(
    "changed",
    [{"tokenizer": "char"}, {"validation_fraction": 0.2}, {"tokenizer": "bpe", "vocab_size": 300}],
)
def test_settings_that_decide_about_tokens_have_a_store_each(changed, folder, cache):
    run(preset(folder), cache)
    assert built(run(preset(folder, **changed), cache)[1])


def test_a_changed_corpus_is_noticed(folder, cache):
    before, _ = run(preset(folder), cache)
    write(folder / "00.txt", TEXTS["00.txt"].replace("says", "SAYS"))
    after, stages = run(preset(folder), cache)
    assert built(stages)
    assert after.fingerprint != before.fingerprint


def test_batches_of_any_size_give_the_same_store(folder, cache, tmp_path, monkeypatch):
    whole, _ = run(preset(folder, "bpe"), cache)
    monkeypatch.setattr(token_writing, "BATCH_CHARACTERS", 1000)
    in_parts, stages = run(preset(folder, "bpe"), tmp_path / "other")
    assert in_parts.train.tolist() == whole.train.tolist()
    done = [progress.done for progress in stages if "training text" in progress.stage]
    assert len(done) > 10
    assert done == sorted(done)
    assert done[-1] == whole.train_bytes


@pytest.mark.slow
def test_only_a_batch_of_text_is_in_memory_at_once(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(token_writing, "BATCH_CHARACTERS", 1 << 20)
    path = write(tmp_path / "big.txt", "some words in a line\n" * 400_000)
    seen = []
    original = tokenizer_kinds.Tokenizer.encode_documents

    def watched(self, texts, threads=1):
        seen.append(sum(map(len, texts)))
        return original(self, texts, threads)

    monkeypatch.setattr(tokenizer_kinds.Tokenizer, "encode_documents", watched)
    run(preset(path), cache)
    assert sum(seen) == 21 * 400_000
    assert max(seen) <= 2 << 20


def test_progress_never_passes_its_total(folder, cache):
    _, stages = run(preset(folder), cache)
    for progress in stages:
        assert progress.total is None or 0 <= progress.done <= progress.total
    assert len({progress.stage for progress in stages}) >= 3


@pytest.mark.parametrize("file", ["train.bin", "validation.bin", "meta.json", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "missing"])
def test_a_damaged_store_is_prepared_again_and_said_so(file, damage, folder, cache):
    first, _ = run(preset(folder, "bpe"), cache)
    expected = first.train.tolist()
    (name,) = stores(cache)
    path = cache / "tokens" / name / file
    data = path.read_bytes()
    match damage:
        case "cut":
            path.write_bytes(data[:-2])
        case "flipped":
            path.write_bytes(bytes([data[0] ^ 0x80]) + data[1:])
        case "missing":
            path.unlink()
    again, stages = run(preset(folder, "bpe"), cache)
    assert any("damaged" in progress.stage for progress in stages)
    assert again.train.tolist() == expected
    assert not built(run(preset(folder, "bpe"), cache)[1])


def test_a_large_truncated_store_is_noticed_by_its_size(folder, cache, monkeypatch):
    monkeypatch.setattr(token_store, "VERIFIED_BYTES", 0)
    run(preset(folder), cache)
    path = next((cache / "tokens").glob("*/train.bin"))
    path.write_bytes(path.read_bytes()[:-2])
    assert built(run(preset(folder), cache)[1])


def test_a_closed_preparation_leaves_nothing(folder, cache):
    generator = prepare(preset(folder), cache)
    while "training text" not in next(generator).stage:
        pass
    assert stores(cache) != []
    generator.close()
    assert stores(cache) == []


def test_a_failed_preparation_leaves_nothing(folder, cache):
    write(folder / "99.txt", b"not \xff UTF-8\n" * 20)
    with pytest.raises(DataError, match="not UTF-8"):
        run(preset(folder), cache)
    assert stores(cache) == []


PRESET = """
from pathlib import Path
from gpt2tui.data.token_store import prepare
from gpt2tui.preset.schema import DataTable, Preset, TrainingTable
data = DataTable(source=sys.argv[1], tokenizer=sys.argv[3])
preset = Preset(data=data, training=TrainingTable(sequence_length=8))
"""

PREPARE_AND_WAIT = f"""
import sys, time
{PRESET}
for progress in prepare(preset, Path(sys.argv[2])):
    if sys.argv[4] in progress.stage:
        print("there", flush=True)
        time.sleep(60)
"""


@contextlib.contextmanager
def preparing_until(stage, folder, cache):
    """Another process that prepares the same corpus and stays at a stage."""
    command = [sys.executable, "-c", PREPARE_AND_WAIT, str(folder), str(cache), "byte", stage]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "there\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("stage", ["validation text", "training text"])
def test_a_killed_preparation_is_never_used_and_its_leftovers_go(stage, folder, cache):
    with preparing_until(stage, folder, cache):
        pass
    assert [name for name in stores(cache) if name.endswith(".building")]
    assert find_prepared(preset(folder), cache) is None
    corpus, stages = run(preset(folder), cache)
    assert built(stages)
    assert len(corpus.train) == corpus.train_bytes + corpus.train_documents
    assert not [name for name in stores(cache) if name.endswith(".building")]


@pytest.mark.slow
def test_leftovers_of_other_corpora_go_too_but_not_those_still_being_built(folder, tmp_path, cache):
    write(tmp_path / "other" / "a.txt", "text\n" * 100)
    write(tmp_path / "third" / "a.txt", "third text\n" * 100)
    with preparing_until("training text", tmp_path / "third", cache):
        with preparing_until("training text", tmp_path / "other", cache):
            pass
        assert len(stores(cache)) == 2
        run(preset(folder), cache)
        assert len([name for name in stores(cache) if name.endswith(".building")]) == 1


def test_a_leftover_that_is_gone_meanwhile_is_no_error(folder, cache, monkeypatch):
    (cache / "tokens" / "0123.building").mkdir(parents=True)

    def finished(leftover):
        leftover.rmdir()  # as by the process that built it
        return leftover.stat()

    monkeypatch.setattr(token_store, "kept_bytes", finished)
    assert built(run(preset(folder), cache)[1])


def test_a_second_process_waits_for_the_first(folder, cache):
    with preparing_until("training text", folder, cache) as process:
        generator = prepare(preset(folder), cache)
        stages = [next(generator).stage for _ in range(3)]
        assert "waiting for another process" in stages[-1]
        process.kill()
        process.wait()
        assert any("tokenizing" in progress.stage for progress in generator)


def test_a_full_disk_is_a_resource_error_without_leftovers(folder, cache):
    code = f"""
import resource, sys
{PRESET}
from gpt2tui.errors import ResourceError
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
try:
    for progress in prepare(preset, Path(sys.argv[2])):
        pass
except ResourceError as error:
    print(error)
    sys.exit(error.exit_code)
"""
    command = [sys.executable, "-c", code, str(folder), str(cache), "byte"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 6, result.stderr
    assert "no space left" in result.stdout
    assert stores(cache) == []


def test_a_cache_that_cannot_be_written_is_a_resource_error(folder, tmp_path):
    write(tmp_path / "file", "not a folder")
    with pytest.raises(ResourceError, match="GPT2TUI_CACHE"):
        run(preset(folder), tmp_path / "file")


def test_a_corpus_shorter_than_one_window_is_refused_with_its_numbers(tmp_path, cache):
    path = write(tmp_path / "short.txt", "0123456789\n" * 10)
    message = "106 training tokens and 6 validation tokens, and one window is 65"
    with pytest.raises(DataError, match=message) as caught:
        run(preset(path, sequence_length=64), cache)
    assert "\n" not in str(caught.value)
    assert len(run(preset(path, sequence_length=5), cache)[0].validation) == 6


@pytest.mark.slow
def test_a_vocabulary_smaller_than_the_tokenizers_is_refused(folder, cache):
    with pytest.raises(PresetError, match="300 is smaller than the gpt2 tokenizer needs, 50257"):
        run(preset(folder, "gpt2", vocab_size=300), cache)


def test_a_small_corpus_says_that_its_vocabulary_is_smaller(folder, cache):
    for _ in range(2):
        corpus, _ = run(preset(folder, "bpe", vocab_size=10_000), cache)
        assert corpus.tokenizer.vocab_size < 10_000
        assert f"has {corpus.tokenizer.vocab_size:,} tokens" in corpus.notices[0]
    assert run(preset(folder, "bpe", vocab_size=270), cache)[0].notices == ()


def test_streaming_prepares_the_validation_text_only(tmp_path, cache):
    rows = [f"document {i}, with text\n" for i in range(100)]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    corpus, _ = run(preset(path, streaming=True), cache)
    validation = corpus.validation_documents
    assert corpus.tokenizer.decode(corpus.validation).split("<|endoftext|>")[:-1] == rows[:validation]
    assert len(corpus.train) == corpus.train_bytes == 0
    following = corpus.stream().take(len(rows[validation])).tolist()
    assert corpus.tokenizer.decode(following) == rows[validation]
    assert not list(cache.rglob("train.bin"))


def test_streaming_trains_its_tokenizer_on_the_training_text(tmp_path, cache):
    # The first row alone is the validation split.
    rows = ["held out " * 10, *(f"training text {i}\n" for i in range(100))]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    corpus, _ = run(preset(path, "bpe", 270, streaming=True, validation_fraction=0.01), cache)
    assert b"training" in corpus.tokenizer.token_table
    assert b"held" not in corpus.tokenizer.token_table


def test_streaming_holds_out_a_bounded_amount_of_a_validation_split(tmp_path, cache, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "hf"))
    monkeypatch.setattr("gpt2tui.data.corpora.STREAMING_VALIDATION_BYTES", 100)
    splits = {"train": ["text\n"] * 9, "validation": ["held out\n"] * 1000}
    source = f"hf:{write_hub_folder(tmp_path / 'corpus', {'default': splits})}"
    corpus, _ = run(preset(source, streaming=True), cache)
    assert 100 <= corpus.validation_bytes < 120


def test_find_prepared_finds_what_was_prepared_and_prepares_nothing(folder, cache):
    assert find_prepared(preset(folder), cache) is None
    assert not cache.exists()
    corpus, _ = run(preset(folder), cache)
    assert find_prepared(preset(folder), cache).train.tolist() == corpus.train.tolist()
    assert find_prepared(preset(folder, "char"), cache) is None
    assert find_prepared(preset(folder / "nowhere"), cache) is None


def test_find_prepared_does_not_ask_the_hub(tmp_path, cache, monkeypatch):
    from gpt2tui.data import hub

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "hf"))
    splits = {"train": [" = A = \n", " text \n"] * 9, "validation": [" = B = \n", " held out \n"]}
    source = write_hub_folder(tmp_path / "wikitext", {"wikitext-2-raw-v1": splits})
    monkeypatch.setattr(hub, "WIKITEXT", str(source))
    corpus, _ = run(preset("wikitext-2"), cache)
    monkeypatch.setattr(hub, "open_hub", lambda table: pytest.fail("asked the Hub"))
    assert find_prepared(preset("wikitext-2"), cache).train.tolist() == corpus.train.tolist()
    assert find_prepared(preset("wikitext-103"), cache) is None


def test_validation_tokens_of_another_tokenizer(folder, cache):
    corpus, _ = run(preset(folder, "bpe"), cache)
    assert tokenize(opened(folder).held_out_pieces(), corpus.tokenizer).tolist() == corpus.validation.tolist()


def test_meta_json_describes_the_files(folder, cache):
    corpus, _ = run(preset(folder), cache)
    (name,) = stores(cache)
    meta = json.loads((cache / "tokens" / name / "meta.json").read_text())
    data = (cache / "tokens" / name / "train.bin").read_bytes()
    described = meta["splits"]["train"]
    assert described["bytes"] == len(data) == 2 * described["tokens"] == 2 * len(corpus.train)
    assert described["sha256"] == hashlib.sha256(data).hexdigest()


def test_opening_imports_no_heavy_library(folder, cache):
    run(preset(folder, "bpe"), cache)
    code = f"""
import sys
import threading
{PRESET}
stages = [progress.stage for progress in prepare(preset, Path(sys.argv[2]))]
heavy = {{"torch", "datasets", "transformers", "tokenizers", "pyarrow"}} & set(sys.modules)
sys.exit(f"{{heavy}} {{stages}}" if heavy or len(set(stages)) != 1 else 0)
"""
    command = [sys.executable, "-c", code, str(folder), str(cache), "bpe"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("stage", ["opening", "building the bpe tokenizer"])
def test_a_preparation_is_cancelled_at_once_in_a_call_that_cannot_be_interrupted(stage, folder, cache, monkeypatch):
    busy, released = threading.Event(), threading.Event()

    def never(*arguments):
        busy.set()
        released.wait(60)
        raise DataError("released")

    place = (token_store, "open_corpus") if stage == "opening" else (store_building.tokenizers, "build")
    monkeypatch.setattr(*place, never)
    generator = prepare(preset(folder, "bpe"), cache)
    while not busy.is_set():
        assert next(generator).stage.startswith(("opening", stage))
    assert next(generator).stage.startswith(stage)  # it keeps reporting meanwhile, so that a stop is noticed
    generator.close()
    assert not released.is_set()
    assert not cache.exists() or stores(cache) == []
    released.set()
