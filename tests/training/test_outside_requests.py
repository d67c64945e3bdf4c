"""A training obeys other processes: the command line's requests, to a training in a thread."""

import threading
import time
from collections import deque

import pytest

from gpt2tui.__main__ import main
from gpt2tui.launch import Launch
from gpt2tui.preset.files import LoadedPreset
from gpt2tui.run import checkpoint
from gpt2tui.run import folder as runs
from gpt2tui.run.events import Event, RunFinished, Step
from gpt2tui.run.events_file import read_events
from gpt2tui.run.requests import FOLDER
from gpt2tui.run.summary import summarize
from gpt2tui.training.controls import Controls
from gpt2tui.tui.session import training_stream
from tests import tiny_runs

ENDLESS = (
    "training.num_iterations=100000000",
    "training.eval_frequency=0",
    "training.checkpoint_frequency=0",
    "training.sample_frequency=0",
)


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def training(tmp_path):
    """The thread of an endless training."""
    emitted, controls = [], Controls()
    launch = Launch(LoadedPreset("tiny", tiny_runs.preset(tmp_path, *ENDLESS), ()))

    def train():
        for item in training_stream(launch, controls):
            emitted.append(item)

    thread = threading.Thread(target=train)
    thread.start()
    until(lambda: any(isinstance(item, Step) for item in emitted))
    yield thread
    controls.stop()
    thread.join()


def test_a_training_obeys_the_command_line(training, capsys):
    run = runs.find("latest")

    def answer(request):
        assert main(["runs", request, "latest"]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out

    assert "is paused after step" in answer("pause")
    steps = summarize(run).step
    assert "is paused already" in answer("pause")
    assert "val loss" in answer("evaluate")
    assert f"has saved checkpoints/step-{steps:08d}" in answer("checkpoint")
    assert f"has a checkpoint of step {steps:,} already" in answer("checkpoint")
    assert summarize(run).step == steps
    assert f"continues after step {steps:,}" in answer("continue")
    assert "is not paused" in answer("continue")
    assert "has saved" in answer("checkpoint")
    assert "has stopped after step" in answer("stop")
    training.join()
    finished = [event for event in read_events(run.events_file) if isinstance(event, RunFinished)]
    assert [event.reason for event in finished] == ["stopped"]
    assert checkpoint.newest(run.checkpoints).step == finished[0].step
    assert not (run.folder / FOLDER).exists()
    assert main(["runs", "pause", "latest"]) == 2


def test_a_stop_ends_the_preparation_of_a_run_that_is_resumed(tmp_path, capsys):
    """The thread that asks waits for the answer, however slow this one is, which prepares."""
    loaded = LoadedPreset("tiny", tiny_runs.preset(tmp_path, "training.num_iterations=4"), ())
    deque(training_stream(Launch(loaded), Controls()), maxlen=0)
    run = runs.find("latest")
    before = run.events_file.read_bytes()
    controls = Controls()
    stream = training_stream(Launch(loaded, resume=run, overrides=("training.num_iterations=8",)), controls)
    next(stream)
    codes = []
    asking = threading.Thread(target=lambda: codes.append(main(["runs", "stop", "latest"])))
    asking.start()
    until(lambda: controls.stopping)
    assert [item for item in stream if isinstance(item, Event)] == []
    asking.join()
    assert codes == [0]
    assert "nothing to save" in capsys.readouterr().out
    assert run.events_file.read_bytes() == before
