"""stderr only narrates: whatever happens to it, a command does the same work and ends with the same exit code."""

import subprocess
import sys

import pytest

from tests import tiny_runs

STREAMS = {"gone": "2>&1 >/dev/null | true", "full": "> /dev/null 2> /dev/full", "closed": "> /dev/null 2>&-"}


def exit_code(arguments, redirection):
    """The exit code of `gpt2tui ARGUMENTS` in a shell that redirects its streams."""
    script = f'set -o pipefail; "$@" {redirection}'
    command = ["bash", "-c", script, "bash", sys.executable, "-m", "gpt2tui", *map(str, arguments)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, timeout=120).returncode


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["gone", "full"])
def test_a_run_trains_to_its_end_whatever_stderr_is(tmp_path, stream):
    settings = tiny_runs.options(tmp_path, "training.num_iterations=4")
    words = [word for setting in settings for word in ("--set", setting)]
    train = ["--headless", "--preset", "default", *words, "--run-dir", tmp_path / "run"]
    assert exit_code(train, STREAMS[stream]) == 0
    assert (tmp_path / "run/checkpoints/step-00000004/MANIFEST.json").is_file()


@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--no-such-option"], 2),
        (["--headless", "--preset", "no-such-preset"], 2),
        (["presets", "check", "test"], 0),
    ],
)
def test_the_exit_code_of_a_command_does_not_depend_on_stderr(arguments, code, stream):
    assert exit_code(arguments, STREAMS[stream]) == code


@pytest.mark.parametrize("arguments", [["--help"], ["presets", "keys"]])
def test_output_that_is_lost_on_a_full_disk_is_a_failure_and_a_reader_that_leaves_is_none(arguments):
    assert exit_code(arguments, "> /dev/full 2> /dev/null") == 6
    assert exit_code(arguments, "| true") == 0
