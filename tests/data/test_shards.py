"""A store of several files: written in parts, after a kill continued, and longer than 32 bits can count."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from gpt2tui.data import corpus as corpora
from gpt2tui.data import shards, store_building, token_store, token_writing
from gpt2tui.data.batches import Windows
from gpt2tui.data.joined_tokens import JoinedTokens
from gpt2tui.data.token_store import prepare
from gpt2tui.errors import DataError
from gpt2tui.preset.schema import DataTable, ModelTable, Preset, TrainingTable
from tests.data.corpus_files import write, write_rows
from tests.tiny_runs import finish


def preset(source, tokenizer="byte", sequence_length=8, **table):
    return Preset(
        model=ModelTable(vocab_size=300 if tokenizer == "bpe" else None),
        data=DataTable(source=str(source), tokenizer=tokenizer, **table),
        training=TrainingTable(sequence_length=sequence_length),
    )


@pytest.fixture
def small_shards(monkeypatch):
    """Parts of a few files, and shards of a few hundred tokens."""
    monkeypatch.setattr(corpora, "PART_BYTES", 3000)
    monkeypatch.setattr(shards, "SHARD_TOKENS", 800)
    monkeypatch.setattr(token_writing, "BATCH_CHARACTERS", 300)
    monkeypatch.setattr(store_building, "KEPT_BYTES", 1)
    monkeypatch.setattr(token_store, "KEPT_BYTES", 1)


def texts(folder):
    for i in range(40):
        write(folder / f"{i:02}.txt", f"file {i} says: déjà vu\n<|endoftext|>\nand {i * i} more\n" * (1 + i % 7))
    return folder


def rows(folder, kind):
    for i in range(12):
        write_rows(folder / f"{i:02}.{kind}", ["", *(f"row {j} of file {i}\n" * 3 for j in range(20))])
    return folder


CORPORA = {
    "txt": texts,
    "jsonl": lambda folder: rows(folder, "jsonl"),
    "parquet": lambda folder: rows(folder, "parquet"),
    "one file": lambda folder: write_rows(folder / "all.jsonl", [f"row {j} of the file\n" * 3 for j in range(200)]),
}


@pytest.mark.parametrize("kind", CORPORA)
@pytest.mark.parametrize("tokenizer", ["byte", "bpe"])
def test_shards_hold_the_tokens_of_the_store_in_one_file(kind, tokenizer, tmp_path, request):
    source = preset(CORPORA[kind](tmp_path / "corpus"), tokenizer)
    whole = finish(prepare(source, tmp_path / "whole"))
    assert isinstance(whole.train, np.memmap)
    request.getfixturevalue("small_shards")
    corpus = finish(prepare(source, tmp_path / "cache"))
    assert isinstance(corpus.train, JoinedTokens)
    assert len(corpus.train.arrays) > 3
    assert corpus.train.tolist() == whole.train.tolist()
    assert corpus.validation.tolist() == whole.validation.tolist()
    for name in ("fingerprint", "train_bytes", "train_documents", "notices", "xz_after_training_bits_per_byte"):
        assert getattr(corpus, name) == getattr(whole, name), name
    (store,) = (tmp_path / "cache" / "tokens").glob("*/meta.json")
    files = {path.name for path in store.parent.iterdir()}
    described = [each["file"] for each in json.loads(store.read_text())["splits"]["train"]["shards"]]
    assert files - {"meta.json", "validation.bin", "tokenizer.json"} >= set(described)
    assert not [
        name
        for name in files
        if name.endswith((".part", "plan.json")) or (name.startswith("train-0") and ".json" in name)
    ]


def test_a_damaged_shard_is_noticed(tmp_path, small_shards):
    source = preset(texts(tmp_path / "corpus"))
    expected = finish(prepare(source, tmp_path / "cache")).train.tolist()
    path = next((tmp_path / "cache" / "tokens").glob("*/train-00001-*.bin"))
    path.write_bytes(path.read_bytes()[:-2] + b"\0\0")
    stages = []
    preparation = prepare(source, tmp_path / "cache")
    with contextlib.suppress(StopIteration):
        while True:
            stages.append(next(preparation).stage)
    assert any("damaged" in stage for stage in stages)
    assert finish(prepare(source, tmp_path / "cache")).train.tolist() == expected


def test_a_preparation_that_ended_continues_after_its_last_finished_shard(tmp_path, small_shards, monkeypatch):
    source = preset(texts(tmp_path / "corpus"), "bpe")
    expected = finish(prepare(source, tmp_path / "other")).train.tolist()
    preparation = prepare(source, tmp_path / "cache")
    tokens = tmp_path / "cache" / "tokens"
    while len(list(tokens.glob("*.building/train-00001-*.json"))) < 2:
        next(preparation)
    preparation.close()
    kept = {path.name: path.stat().st_mtime_ns for path in tokens.glob("*.building/train-*.bin")}
    assert len(kept) >= 4
    assert not list(tokens.glob("*.building/*.part"))
    monkeypatch.setattr(store_building.tokenizers, "build", None)  # the tokenizer is there too
    assert finish(prepare(source, tmp_path / "cache")).train.tolist() == expected
    for path in tokens.glob("*/train-*.bin"):
        assert kept.pop(path.name, path.stat().st_mtime_ns) == path.stat().st_mtime_ns
    assert not kept


def test_what_is_worth_keeping_of_another_store_stays_for_a_week(tmp_path, small_shards):
    texts(tmp_path / "one")
    write(tmp_path / "two" / "a.txt", "the text of two\n" * 300)
    tokens = tmp_path / "cache" / "tokens"
    preparation = prepare(preset(tmp_path / "one"), tmp_path / "cache")
    while not list(tokens.glob("*.building/train-*.json")):
        next(preparation)
    preparation.close()
    finish(prepare(preset(tmp_path / "two"), tmp_path / "cache"))
    (unfinished,) = tokens.glob("*.building")
    long_ago = time.time() - token_store.KEPT_SECONDS - 10
    os.utime(unfinished, (long_ago, long_ago))
    finish(prepare(preset(tmp_path / "two", "char"), tmp_path / "cache"))
    assert not list(tokens.glob("*.building"))


# ---- in several processes


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_several_processes_write_the_same_store(kind, tmp_path, small_shards):
    source = preset(CORPORA[kind](tmp_path / "corpus"), "bpe")
    alone = finish(prepare(source, tmp_path / "alone"))
    together = finish(prepare(source, tmp_path / "together", processes=2))
    assert together.train.tolist() == alone.train.tolist()
    assert together.notices == alone.notices


@pytest.mark.slow
def test_an_error_in_a_process_is_the_error_of_the_preparation(tmp_path, small_shards):
    rows(tmp_path / "corpus", "jsonl")
    source = preset(tmp_path / "corpus")
    preparation = prepare(source, tmp_path / "cache", processes=2)
    while "training text" not in next(preparation).stage:
        pass
    (tmp_path / "corpus" / "11.jsonl").write_text("not JSON\n")
    with pytest.raises(DataError, match=r"11\.jsonl:1 is not JSON"):
        finish(preparation)
    preparation.close()
    assert not list((tmp_path / "cache" / "tokens").glob("*.building/*.part"))


PREPARE = """
import sys
from gpt2tui.data import corpus, shards, store_building, token_writing
from gpt2tui.__main__ import main
if __name__ == "__main__":
    corpus.PART_BYTES = 300_000
    store_building.KEPT_BYTES = 1
    sys.exit(main(["prepare", "test", f"data.source={sys.argv[1]}", "data.tokenizer=gpt2", "--processes", "2"]))
