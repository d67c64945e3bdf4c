"""`gpt2tui` without a command. Imports only what is needed, so that the workbench opens at once."""

import argparse
from importlib import import_module

from gpt2tui.system.host_memory import keep_freed_memory


def start(options: argparse.Namespace) -> int:
    """Opens the workbench; with --headless trains, with --dry-run estimates. Returns the exit code."""
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
