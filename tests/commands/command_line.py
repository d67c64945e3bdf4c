"""Running commands in this process or in one of their own, as a script would."""

import contextlib
import io
import json
import os
import subprocess
import sys

from gpt2tui.__main__ import main
from tests import tiny_runs

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "100"}


def command(*arguments):
    return [sys.executable, "-m", "gpt2tui", *map(str, arguments)]


def gpt2tui(*arguments, cwd=".", output=None):
    output, errors = output or io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:  # argparse
            code = end.code
    return subprocess.CompletedProcess(arguments, code, output.getvalue(), errors.getvalue())


def sets(settings):
    return [word for setting in settings for word in ("--set", setting)]


JSONL = ["--log-format", "jsonl"]


def train_arguments(folder, *overrides):
    return ["--headless", *JSONL, "--preset", "default", *sets(tiny_runs.options(folder, *overrides))]


def start(*arguments, event="step"):
    """A training process that has emitted an event: its first step, unless another is named."""
    process = subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **ENVIRONMENT},
    )
    for line in process.stdout:
        if json.loads(line)["event"] == event:
            return process
    raise AssertionError(process.communicate()[1])


def clear_message(result, code):
    """An expected failure: its exit code, one message, no traceback."""
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.strip()
    return result.stderr
