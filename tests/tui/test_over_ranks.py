"""A training over several ranks, which the workbench starts with torchrun, watches, and controls by the run folder."""

import asyncio
import contextlib
import json
import os
import sys
import time
from concurrent.futures import Future
from dataclasses import replace

import psutil
import pytest
import torch

from gpt2tui.errors import DoesNotFitError, ResourceError, UsageError
from gpt2tui.launch import Launch, OpenedRun
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.files import LoadedPreset
from gpt2tui.run import folder as runs
from gpt2tui.run import requests
from gpt2tui.run.events import CheckpointSaved, Event, Paused, Resumed, RunFailed, RunFinished, RunStarted, Step
from gpt2tui.run.events_file import read_events
from gpt2tui.run.folder import OUTPUT, Run
from gpt2tui.run.summary import summarize
from gpt2tui.training import memory_check
from gpt2tui.training.controls import Controls
from gpt2tui.tui import over_ranks
from gpt2tui.tui.app import QuitDialog, WorkbenchApp
from gpt2tui.tui.over_ranks import ranks_of, train_over_ranks
from gpt2tui.tui.session import TrainingSession
from tests import tiny_runs
from tests.tracking import event_samples
from tests.tui.fake_training import FakeTraining
from tests.tui.fake_training import launch as fake_launch
from tests.tui.looking import until
from tests.tui.plain_workbench import first_mode

SECONDS = 60

RANKS = """
import json, os, pathlib, sys, time
from filelock import FileLock

words = sys.argv[1:]
folder = words[words.index("--run-dir" if "--run-dir" in words else "--resume") + 1]
folder = pathlib.Path(folder.partition("@")[0])
answers = json.loads(pathlib.Path(os.environ["ANSWERS"]).read_text())
preset = pathlib.Path(words[words.index("--preset") + 1]) if "--preset" in words else None
print("reading the corpus", flush=True)
if "wait" in answers:
    time.sleep(600)
with FileLock(folder / ".lock"), (folder / "events.jsonl").open("a") as events:
    def say(what):
        for line in answers[what]:
            print(line, file=events, flush=True)

    info = {"pid": os.getpid(), "words": words, "preset": preset.read_text() if preset else ""}
    (folder / "run.json").write_text(json.dumps(info))
    say("started")
    while "end" not in answers:
        for path in sorted((folder / "requests").glob("*.json")):
            request = json.loads(path.read_text())["request"]
            path.unlink()
            say(request)
            if request == "stop":
                sys.exit(0)
        time.sleep(0.01)
    say("end")
    print("gpt2tui: rank 1 was killed (process 7)", flush=True)
    sys.exit(6)
"""
ANSWERS = {
    "started": [event_samples.run_started(run="a"), event_samples.step(1)],
    "pause": [Paused(step=1)],
    "continue": [Resumed(step=1)],
    "checkpoint": [CheckpointSaved(step=1, path="checkpoints/step-00000001", seconds=0.1, bytes=9)],
    "stop": [RunFinished(step=2, best_val_loss=2.0, seconds=1.0, reason="stopped")],
}


