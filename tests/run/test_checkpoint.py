import errno
import itertools
import json
import math
import os
import shutil
import signal
import time

import pytest
import torch

from gpt2tui.errors import CheckpointError, ResourceError
from gpt2tui.run import checkpoint
from gpt2tui.system import files as durable


def write(folder, step=10, val_loss=None, fill=1.0, run_id="abc"):
    folder.mkdir(exist_ok=True)
    return save(folder, step, {"val_loss": val_loss}, fill, run_id)


def save(folder, step=10, metrics=None, fill=1.0, run_id="abc", parent=None, validation_sample=None, origin=None):
    return checkpoint.write(
        folder,
        step=step,
        run_id=run_id,
        tensors={"model": {"w": torch.full((300,), fill)}, "training_state": {"m": torch.ones(3)}},
        documents={"config.json": "{}", "preset.toml": ""},
        trainer={"step": step},
        save_tokenizer=lambda target: (target / "tokenizer.json").write_text("{}"),
        metrics=metrics or {},
        data_fingerprint="f",
        validation_sample=validation_sample,
        parent=parent,
        origin=origin,
    )


def test_a_written_checkpoint_verifies_and_names_every_file(tmp_path):
    written = write(tmp_path / "checkpoints", step=1000)
    assert written.folder.name == "step-00001000"
    assert checkpoint.verify(written.folder) == written
    on_disk = {p.name for p in written.folder.iterdir()} - {"MANIFEST.json"}
    assert set(written.files) == on_disk
    assert written.bytes == sum((written.folder / name).stat().st_size for name in on_disk)


def test_files_have_the_permissions_of_any_new_file(tmp_path):
    written = write(tmp_path)
    reference = tmp_path / "reference"
    reference.write_text("")
    assert (written.folder / "model.safetensors").stat().st_mode == reference.stat().st_mode


@pytest.mark.parametrize("name", ["model.safetensors", "training_state.safetensors", "tokenizer.json", "trainer.json"])
def test_one_flipped_bit_in_any_file_is_found(tmp_path, name):
    path = write(tmp_path).folder / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    checkpoint.inspect(path.parent)  # compares sizes only
    with pytest.raises(CheckpointError, match=f"{name} does not have the SHA-256"):
        checkpoint.verify(path.parent)


def test_a_truncated_file_is_found_by_its_size(tmp_path):
    path = write(tmp_path).folder / "model.safetensors"
    os.truncate(path, 100)
    with pytest.raises(CheckpointError, match=r"model\.safetensors has 100 bytes, not 1,3"):
        checkpoint.inspect(path.parent)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "checkpoint format 99"),
        ({"step": "ten"}, "not a manifest"),
        ({"files": []}, "not a manifest"),
        ({"files": {"../../secret": {"kind": "config", "bytes": 1, "sha256": ""}}}, "outside its folder"),
        ({"files": {}}, "is missing"),
        ({"files": {"x" * 300: {"kind": "config", "bytes": 1, "sha256": ""}}}, "is missing"),
        ({"metrics": {"val_loss": math.nan}}, "not a manifest"),
        ({"metrics": {"val_loss": "low"}}, "not a manifest"),
        ({"parent": {"run_id": 1, "step": 2}}, "not a manifest"),
        ({"data_fingerprint": None}, "not a manifest"),
        ({"kind": "picture"}, "not a manifest"),
        ({"kind": "adapter"}, "not a manifest"),  # of which base it does not say
        ({"origin": {"source": 1, "sha256": "", "run_id": None, "step": None}}, "not a manifest"),
        ({"origin": {"source": "x", "sha256": "", "run_id": "y", "step": -1}}, "not a manifest"),
        ({"origin": ["x"]}, "not a manifest"),
        ({"format_version": 1, "val_loss": math.nan}, "not a manifest"),
    ],
)
def test_a_manifest_from_elsewhere_is_refused(tmp_path, change, message):
    path = write(tmp_path).folder / "MANIFEST.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(CheckpointError, match=message):
        checkpoint.inspect(path.parent)


