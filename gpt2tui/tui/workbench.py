"""Opens the workbench and turns how it ended into an exit code."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from gpt2tui import preset_files, runs
from gpt2tui.errors import UsageError
from gpt2tui.preset_files import LoadedPreset
from gpt2tui.runs import Run

ENDING_SECONDS = 2.0  # of a training thread that has told its end


def run_workbench(
    presets: Sequence[str] = (),
    overrides: Sequence[str] = (),
    *,
    resume: str | None = None,
    run_dir: str | None = None,
    attach: Run | None = None,
) -> int:
    """Shows the workbench until it is left; returns the exit code.

    `presets` and `overrides` are opened in the form, `resume` goes on with a run at once, `attach` shows the run of
    another process; the first new training is written to `run_dir`. Raises UsageError without a terminal, and what is
    wrong with the arguments before the screen opens.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "the workbench needs a terminal, and stdin or stdout is none; "
            "train without a screen: gpt2tui --headless --preset small"
        )
    from gpt2tui.tui.app import WorkbenchApp
    from gpt2tui.tui.training_stream import Launch
    from gpt2tui.tui.workbench_log import terminal_for_the_screen

    preselected: LoadedPreset | None = None
    launch: Launch | None = None
    if resume is not None and run_dir is not None:
        raise UsageError("--resume continues in the run's own folder; --run-dir does not go with it")
    if resume is not None:
        run = runs.find(resume)
        layers: list[str | Path] = [run.preset_file, *presets]
        launch = Launch(preset_files.load(layers, overrides), run, layers=tuple(presets), overrides=tuple(overrides))
    elif presets or overrides:
        preselected = preset_files.load(list(presets) or ["default"], overrides)
    _start_resource_tracker()
    with terminal_for_the_screen():
        app = WorkbenchApp(preset=preselected, launch=launch, attach=attach, run_dir=Path(run_dir) if run_dir else None)
        try:
            app.run()
        finally:
            # Normally it has ended by now; after a crash of the screen it still saves.
            app.session.stop()
            ended = app.session.join(timeout=None if app.return_code == 1 else ENDING_SECONDS)
    code = app.return_code or 0
    if not ended:
        # A second request to quit leaves a download or a step behind, which nothing can end in an orderly way.
        _leave_now(code)
    return code


def _start_resource_tracker() -> None:
    # Started later, from inside the app, it fails: "bad value(s) in fds_to_keep".
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()


def _leave_now(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
