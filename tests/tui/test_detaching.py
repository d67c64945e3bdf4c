"""A training that is left running when the workbench is left."""

import asyncio
import os
import subprocess
import sys
import time

import pytest

from gpt2tui.errors import ResourceError, RunLockedError, UsageError
from gpt2tui.run import folder as runs
from gpt2tui.run import requests
from gpt2tui.run.events import RunFinished, RunStarted, Step
from gpt2tui.run.events_file import read_events
from gpt2tui.run.folder import OUTPUT, Run
from gpt2tui.run.summary import summarize
from gpt2tui.tui import detaching
from gpt2tui.tui.app import QuitDialog, WorkbenchApp
from gpt2tui.tui.detaching import farewell, train_in_background
from gpt2tui.tui.session import TrainingSession
from gpt2tui.tui.widgets.dialogs import ErrorDialog
from tests.test_launch import launch
from tests.tui.fake_runs import write_run
from tests.tui.fake_training import FakeTraining
from tests.tui.fake_training import launch as fake_launch
from tests.tui.looking import screen_text, until
from tests.tui.plain_workbench import first_mode

ENDLESS = ("training.num_iterations=100000000", "training.eval_frequency=0", "training.sample_frequency=0")


async def leave_running(app, pilot):
    await pilot.press("ctrl+q")
    await until(pilot, lambda: isinstance(app.screen, QuitDialog))
    await pilot.press("right", "enter")


@pytest.mark.slow
def test_a_training_that_is_left_running_continues_in_a_process_of_its_own(tmp_path, capsys):
    session = TrainingSession()
    app = WorkbenchApp(session=session, launch=launch(tmp_path, *ENDLESS))

    async def test():
        async with app.run_test(size=(120, 36)) as pilot:
            await first_mode(pilot)
            await until(pilot, lambda: session.progress.step > 0)
            await leave_running(app, pilot)
            await until(pilot, lambda: app._exit, seconds=120)

    asyncio.run(test())
    run = session.run
    assert app.return_code == 0
    assert f"gpt2tui attach {run.name}" in capsys.readouterr().err
    try:
        pid = run.info()["pid"]
        assert pid != os.getpid()
        assert os.getsid(pid) == pid  # the end of this terminal is no signal to it
        with pytest.raises(RunLockedError), runs.locked(run):
            pass
        left_at = next(e.step for e in read_events(run.events_file) if isinstance(e, RunStarted) and e.step > 0)
        deadline = time.monotonic() + 60
        while summarize(run).step <= left_at:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        assert "has stopped after step" in requests.ask(run, "stop", 60)
    events = list(read_events(run.events_file))
    steps = [event.step for event in events if isinstance(event, Step)]
    assert steps == list(range(1, steps[-1] + 1))
    assert [e.reason for e in events if isinstance(e, RunFinished)] == ["stopped", "stopped"]
    assert "stopped after step" in (run.folder / OUTPUT).read_text()


def stays_in_the_workbench(training, reason):
    """Leaves while the training runs, which fails for this reason; whether it is still active then."""
    session = TrainingSession(training)

    async def test():
        app = WorkbenchApp(session=session, launch=fake_launch())
        async with app.run_test(size=(120, 36)) as pilot:
            await first_mode(pilot)
            await until(pilot, lambda: session.progress.step > 0)
            await leave_running(app, pilot)
            await until(pilot, lambda: isinstance(app.screen, ErrorDialog))
            assert reason in screen_text(app)
            active = session.active
            assert app.is_running
        return active

    return asyncio.run(test())


@pytest.mark.slow
def test_a_process_that_cannot_train_leaves_the_user_in_the_workbench_with_the_reason(monkeypatch):
    program = "import sys; print('no room'); sys.exit(6)"
    monkeypatch.setattr(detaching, "COMMAND", (sys.executable, "-c", program))
    monkeypatch.setattr(detaching, "summarize", lambda run: summarize(write_run("stopped", ending="stopped")))
    assert not stays_in_the_workbench(FakeTraining(), "no room")


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_saved_leaves_the_user_in_the_workbench(monkeypatch):
    class Failing(FakeTraining):
        def __call__(self, launch, controls):
            for item in super().__call__(launch, controls):
                if isinstance(item, RunFinished):
                    raise ResourceError("the disk is full")
                yield item

    monkeypatch.setattr(detaching, "started_beside", lambda *_: pytest.fail("a process was started"))
    stays_in_the_workbench(Failing(), "the disk is full")


def test_a_run_that_has_all_its_steps_is_not_resumed():
    with pytest.raises(UsageError, match="is finished"):
        train_in_background(write_run("a"))


def test_a_run_outside_of_the_runs_folder_is_named_by_its_folder(tmp_path):
    found = [farewell(Run(folder), 7).splitlines()[1:] for folder in (runs.runs_folder() / "a", tmp_path / "my run")]
    elsewhere = f"'{tmp_path}/my run'"
    assert found[0] == ["come back: gpt2tui attach a", "end it: gpt2tui runs stop a"]
    assert found[1] == [f"come back: gpt2tui attach {elsewhere}", f"end it: gpt2tui runs stop {elsewhere}"]


def test_the_output_goes_through_no_link(tmp_path, monkeypatch):
    run = write_run("a", ending="stopped")
    (run.folder / OUTPUT).symlink_to(tmp_path / "elsewhere")
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    with pytest.raises(ResourceError, match="it is a link"):
        train_in_background(run)
    assert not (tmp_path / "elsewhere").exists()