def test_a_folder_without_manifest_is_no_checkpoint(tmp_path):
    (write(tmp_path).folder / "MANIFEST.json").unlink()
    assert checkpoint.saved_in(tmp_path) == []
    assert "it has no MANIFEST.json" in checkpoint.problems_in(tmp_path)[0]


def test_the_newest_valid_one_is_found_by_its_step_when_newer_ones_are_damaged(tmp_path):
    for step in (900, 1000, 99_000_000, 100_000_000):
        write(tmp_path, step)
    (tmp_path / "step-100000000" / "MANIFEST.json").write_text("{")
    data = bytearray((tmp_path / "step-99000000" / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "step-99000000" / "model.safetensors").write_bytes(data)
    os.utime(tmp_path / "step-00000900", (2e9, 2e9))
    chosen = checkpoint.newest(tmp_path)
    assert chosen.step == 1000
    assert len(chosen.skipped) == 2


def test_no_valid_checkpoint_says_what_is_wrong_with_each(tmp_path):
    os.truncate(write(tmp_path / "checkpoints").folder / "config.json", 1)
    with pytest.raises(CheckpointError, match=r"(?s)has no valid checkpoint.*config\.json has 1 bytes"):
        checkpoint.newest(tmp_path / "checkpoints")


def test_best_has_the_lowest_validation_loss_and_is_the_newest_if_none_was_measured(tmp_path):
    write(tmp_path, 1)
    assert checkpoint.best(tmp_path).step == 1
    write(tmp_path, 2, val_loss=2.0)
    write(tmp_path, 3, val_loss=1.0)
    write(tmp_path, 4, val_loss=1.5)
    assert checkpoint.best(tmp_path).step == 3


def test_pruning_keeps_the_newest_the_best_and_the_protected(tmp_path):
    for step in range(1, 9):
        write(tmp_path, step, val_loss=0.5 if step == 3 else 1.0)
    checkpoint.prune(tmp_path, run_id="abc", keep=2, protected={5})
    assert [c.step for c in checkpoint.saved_in(tmp_path)] == [3, 5, 7, 8]
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"step-{n:08d}" for n in (3, 5, 7, 8)]


def test_writing_a_step_again_replaces_it(tmp_path):
    write(tmp_path, 1, fill=1.0)
    second = write(tmp_path, 1, fill=2.0)
    assert checkpoint.load_tensors(second.folder / "model.safetensors")["w"][0] == 2.0
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_leftovers_of_a_killed_process_are_removed_and_nothing_else(tmp_path):
    write(tmp_path, 1)
    (tmp_path / ".writing-step-00000002-1").mkdir()
    checkpoint.remove_leftovers(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]


def test_a_checkpoint_that_was_about_to_be_replaced_comes_back_when_its_replacement_never_arrived(tmp_path):
    write(tmp_path, 1)
    (tmp_path / "step-00000001").rename(tmp_path / ".replaced-step-00000001")
    checkpoint.remove_leftovers(tmp_path)
    assert checkpoint.newest(tmp_path).step == 1
    write(tmp_path / "other", 1).folder.rename(tmp_path / ".replaced-step-00000001")
    checkpoint.remove_leftovers(tmp_path)
    assert not (tmp_path / ".replaced-step-00000001").exists()
    assert checkpoint.newest(tmp_path).step == 1


def test_a_pickle_is_not_opened(tmp_path):
    folder = write(tmp_path).folder
    (folder / "model.safetensors").write_bytes(b"\x80\x04\x95" + b"x" * 2000)
    with pytest.raises(CheckpointError, match="cannot be read as safetensors"):
        checkpoint.load_tensors(folder / "model.safetensors")


