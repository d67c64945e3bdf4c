"""`gpt2tui attach RUN`: the Train screen of a run that another process trains."""

import argparse
from importlib import import_module

from gpt2tui.run import folder as runs


def attach(options: argparse.Namespace) -> int:
    """Opens the workbench, which shows the run's events as they are written. Returns the exit code.

    Raises UsageError when there is no such run.
    """
    run = runs.find(options.run)
    code: int = import_module("gpt2tui.tui.start").run_workbench(attach=run)
    return code
