"""A rank that is killed, hangs or gets a signal: the others end, say so once, and torchrun resumes the run."""

import os
import re
import signal
import time

import psutil
import pytest

from gpt2tui.run import checkpoint
from gpt2tui.run.events import CheckpointSaved, RunFailed, RunFinished, RunStarted, Step, Warned
from gpt2tui.run.events_file import read_events
from gpt2tui.run.folder import Run
from tests import tiny_runs
from tests.training.rank_processes import LIMIT, torchrun

pytestmark = pytest.mark.slow


class Started:
    """A run of two ranks that would take hours, with a checkpoint every five steps."""

    def __init__(self, folder, *overrides, restarts=0, program="gpt2tui"):
        self.run, self.log = Run(folder / "run"), folder / "log.txt"
        settings = tiny_runs.options(
            folder, "training.gradient_accumulation=2", "training.num_iterations=1000000", "training.eval_frequency=0",
            "training.checkpoint_frequency=5", "schedule.name=constant", *overrides,
        )  # fmt: skip
        words = [program, "--headless", "--preset", "default", "--run-dir", str(self.run.folder)]
        words += [word for setting in settings for word in ("--set", setting)]
        self.process = torchrun(2, *words, log=self.log, restarts=restarts)

    def until(self, *conditions):
        """Waits until the run's events fulfil each condition in turn."""
        for condition in conditions:
            end = time.monotonic() + LIMIT
            while not condition(self.events()):
                assert time.monotonic() < end, self.log.read_text()
                assert self.process.poll() is None, self.log.read_text()
                time.sleep(0.05)

    def events(self):
        return list(read_events(self.run.events_file)) if self.run.events_file.exists() else []

    def rank(self, number):
        """The process of a rank."""
        for process in psutil.Process(self.process.pid).children(recursive=True):
            if process.environ().get("RANK") == str(number):
                return process
        raise AssertionError(self.log.read_text())

    def end(self):
        """What torchrun and its ranks have printed, when they have ended by themselves."""
        code = self.process.wait(LIMIT)
        text = self.log.read_text()
        assert code != 0, text
        return text

    def close(self):
        with psutil.Process(self.process.pid).oneshot():
            processes = [psutil.Process(self.process.pid)]
        for process in [*processes[0].children(recursive=True), *processes]:
            process.kill()
        self.process.wait()


@pytest.fixture
def start(tmp_path):
    started = []

    def new(*overrides, **arguments):
        started.append(Started(tmp_path, *overrides, **arguments))
        return started[-1]

    yield new
    for each in started:
        if each.process.poll() is None:
            each.close()


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


def saved(events):
    return bool(of(CheckpointSaved, events))


def messages(text):
    return [line for line in text.splitlines() if line.startswith("gpt2tui: ")]


@pytest.mark.parametrize("victim", [0, 1])
def test_when_a_rank_is_killed_the_other_one_ends_and_names_it(start, victim):
    run = start()
    run.until(saved)
    pid = run.rank(victim).pid
    os.kill(pid, signal.SIGKILL)
    (message,) = messages(run.end())
    assert message.startswith(f"gpt2tui: rank {victim} was killed (process {pid})")
    checkpoint.newest(run.run.checkpoints)
    if victim:
        assert f"rank {victim} was killed" in of(RunFailed, run.events())[0].message


@pytest.fixture
def troubled(start, monkeypatch):
    """Starts two ranks, of which one gets into trouble in step 8; a rank that waits for the other does so for 5 s."""

    def new(trouble, victim):
        monkeypatch.setenv("TROUBLE", trouble)
        monkeypatch.setenv("TROUBLED_RANK", str(victim))
        return start("distributed.timeout=5", program="tests.training.rank_in_trouble")

    return new


@pytest.mark.parametrize("victim", [0, 1])
def test_when_a_rank_is_out_of_memory_one_message_names_it(troubled, victim):
    run = troubled("out of memory", victim)
    text = run.end()
    (message,) = messages(text)
    where = "" if victim == 0 else "rank 1 has failed: "  # rank 0 speaks of itself
    assert message.startswith(f"gpt2tui: {where}out of memory on cpu at step 7: ")
    assert "in begin_in_trouble" not in text  # no traceback of ours; torchrun prints its own
    assert "out of memory" in of(RunFailed, run.events())[0].message
    assert checkpoint.newest(run.run.checkpoints).step == 5


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_waits_for_ever_is_named_and_ended(troubled, victim):
    run = troubled("hangs", victim)
    (message,) = messages(run.end())
    assert message.startswith(f"gpt2tui: rank {victim} does not answer (")
    assert checkpoint.newest(run.run.checkpoints).step == 5


def test_when_a_rank_is_stopped_the_other_one_ends_after_the_timeout(start):
    run = start("distributed.timeout=5")
    run.until(saved)
    run.rank(1).suspend()
    run.until(lambda events: of(RunFailed, events))
    assert "rank 1 is stopped and does not answer" in of(RunFailed, run.events())[0].message
    checkpoint.newest(run.run.checkpoints)


def test_a_signal_to_a_rank_stops_all_of_them_after_the_same_step(start):
    run = start()
    run.until(saved)
    run.rank(1).terminate()
    text = run.end()
    assert messages(text) == []
    events = run.events()
    assert [e.message for e in of(Warned, events)] == ["rank 1 got SIGTERM: the run stops and saves a checkpoint"]
    assert of(RunFinished, events)[0].reason == "stopped"
    assert checkpoint.newest(run.run.checkpoints).step == of(Step, events)[-1].step
    assert re.search(r"exitcode +: 143", text)


def test_torchrun_resumes_the_run_from_its_last_checkpoint(start):
    run = start(restarts=1)
    run.until(saved)
    os.kill(run.rank(1).pid, signal.SIGKILL)
    run.until(lambda events: len(of(RunStarted, events)) == 2, lambda events: isinstance(events[-1], Step))
    events = run.events()
    _, resumed = of(RunStarted, events)
    assert resumed.step in {e.step for e in of(CheckpointSaved, events)}
    run.process.terminate()  # torchrun passes it to its ranks
    run.end()
    assert of(RunFinished, run.events())[0].reason == "stopped"
