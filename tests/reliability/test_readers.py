"""Listing and sampling beside a run that saves and deletes checkpoints: always a result, never an error.

GPT2TUI_READS is the number of times, 20 by default.
"""

import os
import signal
import time

import pytest
import torch
from safetensors.torch import save_file

from gpt2tui.__main__ import main
from gpt2tui.errors import CheckpointError
from gpt2tui.launch import drive, new_run
from gpt2tui.preset import files as preset_files
from gpt2tui.run import checkpoint
from gpt2tui.run.folder import Run
from gpt2tui.training.controls import Controls
from tests import tiny_runs
from tests.reliability.terminal import PATIENCE

READS = int(os.environ.get("GPT2TUI_READS", "20"))

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the training is a fork of this process")


@pytest.fixture
def saving_run(tmp_path):
    """A run that another process trains: it saves a checkpoint at each step, and keeps one."""
    changes = ("training.num_iterations=1000000", "training.checkpoint_frequency=1", "training.keep_checkpoints=1")
    loaded = preset_files.load(["default"], tiny_runs.options(tmp_path, *changes, "training.eval_frequency=0"))
    run = Run(tmp_path / "runs" / "saving")
    child = os.fork()
    if child == 0:
        try:
            for _ in drive(new_run(loaded, run.folder), Controls(), lambda message: None):
                pass
        finally:
            os._exit(1)
    try:
        end = time.monotonic() + PATIENCE
        while not (run.info_file.exists() and checkpoint.saved_in(run.checkpoints)):
            assert time.monotonic() < end, "no checkpoint is saved"
            time.sleep(0.01)
        yield run
        assert os.waitpid(child, os.WNOHANG) == (0, 0)  # it still trains
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_checkpoint_deleted_while_its_weights_are_opened_is_an_error_of_reading(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    assert set(checkpoint.load_tensors(path)) == {"a"}
    check_header = checkpoint._check_header
    monkeypatch.setattr(checkpoint, "_check_header", lambda path: (check_header(path), path.unlink()))
    with pytest.raises(CheckpointError, match="No such file"):
        checkpoint.load_tensors(path)


@pytest.mark.timeout(300 if READS <= 20 else 0)
def test_a_run_that_saves_can_be_listed_and_sampled_at_any_moment(saving_run, capsys):
    first = checkpoint.newest(saving_run.checkpoints).step
    for number in range(READS):
        command = ["sample", "saving", "--max-length", "1"] if number % 2 else ["runs", "list", "--json"]
        assert main(command) == 0, capsys.readouterr().err
        output = capsys.readouterr()
        assert "Traceback" not in output.err
        assert output.out
    assert checkpoint.newest(saving_run.checkpoints).step > first  # checkpoints came and went meanwhile
