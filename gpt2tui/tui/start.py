"""Opens the workbench and turns how it ended into an exit code."""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2tui.errors import UsageError

if TYPE_CHECKING:
    from gpt2tui.preset.files import LoadedPreset
    from gpt2tui.run.folder import Run
    from gpt2tui.tui.session import TrainingSession

HANG_UP_MILLISECONDS = 1000
ENDING_SECONDS = 2.0  # of a training thread that has told its end


def run_workbench(
    presets: Sequence[str] = (),
    overrides: Sequence[str] = (),
    *,
    resume: str | None = None,
    run_dir: str | None = None,
    attach: "Run | None" = None,
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
    from gpt2tui.launch import Launch
    from gpt2tui.tui.app import WorkbenchApp
    from gpt2tui.tui.terminal import terminal_for_the_screen

    preselected: LoadedPreset | None = None
    launch: Launch | None = None
    if resume is not None and run_dir is not None:
        raise UsageError("--resume continues in the run's own folder; --run-dir does not go with it")
    if resume is not None:
        from gpt2tui.preset import files as preset_files
        from gpt2tui.run import folder as runs

        run = runs.find(resume)
        layers: list[str | Path] = [run.preset_file, *presets]
        launch = Launch(preset_files.load(layers, overrides), run, layers=tuple(presets), overrides=tuple(overrides))
    elif presets or overrides:
        from gpt2tui.preset import files as preset_files

        preselected = preset_files.load(list(presets) or ["default"], overrides)
    _start_resource_tracker()
    with terminal_for_the_screen():
        app = WorkbenchApp(preset=preselected, launch=launch, attach=attach, run_dir=Path(run_dir) if run_dir else None)
        _watch_the_terminal(app.session)
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


def _watch_the_terminal(session: "TrainingSession") -> None:
    """Lets the training save, and then ends the process, when the terminal is gone.

    SIGHUP alone does not do it: only a controlling terminal sends one, and Textual, whose writing thread dies with the
    terminal, soon blocks its event loop on a full queue, where no signal is answered any more.
    """
    if not hasattr(select, "poll"):  # Windows
        return
    poller = select.poll()
    poller.register(sys.stdin.fileno(), 0)  # hanging up is reported unasked

    def watch() -> None:
        while not poller.poll(HANG_UP_MILLISECONDS):
            pass
        session.stop()
        session.join(timeout=None)
        time.sleep(ENDING_SECONDS)  # the orderly way out is preferred, where it is open
        os._exit(128 + signal.SIGHUP)

    threading.Thread(target=watch, name="hang-up", daemon=True).start()


def _start_resource_tracker() -> None:
    # Started later, from inside the app, it fails: "bad value(s) in fds_to_keep".
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()


def _leave_now(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
