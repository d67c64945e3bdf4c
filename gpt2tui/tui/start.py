"""Opens the workbench and returns its exit code."""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2tui.errors import UsageError, first_line
from gpt2tui.launch import Launch, refuse_several_processes
from gpt2tui.system.host_memory import exempt_from_collection
from gpt2tui.system.terminal_text import print_on_stderr, report_on_stderr

if TYPE_CHECKING:
    from gpt2tui.preset.files import LoadedPreset
    from gpt2tui.run.folder import Run
    from gpt2tui.tui.session import TrainingSession

POLL_MILLISECONDS = 1000
ENDING_SECONDS = 2.0  # for a training thread to end after its last event


def run_workbench(
    presets: Sequence[str] = (),
    overrides: Sequence[str] = (),
    *,
    resume: str | None = None,
    run_dir: str | None = None,
    attach: "Run | None" = None,
) -> int:
    """Shows the workbench until the user quits; returns the exit code.

    `presets` and `overrides` are opened in the form, `resume` resumes a run at once, `attach` shows the run of another
    process; the first new training is written to `run_dir`. Raises UsageError without a terminal, and the errors of
    its arguments before the screen opens.
    """
    refuse_several_processes()
    if not (_in_a_browser() or (sys.stdin.isatty() and sys.stdout.isatty())):
        raise UsageError(
            "the workbench needs a terminal, and stdin or stdout is not one; "
            "train without a screen: gpt2tui --headless --preset small"
        )
    with exempt_from_collection():
        from gpt2tui.tui.app import WorkbenchApp
        from gpt2tui.tui.terminal import log_file, terminal_for_the_screen

    preselected: LoadedPreset | None = None
    launch: Launch | None = None
    if resume is not None:
        from gpt2tui.preset import files as preset_files
        from gpt2tui.run import folder as runs

        run, saved = runs.find_with_checkpoint(resume)
        frozen = saved.folder / "preset.toml" if saved else run.preset_file
        launch = Launch(
            preset_files.load(presets, overrides, frozen=frozen),
            run,
            Path(run_dir) if run_dir else None,
            layers=tuple(presets),
            overrides=tuple(overrides),
            resume_from=saved,
        )
        run_dir = None  # for the branch
    elif presets or overrides:
        from gpt2tui.preset import files as preset_files

        preselected = preset_files.load(list(presets) or ["default"], overrides)
    _start_resource_tracker()
    with terminal_for_the_screen():
        app = WorkbenchApp(preset=preselected, launch=launch, attach=attach, run_dir=Path(run_dir) if run_dir else None)
        _watch_for_hangup(app.session)
        try:
            app.run()
        finally:
            # Normally the training has ended by now; after a crash of the screen it still saves a checkpoint.
            app.session.stop()
            ended = app.session.join(timeout=None if app.return_code == 1 else ENDING_SECONDS)
    code = app.return_code or 0
    if app.bug is not None:
        report_on_stderr(f"a bug ended the workbench: {type(app.bug).__name__}: {first_line(app.bug)}")
        print_on_stderr(f"the traceback is in {log_file()}; please report it. What the training saved is kept.")
    if not ended:
        # After a second request to quit, a download or a step may still run, which cannot be interrupted.
        _exit_at_once(code)
    return code


def _in_a_browser() -> bool:
    """Whether textual-serve has started this process: the screen then goes through pipes to a page."""
    return "web_driver" in os.environ.get("TEXTUAL_DRIVER", "")


def _watch_for_hangup(session: "TrainingSession") -> None:
    """When the terminal or the page's server is gone, stops the training, saves a checkpoint and ends the process.

    A training over several ranks, which has a session of its own, continues.

    SIGHUP is not enough: only a controlling terminal sends one, and Textual, whose writing thread dies with the
    terminal, soon blocks its event loop on a full queue, where no signal is handled any more.
    """
    if not hasattr(select, "poll"):  # Windows
        return
    poller = select.poll()
    poller.register(sys.stdin.fileno(), 0)  # POLLHUP is always reported

    def watch() -> None:
        while not poller.poll(POLL_MILLISECONDS):
            pass
        if not session.leave():
            session.stop()
        session.join(timeout=None)
        time.sleep(ENDING_SECONDS)  # time for the app to end by itself, where it still can
        os._exit(128 + signal.SIGHUP)

    threading.Thread(target=watch, name="hang-up", daemon=True).start()


def _start_resource_tracker() -> None:
    # Started from inside the running app, it fails: "bad value(s) in fds_to_keep".
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()


def _exit_at_once(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