"""


@pytest.mark.slow
def test_a_killed_prepare_continues_and_its_processes_end(tmp_path, monkeypatch):
    for i in range(12):
        write_rows(
            tmp_path / "corpus" / f"{i:02}.jsonl", [f"row {j} of file {i}, with words\n" * 40 for j in range(300)]
        )
    (tmp_path / "prepare.py").write_text(PREPARE)
    environment = {**os.environ, "GPT2TUI_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, str(tmp_path / "prepare.py"), str(tmp_path / "corpus")]
    tokens = tmp_path / "cache" / "tokens"
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        while len(list(tokens.glob("*.building/train-*.json"))) < 3:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    kept = {path.name: path.stat().st_mtime_ns for path in tokens.glob("*.building/train-*.bin")}
    assert 3 <= len(kept) <= 12
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "training tokens and" in done.stdout
    for path in tokens.glob("*/train-*.bin"):
        assert kept.pop(path.name, path.stat().st_mtime_ns) == path.stat().st_mtime_ns
    assert not kept
    (tmp_path / "whole").mkdir()
    source = preset(tmp_path / "corpus", "gpt2")
    monkeypatch.setenv("GPT2TUI_CACHE", str(tmp_path / "cache"))
    again = finish(prepare(source.of_source(str(tmp_path / "corpus")), tmp_path / "whole"))
    (meta,) = tokens.glob("*/meta.json")
    train = json.loads(meta.read_text())["splits"]["train"]
    read = np.concatenate([np.fromfile(meta.parent / each["file"], dtype="<u2") for each in train["shards"]])
    assert (read == again.train[:]).all()


# ---- beyond 2**31 tokens: files that are long, but have almost nothing on the disk


def lengthened(store, sizes):
    """Makes the store's training text that of sparse files of so many tokens, which end in their number, 1 to n."""
    meta = json.loads((store / "meta.json").read_text())
    described = []
    for number, size in enumerate(sizes, 1):
        name = f"train-00000-{number - 1:05}.bin"
        with (store / name).open("wb") as file:
            file.truncate(2 * size)
            file.seek(2 * (size - 20))
            file.write(np.arange(100 * number, 100 * number + 20, dtype="<u2").tobytes())
        described.append({"file": name, "tokens": size, "bytes": 2 * size, "sha256": ""})
    train = meta["splits"]["train"] | {"tokens": sum(sizes), "shards": described}
    (store / "train.bin").unlink()
    (store / "meta.json").write_text(json.dumps({**meta, "splits": {**meta["splits"], "train": train}}))


