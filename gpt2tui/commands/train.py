"""`gpt2tui --headless`: trains a run in this thread, and prints its events."""

import argparse
import contextlib
import itertools
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2tui.commands.signals import Interrupted, StopSignals
from gpt2tui.errors import DoesNotFitError, UsageError
from gpt2tui.launch import Emitted, FitCheck, OpenedRun, drive, new_run, refuse_several_processes, resumed_run
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.files import LoadedPreset
from gpt2tui.run import folder as runs
from gpt2tui.run.events import Event, RunStarted
from gpt2tui.system.terminal_text import print_on_stderr, report_on_stderr
from gpt2tui.training.controls import Controls

if TYPE_CHECKING:
    from gpt2tui.data.token_store import StageProgress
    from gpt2tui.tracking.subscriber import Subscriber


def train(options: argparse.Namespace) -> int:
    """Trains a new run, or resumes an old one. Returns the exit code."""
    refuse_several_processes()
    controls = Controls()
    with StopSignals(controls) as signals:
        try:
            fit_check: FitCheck = "warn" if options.force else "refuse"
            with contextlib.closing(drive(_open_run(options), controls, report_on_stderr, fit_check)) as stream:
                _print_events(stream, options, signals)
        except DoesNotFitError as error:
            raise DoesNotFitError(
                f"this run does not fit. {error}\nthe estimate is within about 15 %: --force trains nevertheless",
                close=error.close,
            ) from error
        except Interrupted as interrupted:
            state = "the last checkpoint is unchanged" if signals.training else "training had not begun"
            report_on_stderr(f"stopped at once; {state}")
            return interrupted.exit_code
        return signals.exit_code or 0


def load_preset(options: argparse.Namespace) -> LoadedPreset:
    """The presets and settings of the command line. Raises UsageError when no preset is named."""
    refuse_without_preset(options)
    loaded = preset_files.load(options.preset, options.overrides)
    if loaded.is_partial:
        report_on_stderr(f"{loaded.name} is a partial preset: {preset_files.what_defaults_give(loaded.preset)}")
    return loaded


def refuse_without_preset(options: argparse.Namespace) -> None:
    """Raises UsageError when the command line names no preset."""
    if not options.preset:
        names = ", ".join(source.name for source in preset_files.available())
        raise UsageError(
            f"no preset is named; write gpt2tui train PRESET, or --preset NAME or FILE, or --resume RUN; the presets "
            f"are {names}"
        )


def _open_run(options: argparse.Namespace) -> contextlib.AbstractContextManager[OpenedRun]:
    """The new or resumed run of the command line, with its preset."""
    if not options.resume:
        return new_run(load_preset(options), Path(options.run_dir) if options.run_dir else None, options.name)
    run, saved = runs.find_with_checkpoint(options.resume)
    return resumed_run(
        run,
        options.preset,
        options.overrides,
        resume_from=saved,
        branch=Path(options.run_dir) if options.run_dir else None,
    )


def _print_events(stream: Generator[Emitted, None, None], options: argparse.Namespace, signals: StopSignals) -> None:
    """Runs the training; prints the preparation of its data on stderr and its events on stdout."""
    from gpt2tui.tracking.console import show_preparation
    from gpt2tui.tracking.subscriber import Subscribers

    opened = next(stream)
    assert isinstance(opened, OpenedRun)
    if options.resume and opened.resume_from is None:
        print_on_stderr("the run has no checkpoint yet, so it starts again at step 0")
    for change in opened.changes:
        print_on_stderr(f"resumed with {change}")
    started = show_preparation(_preparation_progress(stream))
    signals.training = True
    subscribers = Subscribers([_subscriber(options, opened, started)])
    try:
        for event in itertools.chain([started], stream):
            assert isinstance(event, Event)
            subscribers.handle(event)
    finally:
        subscribers.close()


def _preparation_progress(stream: Generator[Emitted, None, None]) -> "Generator[StageProgress, None, RunStarted]":
    """Yields the progress of the preparation; returns the first event of the training."""
    for emitted in stream:
        if isinstance(emitted, RunStarted):
            return emitted
        assert not isinstance(emitted, OpenedRun | Event)
        yield emitted
    raise Interrupted(0)  # another process has asked for a stop


def _subscriber(options: argparse.Namespace, opened: OpenedRun, started: RunStarted) -> "Subscriber":
    from gpt2tui.tracking.console import Console
    from gpt2tui.tracking.subscriber import JsonStdout

    if options.log_format == "jsonl":
        return JsonStdout()
    return Console(vocab_size=started.vocab_size, run_folder=opened.run.folder)
