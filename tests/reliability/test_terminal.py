"""The workbench in a real terminal, with the real engine and a model of a few thousand parameters."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from gpt2tui.__main__ import main
from gpt2tui.preset import files as preset_files
from gpt2tui.run import checkpoint
from gpt2tui.run.events import Paused, Resumed, Step
from gpt2tui.run.events_file import read_events
from gpt2tui.run.folder import all_runs
from gpt2tui.run.summary import summarize
from gpt2tui.system.files import config_folder
from tests import tiny_runs
from tests.reliability.terminal import AS_BEFORE, IN_THE_WORKBENCH, PATIENCE, Terminal, needs_tmux

pytestmark = [needs_tmux, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def tiny(tmp_path):
    """A preset of the user's that trains until it is stopped."""
    path = config_folder() / "presets" / "tiny.toml"
    settings = ("training.num_iterations=200000", "training.eval_frequency=200", "training.checkpoint_frequency=100000")
    preset_files.save(tiny_runs.preset(tmp_path, *settings), path)
    return path


@pytest.fixture
def terminal(tmp_path):
    with Terminal(tmp_path) as opened:
        yield opened


def open_preset(terminal):
    """Opens the workbench on the tiny preset, until it can be edited."""
    terminal.start("--preset", "tiny")
    terminal.wait_for(" valid ")


def train(terminal):
    """Opens the workbench on the tiny preset and trains it."""
    open_preset(terminal)
    terminal.keys("C-t")
    terminal.wait_for("● TRAINING")


def the_run():
    (run,) = all_runs()
    return run


def steps_while_paused(run):
    """The events of steps between a `paused` and the `resumed` that follows it."""
    steps, paused = [], False
    for event in read_events(run.events_file):
        if isinstance(event, Paused | Resumed):
            paused = isinstance(event, Paused)
        elif paused and isinstance(event, Step):
            steps.append(event)
    return steps


def test_a_session_from_the_first_key_to_the_last(terminal, tiny):
    open_preset(terminal)
    assert terminal.state() | IN_THE_WORKBENCH == terminal.state()

    # edit a field by keys alone, and save: the file is what the command line trains
    terminal.keys("Enter")
    terminal.wait_for("model.vocab_size is left out")  # the first field
    terminal.type("300")
    terminal.wait_for("* tiny")
    terminal.keys("C-s")
    terminal.wait_until(lambda: preset_files.check(tiny).preset.model.vocab_size == 300, "the saved edit")
    assert main(["--headless", "--preset", str(tiny), "--dry-run", "--json"]) == 0

    terminal.keys("C-t")
    terminal.wait_for("● TRAINING")
    terminal.wait_until(lambda: summarize(the_run()).val_loss is not None, "an evaluation")
    assert preset_files.check(the_run().preset_file).preset == preset_files.check(tiny).preset

    terminal.keys("Space")
    terminal.wait_for("PAUSED")
    paused_at = summarize(the_run()).step
    terminal.keys("Space")
    terminal.wait_for("● TRAINING")
    terminal.wait_until(lambda: summarize(the_run()).step > paused_at, "a step after the pause")
    assert [type(event) for event in read_events(the_run().events_file) if isinstance(event, Paused | Resumed)] == [
        Paused,
        Resumed,
    ]
    assert not steps_while_paused(the_run())

    # chat with the live weights during the training
    terminal.keys("F4")
    terminal.wait_for("live")
    terminal.wait_for("how a text begins")
    terminal.click("how a text begins")
    terminal.type("the quick")
    terminal.wait_for("the quick")
    terminal.keys("Enter")
    terminal.wait_for("mean p")

    # its own row says so
    terminal.keys("F7")
    terminal.wait_for("● training")

    # every mode at any size, while it runs
    for width, height in ((80, 24), (20, 5), (120, 36)):
        terminal.resize(width, height)
        for key, mode in (("F2", "1 Presets"), ("F3", "2 Train"), ("F4", "3 Chat"), ("F7", "4 Runs")):
            terminal.keys(key)
            terminal.wait_until(lambda mode=mode: mode in terminal.bold_text(), f"the mode {mode} in front")
    terminal.wait_for("● training")

    terminal.keys("C-q")
    terminal.wait_for("Stop and save")
    terminal.keys("Enter")
    terminal.wait_for("ended=0")
    assert terminal.state() == AS_BEFORE
    assert summarize(the_run()).state == "stopped"
    assert checkpoint.newest(the_run().checkpoints).step == summarize(the_run()).step


def test_a_signal_saves_the_run_and_gives_the_terminal_back(terminal, tiny):
    train(terminal)
    terminal.wait_until(lambda: summarize(the_run()).step > 5, "some steps")
    os.kill(terminal.pid, signal.SIGTERM)
    terminal.wait_for("ended=143")
    assert terminal.state() == AS_BEFORE
    summary = summarize(the_run())
    assert summary.state == "stopped"
    assert checkpoint.newest(the_run().checkpoints).step == summary.step


def test_these_tests_see_a_workbench_that_is_killed(terminal, tiny):
    """Negative control: killed without cleaning up, it leaves the terminal changed and the run crashed."""
    train(terminal)
    terminal.wait_until(lambda: summarize(the_run()).step > 5, "some steps")
    os.kill(terminal.pid, signal.SIGKILL)
    terminal.wait_for("ended=137")
    assert terminal.state() != AS_BEFORE
    assert summarize(the_run()).state == "crashed"


def test_a_terminal_that_is_closed_loses_nothing(terminal, tiny):
    train(terminal)
    terminal.wait_until(lambda: summarize(the_run()).step > 5, "some steps")
    workbench = psutil.Process(terminal.pid)
    terminal.tmux("kill-session")
    psutil.wait_procs([workbench], timeout=PATIENCE)
    assert not workbench.is_running()
    summary = summarize(the_run())
    assert summary.state == "stopped"
    assert checkpoint.newest(the_run().checkpoints).step == summary.step


def test_another_process_watches_a_headless_run(terminal, tiny):
    headless = subprocess.Popen(
        [sys.executable, "-m", "gpt2tui", "--headless", "--preset", "tiny", "--log-format", "jsonl"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        terminal.wait_until(lambda: any(summarize(run).step > 5 for run in all_runs()), "a headless training")
        terminal.start("attach", the_run().name)
        terminal.wait_for("trained by another")
        seen = summarize(the_run()).step
        terminal.wait_until(lambda: summarize(the_run()).step > seen + 20, "more steps")
        terminal.keys("F7")
        terminal.wait_for("◉ training")
        terminal.keys("C-q")
        terminal.wait_for("ended=0")
        assert headless.poll() is None  # watching never ends what is watched
    finally:
        headless.terminate()
        headless.wait(60)
    assert summarize(the_run()).state == "stopped"


def test_no_color_is_honoured_and_so_is_a_pipe(terminal, tiny):
    terminal.type("export NO_COLOR=1")
    terminal.keys("Enter")
    terminal.start()
    terminal.wait_for("Train GPT-2 from scratch")
    coloured = {code for code in terminal.screen(colours=True).split("\x1b[") if code[:5] in ("38;2;", "48;2;")}
    triples = [code[5:].split("m")[0].split(";") for code in coloured]
    assert all(len(set(triple[:3])) == 1 for triple in triples), triples  # grey
    terminal.keys("C-q")
    terminal.wait_for("ended=0")
    terminal.type(f"{sys.executable} -m gpt2tui | cat")
    terminal.keys("Enter")
    terminal.wait_for("--headless")
