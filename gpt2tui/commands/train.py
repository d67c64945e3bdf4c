"""`gpt2tui --headless`: from a command line to a trained run, in this thread and without a screen."""

import argparse
import contextlib
import itertools
import json
import sys
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2tui.commands.signals import Interrupted, StopSignals
from gpt2tui.errors import UsageError
from gpt2tui.launch import Emitted, OpenedRun, drive, new_run, resumed_run
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.files import LoadedPreset
from gpt2tui.run import folder as runs
from gpt2tui.run.events import Event, RunStarted
from gpt2tui.training.controls import Controls

if TYPE_CHECKING:
    from gpt2tui.data.token_store import Progress
    from gpt2tui.tracking.subscriber import Subscriber


def train(options: argparse.Namespace) -> int:
    """Trains a new run, or resumes an old one. Returns the exit code."""
    from gpt2tui.system.terminal_text import report_on_stderr

    controls = Controls()
    with StopSignals(controls) as signals:
        try:
            with contextlib.closing(drive(_opening(options), controls, report_on_stderr)) as stream:
                _show(stream, options, signals)
        except Interrupted as interrupted:
            what = "the last checkpoint is as it was" if signals.training else "nothing had been trained yet"
            print(f"gpt2tui: stopped at once; {what}", file=sys.stderr)
            return interrupted.exit_code
        return signals.exit_code or 0


def load_preset(options: argparse.Namespace) -> LoadedPreset:
    """The preset of --preset and --set. Raises UsageError when none is named."""
    if not options.preset:
        names = ", ".join(source.name for source in preset_files.available())
        raise UsageError(f"--headless needs --preset NAME or FILE, or --resume RUN; presets: {names}")
    return preset_files.load(options.preset, options.overrides)


def _opening(options: argparse.Namespace) -> contextlib.AbstractContextManager[OpenedRun]:
    """The run folder that the command line asks for, with its preset."""
    if not options.resume:
        return new_run(load_preset(options), Path(options.run_dir) if options.run_dir else None)
    if options.run_dir:
        raise UsageError("--resume continues in the run's own folder; --run-dir does not go with it")
    return resumed_run(runs.find(options.resume), options.preset, options.overrides)


def _show(stream: Generator[Emitted, None, None], options: argparse.Namespace, signals: StopSignals) -> None:
    """Iterates over the training and shows on stderr how its data is prepared, on stdout its events."""
    from gpt2tui.tracking.console import show_preparation
    from gpt2tui.tracking.subscriber import Subscribers

    opened = next(stream)
    assert isinstance(opened, OpenedRun)
    if options.resume and opened.resume_from is None:
        print("no checkpoint was saved yet: the run begins at step 0", file=sys.stderr)
    if opened.changed:
        changes = ", ".join(f"{change.key} = {change.right!r}" for change in opened.changed)
        print(f"resumed with {changes}", file=sys.stderr)
    started = show_preparation(_preparation(stream))
    signals.training = True
    shown = Subscribers([_subscriber(options, opened, started)])
    try:
        for told in itertools.chain([started], stream):
            assert isinstance(told, Event)
            shown.handle(told)
    finally:
        shown.close()


def _preparation(stream: Generator[Emitted, None, None]) -> "Generator[Progress, None, RunStarted]":
    """The reports of the preparation; returns the first event."""
    for told in stream:
        if isinstance(told, RunStarted):
            return told
        assert not isinstance(told, OpenedRun | Event)
        yield told
    raise AssertionError("without a stop a preparation ends in an event")


def _subscriber(options: argparse.Namespace, opened: OpenedRun, started: RunStarted) -> "Subscriber":
    from gpt2tui.tracking.console import Console
    from gpt2tui.tracking.subscriber import JsonStdout

    as_text = options.log_format == "text" or (options.log_format is None and sys.stdout.isatty())
    return Console(vocab_size=started.vocab_size, run_folder=opened.run.folder) if as_text else JsonStdout()


def print_json(value: object) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, indent=2))
