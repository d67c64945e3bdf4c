"""`gpt2tui attach RUN`: the Train screen over a run that lives in another process."""

import argparse
from importlib import import_module

from gpt2tui.run import folder as runs


def attach(options: argparse.Namespace) -> int:
    """Opens the workbench on a run's events and follows them; returns the exit code. Raises UsageError."""
    run = runs.find(options.run)
    code: int = import_module("gpt2tui.tui.start").run_workbench(attach=run)
    return code