@pytest.fixture
def ranks(tmp_path, monkeypatch):
    """Says what a process that stands for torchrun and its ranks will answer to each request; ends it at the end."""

    def will(**more):
        texts = {name: [event.as_json() for event in events] for name, events in {**ANSWERS, **more}.items()}
        (tmp_path / "answers.json").write_text(json.dumps(texts))

    will()
    monkeypatch.setenv("ANSWERS", str(tmp_path / "answers.json"))
    monkeypatch.setattr(over_ranks, "TORCHRUN", (sys.executable, "-c", RANKS))
    monkeypatch.setattr(over_ranks, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(memory_check, "free_bytes", lambda: 10**12)
    yield will
    for process in psutil.Process().children():
        process.kill()
        process.wait()


def launch(folder, *overrides, **arguments):
    preset = tiny_runs.preset(folder, "training.gradient_accumulation=2", "distributed.ranks=2", *overrides)
    return Launch(LoadedPreset("tiny", preset, ()), **arguments)


class Watched:
    """A training, step by step: what it has emitted, of which `until` waits for the next of a kind."""

    def __init__(self, launch):
        self.controls = Controls()
        self.stream = train_over_ranks(launch, self.controls, 2)
        self.emitted = []

    def until(self, kind):
        end = time.monotonic() + SECONDS
        for item in self.stream:
            self.emitted.append(item)
            if isinstance(item, kind):
                return item
            assert time.monotonic() < end
        raise AssertionError(self.emitted)


def test_what_the_user_asks_for_reaches_the_ranks_through_the_run_folder(tmp_path, ranks):
    training = launch(tmp_path)
    watched = Watched(training)
    opened = watched.until(OpenedRun)
    watched.until(Step)
    assert psutil.Process(opened.torchrun).is_running()
    assert os.getsid(opened.torchrun) == opened.torchrun != os.getsid(0)
    watched.controls.pause()
    watched.until(Paused)
    watched.controls.resume()
    watched.until(Resumed)
    watched.controls.request("checkpoint")
    watched.until(CheckpointSaved)
    weights: Future = watched.controls.copy_weights()
    with pytest.raises(ResourceError, match="chat with its checkpoint"):
        weights.result(SECONDS)
    watched.controls.stop()
    watched.until(RunFinished)
    assert list(watched.stream) == []
    stages = [item.stage for item in watched.emitted if hasattr(item, "stage")]
    assert all(stage.startswith("2 processes of torchrun") for stage in stages)
    assert isinstance(next(item for item in watched.emitted if isinstance(item, Event)), RunStarted)
    info = opened.run.info()
    assert {"--nproc-per-node=2", "--force"} <= set(info["words"])
    (tmp_path / "again.toml").write_text(info["preset"])
    assert preset_files.load([str(tmp_path / "again.toml")]).preset == training.loaded.preset
    assert "reading the corpus" in (opened.run.folder / OUTPUT).read_text()


def test_a_run_that_is_left_trains_on(tmp_path, ranks):
    watched = Watched(launch(tmp_path))
    opened = watched.until(OpenedRun)
    watched.until(Step)
    watched.controls.leave()
    assert list(watched.stream) == []
    assert runs.is_locked(opened.run)
    assert psutil.Process(opened.torchrun).is_running()


def test_a_session_leaves_what_has_processes_of_its_own(tmp_path, ranks):
    """As when the terminal is gone; what this process trains is stopped instead."""
    session = TrainingSession(lambda launch, controls: train_over_ranks(launch, controls, 2))
    session.start(launch(tmp_path))
    end = time.monotonic() + SECONDS
    while session.progress.step < 1:
        assert time.monotonic() < end
        session.drain()
        time.sleep(0.01)
    assert not session.change_learning_rate(0.5)
    assert session.leave()
    session.stop()  # asks nothing of them any more
    assert session.join(SECONDS)
    assert not session.active
    assert psutil.Process(session.torchrun).is_running()
    assert not (session.run.folder / requests.FOLDER).exists()

    here = TrainingSession(FakeTraining())
    here.start(fake_launch())
    while here.progress.step < 1:
        assert time.monotonic() < end
        here.drain()
        time.sleep(0.01)
    assert not here.leave()
    here.stop()
    assert here.join(SECONDS)


def test_a_resumed_run_shows_its_new_events_only(tmp_path, ranks):
    first = Watched(launch(tmp_path))
    run = first.until(OpenedRun).run
    first.until(Step)
    first.controls.stop()
    first.until(RunFinished)
    assert list(first.stream) == []
    again = Watched(launch(tmp_path, resume=run, resume_step=1, overrides=("optimizer.lr=0.5",)))
    again.controls.request("checkpoint")
    again.until(CheckpointSaved)
    events = [type(item) for item in again.emitted if isinstance(item, Event)]
    assert events == [RunStarted, Step, CheckpointSaved]


def test_the_words_of_a_resumed_run_and_of_a_branch(tmp_path):
    run = Run(tmp_path / "run")
    resumed = launch(tmp_path, resume=run, resume_step=7, layers=("a.toml",), overrides=("optimizer.lr=0.5",))
    words = over_ranks._command(resumed, run, 2, tmp_path)
    after = words[words.index("--resume") :]
    assert after == ["--resume", f"{run.folder}@7", "--preset", "a.toml", "--set", "optimizer.lr=0.5"]
    branch = replace(resumed, run_dir=tmp_path / "branch", layers=(), overrides=(), resume_step=None)
    words = over_ranks._command(branch, Run(tmp_path / "branch"), 2, tmp_path)
    assert words[words.index("--resume") :] == ["--resume", str(run.folder), "--run-dir", str(tmp_path / "branch")]


def test_a_stop_before_the_first_step_ends_the_ranks_and_leaves_nothing(tmp_path, ranks):
    ranks(wait=[])
    watched = Watched(launch(tmp_path))
    opened = watched.until(OpenedRun)
    next(watched.stream)
    watched.stream.close()
    assert not psutil.pid_exists(opened.torchrun)
    assert not opened.run.folder.exists()


def test_ranks_that_cannot_begin_say_why(tmp_path, monkeypatch, ranks):
    program = (
        "import sys; print('gpt2tui: no room\\nfor it'); print('E1126 09:00:00 a report\\nof torchrun'); sys.exit(6)"
    )
    monkeypatch.setattr(over_ranks, "TORCHRUN", (sys.executable, "-c", program))
    watched = Watched(launch(tmp_path))
    with pytest.raises(ResourceError, match=r"the 2 ranks have ended before they trained: no room\nfor it$"):
        watched.until(RunStarted)
    assert runs.all_runs() == []
    assert not any(runs.runs_folder().iterdir())


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ([RunFailed(step=1, message="the loss is nan")], "^the loss is nan$"),
        ([], "the ranks that trained .* have ended: rank 1 was killed"),
    ],
)
def test_ranks_that_fail_say_why(tmp_path, ranks, end, message):
    ranks(end=end)
    with pytest.raises(ResourceError, match=message):
        Watched(launch(tmp_path)).until(RunFinished)


