"""Signals, kills and what is left of a run: as a script sees them."""

import io
import json
import os
import signal
import subprocess
import time

import psutil
import pytest

from gpt2tui.preset import files as preset_files
from gpt2tui.run import checkpoint
from tests.commands.command_line import ENVIRONMENT, JSONL, clear_message, command, gpt2tui, start, train_arguments


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)],
    ids=lambda v: str(int(v)),
)
def test_a_signal_finishes_the_step_and_saves_and_gives_its_exit_code(tmp_path, number, code):
    class SignalAtTheSecondStep(io.StringIO):
        def write(self, text):
            if '"event": "step"' in text and '"step": 2,' in text:
                signal.raise_signal(number)
            return super().write(text)

    run = tmp_path / "run"
    stopped = gpt2tui(
        *train_arguments(tmp_path, "training.num_iterations=1000000"), "--run-dir", run, output=SignalAtTheSecondStep()
    )
    clear_message(stopped, code)
    events = [json.loads(line) for line in stopped.stdout.splitlines()]
    assert [e["event"] for e in events[-2:]] == ["checkpoint_saved", "run_finished"]
    last = events[-1]["step"]
    assert last >= 2
    assert checkpoint.newest(run / "checkpoints").step == last
    again = gpt2tui("train", *JSONL, "--resume", run, "--set", f"training.num_iterations={last + 2}")
    steps = [e["step"] for e in map(json.loads, again.stdout.splitlines()) if e["event"] == "step"]
    assert steps == [last + 1, last + 2], again.stderr


@pytest.mark.slow
def test_a_second_interrupt_stops_at_once_and_the_last_checkpoint_is_intact(tmp_path):
    run = tmp_path / "run"
    process = start(
        *train_arguments(tmp_path, "training.gradient_accumulation=65536"), "--run-dir", run, event="run_started"
    )
    # Both within the first step, which takes minutes: the first once it is being computed, the second when answered.
    at_work, worked = psutil.Process(process.pid), psutil.Process(process.pid).cpu_times().user
    while at_work.cpu_times().user < worked + 0.2:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    while "to stop at once" not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped at once" in errors
    assert "Traceback" not in errors
    assert checkpoint.problems_in(run / "checkpoints") == []


@pytest.mark.slow
def test_a_run_is_held_by_its_process_and_once_that_is_killed_it_is_crashed_and_resumes(tmp_path):
    run = tmp_path / "run"
    arguments = [*train_arguments(tmp_path, "training.num_iterations=1000000"), "--run-dir", run]
    process = start(*arguments, event="checkpoint_saved")
    try:
        for again in (["--headless", "--resume", run], arguments):
            assert f"process {process.pid}" in clear_message(gpt2tui(*again), 75)
    finally:
        process.kill()
        process.communicate()
    assert json.loads(gpt2tui("runs", "show", run, "--json").stdout)["state"] == "crashed"
    saved = checkpoint.newest(run / "checkpoints").step
    result = gpt2tui("train", *JSONL, "--resume", run, "--set", f"training.num_iterations={saved + 1}")
    assert result.returncode == 0, result.stderr
    assert [e["step"] for e in map(json.loads, result.stdout.splitlines()) if e["event"] == "step"] == [saved + 1]


def test_resuming_with_a_preset_that_no_longer_fits_names_what_differs(trained):
    run, _ = trained
    message = clear_message(gpt2tui("--headless", "--resume", run, "--set", "model.n_layer=3"), 4)
    assert "model.n_layer: the run has 2, the preset 3" in message


def test_a_setting_changed_on_resume_stays_changed(tmp_path):
    run = tmp_path / "run"
    assert gpt2tui(*train_arguments(tmp_path, "training.checkpoint_frequency=2"), "--run-dir", run).returncode == 0
    changed = gpt2tui("train", *JSONL, "--resume", run, "training.num_iterations=14", "optimizer.lr=0.02")
    assert changed.returncode == 0, changed.stderr
    assert "optimizer.lr: 0.01 -> 0.02" in changed.stderr
    again = gpt2tui("train", *JSONL, "--resume", run, "--set", "training.num_iterations=15")
    assert "optimizer.lr" not in again.stderr
    assert preset_files.check(run / "checkpoints" / "step-00000015" / "preset.toml").preset.optimizer.lr == 0.02
    message = clear_message(gpt2tui("--headless", "--resume", run, "--set", "training.num_iterations=3"), 4)
    assert "has been trained for 15 already" in message


def test_falling_back_to_an_older_checkpoint_is_reported(tmp_path):
    run = tmp_path / "run"
    assert gpt2tui(*train_arguments(tmp_path), "--run-dir", run).returncode == 0
    path = run / "checkpoints" / "step-00000012" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    result = gpt2tui("train", *JSONL, "--resume", run)
    warnings = [e["message"] for e in map(json.loads, result.stdout.splitlines()) if e["event"] == "warning"]
    assert any("SHA-256" in warning and "step-00000008 is used" in warning for warning in warnings)


def test_a_failed_resume_leaves_the_run_what_it_was(tmp_path):
    run = tmp_path / "run"
    assert gpt2tui(*train_arguments(tmp_path), "--run-dir", run).returncode == 0
    before = (run / "events.jsonl").read_text()
    with (tmp_path / "words.txt").open("a") as file:
        file.write("more text")
    clear_message(gpt2tui("--headless", "--resume", run, "--set", "training.num_iterations=20"), 3)
    assert (run / "events.jsonl").read_text() == before


@pytest.mark.slow
def test_a_signal_that_the_caller_ignores_stays_ignored(tmp_path):
    deaf = ["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"]
    process = subprocess.Popen(
        [*deaf, *command(*train_arguments(tmp_path, "training.num_iterations=100000"))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **ENVIRONMENT},
    )
    steps = (json.loads(line) for line in process.stdout)
    assert any(event["event"] == "step" for event in steps)
    process.send_signal(signal.SIGHUP)
    assert any(event["event"] == "step" for event in steps)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