def in_a_fork(work, folder):
    """Runs `work(folder, report)` in a fork of this process: its id, and the file of the lines that it reports."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            work(folder, lambda line: os.write(writing, f"{line}\n".encode()))
        finally:
            os._exit(0)
    os.close(writing)
    return child, os.fdopen(reading)


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the other process is a fork of this one")


def write_for_ever(folder, report):
    for step in itertools.count(1):
        write(folder, step)
        report(step)


@needs_fork
def test_a_kill_at_any_moment_loses_no_checkpoint_that_was_reported(tmp_path):
    for delay in (0.002, 0.011, 0.023):
        child, lines = in_a_fork(write_for_ever, tmp_path)
        with lines:
            assert lines.readline() == "1\n"
            time.sleep(delay)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            reported = [1, *map(int, lines.read().split())]
        saved = [c.step for c in checkpoint.saved_in(tmp_path)]
        assert set(reported) <= set(saved)
        assert checkpoint.newest(tmp_path).step >= reported[-1]
        assert checkpoint.problems_in(tmp_path) == []


def write_where_files_are_small(folder, report):
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (700, resource.RLIM_INFINITY))
    try:
        write(folder, 2)
    except ResourceError as error:
        report(error)


@needs_fork
def test_a_disk_that_takes_no_more_leaves_the_old_checkpoint_and_no_litter(tmp_path):
    write(tmp_path, 1)
    child, lines = in_a_fork(write_where_files_are_small, tmp_path)
    with lines:
        output = lines.read()
    os.waitpid(child, 0)
    assert "the checkpoint of step 2 could not be saved" in output
    assert "a file would be too large" in output
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]
    checkpoint.verify(tmp_path / "step-00000001")


def test_an_unwritable_place_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="could not be saved"):
        save(tmp_path / "file")


def test_a_folder_that_is_gone_is_not_made_anew(tmp_path):
    with pytest.raises(ResourceError, match="could not be saved"):
        save(tmp_path / "run" / "checkpoints")
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_lists_files_by_kind_and_metrics_by_name(tmp_path):
    metrics = {"val_loss": 2.5, "perplexity": math.inf, "bits_per_byte": math.nan}
    parent = checkpoint.Parent("before", 7)
    origin = checkpoint.Origin("openai-community/gpt2", "0" * 64)
    written = save(tmp_path, metrics=metrics, validation_sample="64 tokens", parent=parent, origin=origin)
    contents = json.loads((written.folder / "MANIFEST.json").read_text(), parse_constant=pytest.fail)
    assert {name: entry["kind"] for name, entry in contents.pop("files").items()} == {
        "model.safetensors": "weights",
        "config.json": "config",
        "tokenizer.json": "tokenizer",
        "training_state.safetensors": "training_state",
        "trainer.json": "trainer",
        "preset.toml": "preset",
    }
    assert contents == {
        "format_version": 2,
        "kind": "full",
        "step": 10,
        "run_id": "abc",
        "parent": {"run_id": "before", "step": 7},
        "origin": {"source": "openai-community/gpt2", "sha256": "0" * 64, "run_id": None, "step": None},
        "data_fingerprint": "f",
        "metrics": {"val_loss": 2.5, "perplexity": None, "bits_per_byte": None},
        "validation_sample": "64 tokens",
    }
    assert checkpoint.inspect(written.folder) == written
    assert (written.parent, written.origin, written.metrics) == (parent, origin, {"val_loss": 2.5})


def test_a_loss_that_is_no_number_is_never_the_best(tmp_path):
    write(tmp_path, 1, val_loss=2.0)
    write(tmp_path, 2, val_loss=math.nan)
    assert checkpoint.best(tmp_path).step == 1
    checkpoint.prune(tmp_path, run_id="abc", keep=1)
    assert [c.step for c in checkpoint.saved_in(tmp_path)] == [1, 2]


@pytest.fixture
def shared(tmp_path):
    """The checkpoints of the run "abc" at steps 1 and 2, and of another one at step 3 with the lowest loss."""
    folder = tmp_path / "checkpoints"
    write(folder, 1, val_loss=2.0)
    write(folder, 2, val_loss=3.0)
    write(folder, 3, val_loss=1.0, run_id="other")
    (tmp_path / "run.json").write_text('{"run_id": "abc"}')
    return folder


def test_a_checkpoint_of_another_run_is_never_newest_or_best_and_is_named(shared):
    assert [c.step for c in checkpoint.saved_in(shared)] == [1, 2]
    for chosen, step in ((checkpoint.newest(shared), 2), (checkpoint.best(shared), 1)):
        assert chosen.step == step
        assert chosen.skipped == (f"{shared / 'step-00000003'} is a checkpoint of another run (other)",)
    assert checkpoint.problems_in(shared) == list(chosen.skipped)
    assert checkpoint.verify(shared / "step-00000003").run_id == "other"  # by its own path it is still to be had


def test_only_checkpoints_of_another_run_are_none(shared):
    (shared.parent / "run.json").write_text('{"run_id": "third"}')
    with pytest.raises(CheckpointError, match=r"(?s)no valid checkpoint.*of another run \(abc\)"):
        checkpoint.newest(shared)


def test_pruning_neither_counts_nor_deletes_the_checkpoints_of_another_run(shared):
    write(shared, 4, val_loss=2.5)
    checkpoint.prune(shared, run_id="abc", keep=1)
    assert sorted(p.name for p in shared.iterdir()) == [f"step-{n:08d}" for n in (1, 3, 4)]


def test_a_checkpoint_of_another_run_is_moved_aside_instead_of_replaced(shared):
    written = write(shared, 3, val_loss=0.5)
    assert checkpoint.newest(shared).step == 3
    aside = shared / "other-run-step-00000003"
    assert checkpoint.verify(aside).run_id == "other"
    assert str(aside) in written.skipped[0]


def test_a_file_that_cannot_be_read_is_damaged_and_an_older_checkpoint_is_used(tmp_path, monkeypatch):
    write(tmp_path, 1)
    dying = write(tmp_path, 2).folder / "model.safetensors"

    def sha256(path):
        if path == dying:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return durable.sha256(path)

    monkeypatch.setattr(checkpoint, "sha256", sha256)
    chosen = checkpoint.newest(tmp_path)
    assert chosen.step == 1
    assert "model.safetensors cannot be read: Input/output error" in chosen.skipped[0]


def test_one_that_is_deleted_while_it_is_read_is_looked_for_anew_without_a_word(tmp_path):
    write(tmp_path, 1, val_loss=1.0)

    def saved_and_pruned_meanwhile(folder):
        if folder.name == "step-00000001":
            write(tmp_path, 2, val_loss=0.5)
            checkpoint.prune(tmp_path, run_id="abc", keep=1)
        return checkpoint.verify(folder)

    for choose in (checkpoint.best, checkpoint.newest):
        chosen = choose(tmp_path, saved_and_pruned_meanwhile)
        assert (chosen.step, chosen.skipped) == (2, ())
        shutil.rmtree(tmp_path / "step-00000002")
        write(tmp_path, 1, val_loss=1.0)


def test_one_that_is_deleted_while_the_folder_is_listed_is_no_problem(tmp_path, monkeypatch):
    for step in (1, 2):
        write(tmp_path, step)
    inspect = checkpoint.inspect

    def deleted(folder):
        if folder.name == "step-00000001":
            shutil.rmtree(folder, ignore_errors=True)
        return inspect(folder)

    monkeypatch.setattr(checkpoint, "inspect", deleted)
    assert checkpoint.problems_in(tmp_path) == []
    assert [c.step for c in checkpoint.saved_in(tmp_path)] == [2]


@pytest.mark.parametrize("size", [5 * 2**20, 2**62])
def test_a_header_of_a_million_tensors_is_refused_before_it_is_read(tmp_path, size):
    file = tmp_path / "model.safetensors"
    with file.open("wb") as written:
        written.write(size.to_bytes(8, "little"))
        written.truncate(6 * 2**20)
    with pytest.raises(CheckpointError, match="header"):
        checkpoint.load_tensors(file)


def test_a_json_file_of_many_megabytes_is_refused_before_it_is_parsed(tmp_path):
    file = tmp_path / "run.json"
    file.write_bytes(b'{"a": [' + b"[]," * 4_000_000 + b"1]}")
    with pytest.raises(CheckpointError, match="too large"):
        checkpoint.read_json(file)