def test_what_does_not_fit_is_asked_about_before_anything_is_started(tmp_path, ranks, monkeypatch):
    monkeypatch.setattr(memory_check, "free_bytes", lambda: 1000)
    monkeypatch.setattr(over_ranks, "started_beside", lambda *_: pytest.fail("torchrun was started"))
    with pytest.raises(DoesNotFitError):
        Watched(launch(tmp_path)).until(OpenedRun)
    assert not any(runs.runs_folder().iterdir())


def test_on_gpus_the_ranks_ask_whether_they_fit(tmp_path, monkeypatch):
    monkeypatch.setattr("gpt2tui.device.choose_device", lambda asked: torch.device("cuda", 0))
    monkeypatch.setattr(memory_check, "check_fit", lambda *_: pytest.fail("the workbench took memory of a GPU"))
    assert over_ranks._is_fit_checked(launch(tmp_path), Run(tmp_path), 2) is False
    assert over_ranks._is_fit_checked(launch(tmp_path, force=True), Run(tmp_path), 2) is True


def test_how_many_ranks_train_a_preset(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)

    def found(*overrides):
        return ranks_of(tiny_runs.preset(tmp_path, *overrides))

    assert found("training.device=cpu") == found("training.device=cuda:1") == 1
    assert found("training.device=auto") == 1  # one micro-batch
    assert found("training.device=auto", "training.gradient_accumulation=16") == 8
    assert found("training.device=cuda", "training.gradient_accumulation=12") == 6
    assert found("training.device=cuda", "training.gradient_accumulation=12", "distributed.ranks=1") == 1
    assert found("training.device=cpu", "training.gradient_accumulation=12", "distributed.ranks=3") == 3
    with pytest.raises(UsageError, match="cannot be divided among 5 ranks"):
        found("training.gradient_accumulation=12", "distributed.ranks=5")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert found("training.device=auto", "training.gradient_accumulation=16") == 1


@pytest.mark.slow
def test_the_workbench_trains_over_two_ranks_that_train_on_when_it_is_left(tmp_path, capsys):
    endless = ("training.num_iterations=100000000", "training.eval_frequency=0", "training.sample_frequency=0")
    session = TrainingSession()
    app = WorkbenchApp(session=session, launch=launch(tmp_path, *endless))

    async def test():
        async with app.run_test(size=(120, 36)) as pilot:
            await first_mode(pilot)
            await until(pilot, lambda: session.progress.step > 0, seconds=240)
            await pilot.press("2", "space")
            await until(pilot, lambda: session.state == "paused", seconds=60)
            await pilot.press("space")
            await until(pilot, lambda: session.state == "training", seconds=60)
            await pilot.press("ctrl+q")
            await until(pilot, lambda: isinstance(app.screen, QuitDialog))
            await pilot.press("right", "enter")
            await until(pilot, lambda: app._exit, seconds=60)

    asyncio.run(test())
    run = session.run
    try:
        assert app.return_code == 0
        assert f"gpt2tui attach {run.name}" in capsys.readouterr().err
        assert run.info()["device"] == "2 x cpu"
        assert os.getsid(run.info()["pid"]) != os.getsid(0)
        left_at, end = summarize(run).step, time.monotonic() + 120
        while summarize(run).step <= left_at:
            assert time.monotonic() < end
            time.sleep(0.05)
        assert "has saved checkpoints/step-" in requests.ask(run, "checkpoint", 120)
        assert "val loss" in requests.ask(run, "evaluate", 120)
    finally:
        assert "has stopped after step" in requests.ask(run, "stop", 120)
    assert [e.reason for e in read_events(run.events_file) if isinstance(e, RunFinished)] == ["stopped"]
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(session.torchrun).wait(120)
