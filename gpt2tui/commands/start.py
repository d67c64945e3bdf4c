"""`gpt2tui` without a command. Imports only what is needed, so that the workbench opens at once."""

import argparse
from collections.abc import Callable
from functools import partial
from importlib import import_module

from gpt2tui.errors import UsageError
from gpt2tui.system.host_memory import keep_freed_memory


def start(options: argparse.Namespace) -> int:
    """Opens the workbench; with --headless trains, with --dry-run estimates. Returns the exit code."""
    sweep = _sweep(options)
    if sweep is not None:
        return sweep(options)
    if options.json and not options.dry_run:
        raise UsageError("--json of a training needs --dry-run or a sweep; events as JSON: --log-format jsonl")
    if options.dry_run:
        from gpt2tui.commands.dry_run import dry_run

        return dry_run(options)
    keep_freed_memory()
    if not options.headless:
        # By name: no module outside gpt2tui.tui imports Textual.
        workbench = import_module("gpt2tui.tui.start")
        code: int = workbench.run_workbench(
            options.preset, options.overrides, resume=options.resume, run_dir=options.run_dir
        )
        return code
    from gpt2tui.commands.train import train

    return train(options)


def _sweep(options: argparse.Namespace) -> Callable[[argparse.Namespace], int] | None:
    """What trains, estimates or resumes the sweep that the options mean; None where they mean a single run."""
    if options.sweep or options.seeds:
        if options.dry_run:
            from gpt2tui.commands.dry_run import dry_run_sweep

            return dry_run_sweep
        from gpt2tui.commands.sweep import start_sweep

        return start_sweep
    if options.resume and (options.headless or options.dry_run):
        from gpt2tui.run import sweep_folder

        if folder := sweep_folder.find(options.resume):
            from gpt2tui.commands.sweep import resume_sweep

            return partial(resume_sweep, folder)
    if options.jobs:
        raise UsageError("--jobs is for sweeps: it needs --sweep, --seeds or a sweep to resume")
    return None
