"""A run killed at any instant resumes, never behind what it has reported, and ends with the same weights bit for bit.

GPT2TUI_KILLS is the number of kills, 4 by default.
"""

import os
import random
import shutil
import signal
import time

import pytest
import torch

from gpt2tui.launch import drive, new_run, resumed_run
from gpt2tui.preset import files as preset_files
from gpt2tui.run import checkpoint
from gpt2tui.run.events import CheckpointSaved, RunFinished, RunStarted
from gpt2tui.run.folder import Run
from gpt2tui.training.controls import Controls
from tests import tiny_runs

KILLS = int(os.environ.get("GPT2TUI_KILLS", "4"))
LAST_STEP = 12

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the killed process is a fork of this one")


def loaded_preset(folder):
    changes = ("training.checkpoint_frequency=1", "training.keep_checkpoints=2", "model.dropout=0.1")
    return preset_files.load(["default"], tiny_runs.options(folder, *changes))


def weights(run):
    return checkpoint.load_tensors(run / "checkpoints" / checkpoint.folder_name(LAST_STEP) / "model.safetensors")


def is_equal(tensors, others):
    return tensors.keys() == others.keys() and all(torch.equal(tensors[name], others[name]) for name in tensors)


def killed_after(seconds, loaded, run):
    """Trains in a fork, kills it and returns the last step that it has reported as saved."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            for emitted in drive(new_run(loaded, run), Controls(), lambda message: None):
                if isinstance(emitted, CheckpointSaved):
                    os.write(writing, f"{emitted.step}\n".encode())
        finally:
            os._exit(0)
    os.close(writing)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(reading) as reported:
        return max(map(int, reported.read().split()), default=0)


def resumed_at(loaded, run):
    """Trains to the end, as a supervisor would: it resumes what is a run, else it starts anew. Returns the step."""
    is_run = (run / "run.json").exists()
    opening = resumed_run(Run(run)) if is_run else new_run(loaded, run)
    events = list(drive(opening, Controls(), lambda message: None))
    assert isinstance(events[-1], RunFinished)
    return next(event.step for event in events if isinstance(event, RunStarted))


@pytest.mark.slow
def test_a_killed_run_resumes_where_it_reported_and_ends_with_the_same_weights(tmp_path, monkeypatch):
    loaded = loaded_preset(tmp_path)
    started = time.monotonic()
    list(drive(new_run(loaded, tmp_path / "whole"), Controls(), lambda message: None))
    whole, seconds = weights(tmp_path / "whole"), time.monotonic() - started
    moments = random.Random(0)
    for number in range(KILLS):
        run = tmp_path / f"killed-{number}"
        if number % 2:  # the corpus is prepared anew
            monkeypatch.setenv("GPT2TUI_CACHE", str(tmp_path / f"cache-{number}"))
        reported = killed_after(moments.uniform(0, seconds), loaded, run)
        assert resumed_at(loaded, run) >= reported
        assert is_equal(weights(run), whole)
        shutil.rmtree(run)


def test_the_comparison_sees_a_lost_checkpoint_and_other_weights(tmp_path):
    loaded = loaded_preset(tmp_path)
    run = tmp_path / "run"
    list(drive(new_run(loaded, run), Controls(), lambda message: None))
    whole = weights(run)
    for saved in checkpoint.saved_in(run / "checkpoints"):
        shutil.rmtree(saved.folder)
    with pytest.raises(checkpoint.CheckpointError):
        resumed_at(loaded, run)
    changed = {name: tensor.clone() for name, tensor in whole.items()}
    next(iter(changed.values())).view(-1)[0] += 1e-6
    assert not is_equal(changed, whole)
