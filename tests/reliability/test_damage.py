"""One file that is full, damaged or no file at all: named, passed over or refused; never a traceback or a wait."""

import contextlib
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from gpt2tui.__main__ import main
from gpt2tui.errors import CheckpointError, Gpt2TuiError
from gpt2tui.launch import drive, new_run, resumed_run
from gpt2tui.preset import files as preset_files
from gpt2tui.run import checkpoint
from gpt2tui.run.folder import Run
from gpt2tui.training.controls import Controls
from tests import tiny_runs

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes, links and limits of POSIX systems")


def loaded_preset(folder):
    return preset_files.load(["default"], tiny_runs.options(folder))


def train(loaded, run):
    opening = resumed_run(Run(run)) if (run / "run.json").exists() else new_run(loaded, run)
    return list(drive(opening, Controls(), lambda message: None))


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x80
    path.write_bytes(data)


def replaced_by(make):
    def damage(path):
        path.unlink()
        make(path)

    return damage


DAMAGES = {
    "truncated": truncate,
    "flipped": flip_a_bit,
    "missing": Path.unlink,
    "folder": replaced_by(Path.mkdir),
    "pipe": replaced_by(os.mkfifo),
    "link to nothing": replaced_by(lambda path: path.symlink_to("nowhere")),
    "link out of the run": replaced_by(lambda path: path.symlink_to("/etc/passwd")),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run of two checkpoints, its cache beside it."""
    folder = tmp_path_factory.mktemp("whole")
    os.environ["GPT2TUI_CACHE"] = str(folder / "cache")
    train(loaded_preset(folder), folder / "runs" / "run")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(280)
@pytest.mark.parametrize("damage", DAMAGES)
def test_one_damaged_file_of_a_run_is_no_traceback(tmp_path, whole, monkeypatch, capsys, damage):
    names = [path.relative_to(whole) for path in (whole / "runs").rglob("*") if path.is_file() and path.stat().st_size]
    assert len(names) > 10
    newest = Path("runs/run/checkpoints") / checkpoint.folder_name(12)
    for name in names:
        if name.parent.name == "run" or name.parent == newest:
            copy = tmp_path / name.parent.name / name.name
            shutil.copytree(whole / "runs", copy / "runs")
            DAMAGES[damage](copy / name)
            monkeypatch.setenv("GPT2TUI_RUNS", str(copy / "runs"))
            for command in (["runs", "list"], ["runs", "show", "run"], ["sample", "run", "--max-length", "1"]):
                assert main(command) in (0, 2, 4, 6), (name, command)
            with contextlib.suppress(Gpt2TuiError), resumed_run(Run(copy / "runs" / "run")):
                pass
    capsys.readouterr()


def exit_code_with_files_of_at_most(size, loaded, run):
    """Trains in a fork in which no file can grow beyond `size` bytes, as on a disk that is full."""
    import resource

    child = os.fork()
    if child == 0:
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            train(loaded, run)
            code = 0
        except Gpt2TuiError as error:
            code = error.exit_code
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_file_ends_with_6_and_the_run_goes_on_when_there_is_space(tmp_path, monkeypatch):
    loaded = loaded_preset(tmp_path)
    train(loaded, tmp_path / "whole")
    last = Path("checkpoints") / checkpoint.folder_name(12) / "model.safetensors"
    expected = checkpoint.load_tensors(tmp_path / "whole" / last)
    sizes = sorted({path.stat().st_size for path in (tmp_path / "whole").rglob("*") if path.is_file()})
    whole = 2 * sizes[-1]  # no file is as large
    for size in (*sizes[: -1 : max(1, len(sizes) // 4)], whole):  # each time other files are too large
        run = tmp_path / f"run-{size}"
        monkeypatch.setenv("GPT2TUI_CACHE", str(tmp_path / f"cache-{size}"))
        assert exit_code_with_files_of_at_most(size, loaded, run) == (0 if size == whole else 6)
        for saved in checkpoint.saved_in(run / "checkpoints") if run.exists() else ():
            checkpoint.verify(saved.folder)
        train(loaded, run)
        tensors = checkpoint.load_tensors(run / last)
        assert all(torch.equal(tensors[name], tensor) for name, tensor in expected.items())


def test_a_checkpoint_that_is_damaged_is_seen(whole, tmp_path):
    copy = shutil.copytree(whole / "runs/run/checkpoints" / checkpoint.folder_name(12), tmp_path / "copy")
    checkpoint.verify(copy)
    flip_a_bit(copy / "model.safetensors")
    with pytest.raises(CheckpointError):
        checkpoint.verify(copy)