@pytest.mark.parametrize("sizes", [[2**31 + 1000], [2**30 + 1, 2**30 + 5, 2**29]], ids=["one file", "three files"])
def test_windows_beyond_two_to_the_31_tokens_are_the_right_ones(sizes, tmp_path):
    source = preset(texts(tmp_path / "corpus"), sequence_length=1 << 16)
    source = source.with_training(sequence_length=8)
    finish(prepare(source, tmp_path / "cache"))
    lengthened(next((tmp_path / "cache" / "tokens").glob("*/meta.json")).parent, sizes)
    corpus = finish(prepare(source, tmp_path / "cache"))
    total = sum(sizes)
    assert len(corpus.train) == total > 2**31
    last = 100 * len(sizes)
    assert corpus.train[total - 3 : total].tolist() == [last + 17, last + 18, last + 19]
    if len(sizes) > 1:
        boundary = sizes[0] + sizes[1]
        assert boundary > 2**31
        assert corpus.train[boundary - 2 : boundary + 2].tolist() == [218, 219, 0, 0]
    windows = Windows(corpus.train, seed=3, sequence_length=1 << 16)  # long ones, of which few must be shuffled
    starts = windows._starts_of(0)
    far = int(np.argmax(starts))
    tokens, _ = windows.window(far)
    start = int(starts[far])
    assert start > 2**31 - (1 << 17)
    whole = JoinedTokens([np.zeros(total - 20, dtype=np.uint16), np.arange(last, last + 20, dtype=np.uint16)])
    assert tokens.tolist() == whole[start : start + (1 << 16) + 1].tolist()


def test_joined_tokens_are_those_of_the_arrays_one_after_the_other():
    arrays = [np.arange(start, start + size) for start, size in ((0, 5), (5, 0), (5, 1), (6, 10))]
    tokens = JoinedTokens(arrays)
    whole = np.arange(16)
    for start in range(17):
        for stop in range(start, 18):
            assert tokens[start:stop].tolist() == whole[start:stop].tolist()
            assert tokens.between(start, stop).tolist() == whole[start:stop].tolist()
    assert tokens[-3:].tolist() == [13, 14, 15]
    assert tokens[:].tolist() == tokens.tolist() == whole.tolist()
    with pytest.raises(ValueError, match="in their order"):
        tokens[::2]


# ---- memory

UNDER_A_LIMIT = """
import resource, sys
from pathlib import Path
from gpt2tui.data.token_store import prepare
from gpt2tui.preset.schema import DataTable, Preset, TrainingTable
table = DataTable(source=sys.argv[1], tokenizer="byte")
preparation = prepare(Preset(data=table, training=TrainingTable(sequence_length=8)), Path(sys.argv[2]))
next(preparation)
limit = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
for _ in preparation:
    pass
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA limits memory on Linux alone")
def test_a_corpus_is_prepared_in_less_memory_than_it_has_text(tmp_path):
    limit = 256 << 20
    line = json.dumps({"text": "a row of some length, of words\n" * 100}) + "\n"
    with (tmp_path / "rows.jsonl").open("w") as file:
        for i in range(1 + (limit + limit // 4) // len(line)):
            file.write(line.replace("a row", f"row {i}", 1))
    assert (tmp_path / "rows.jsonl").stat().st_size > limit
    command = [sys.executable, "-c", UNDER_A_LIMIT, str(tmp_path / "rows.jsonl"), str(tmp_path / "cache")]
    done = subprocess.run([*command, str(limit)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (meta,) = (tmp_path / "cache" / "tokens").glob("*/meta.json")
    assert json.loads(meta.read_text())["splits"]["train"]["tokens"] > 0.9 * limit
    # The limit is a limit: less than the program itself needs fails.
    assert subprocess.run([*command, str(20 << 20)], capture_output=True, check=False).returncode != 0
