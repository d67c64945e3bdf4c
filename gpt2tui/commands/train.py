"""`gpt2tui --headless`: from a command line to a trained run, in this thread and without a screen."""

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2tui import preset_files, runs
from gpt2tui.errors import UsageError
from gpt2tui.folders import cache_folder
from gpt2tui.launch import OpenedRun, make_trainer, new_run, resumed_run, trackers
from gpt2tui.preset_files import LoadedPreset
from gpt2tui.signals import Interrupted, StopSignals
from gpt2tui.training.controls import Controls

if TYPE_CHECKING:
    from gpt2tui.tracking.subscriber import Subscribers
    from gpt2tui.training.trainer import Trainer


def train(options: argparse.Namespace) -> int:
    """Trains a new run, or goes on with an old one. Returns the exit code."""
    controls = Controls()
    with StopSignals(controls) as signals:
        try:
            with _opened_run(options) as opened:
                trainer = _trainer(opened, controls)
                signals.training = True
                _follow(trainer, _subscribers(options, trainer))
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


@contextlib.contextmanager
def _opened_run(options: argparse.Namespace) -> Iterator[OpenedRun]:
    """The run folder that the command line asks for, locked, with its preset."""
    if not options.resume:
        with new_run(load_preset(options), Path(options.run_dir) if options.run_dir else None) as opened:
            yield opened
        return
    if options.run_dir:
        raise UsageError("--resume continues in the run's own folder; --run-dir does not go with it")
    with resumed_run(runs.find(options.resume), options.preset, options.overrides) as opened:
        if opened.changed:
            changes = ", ".join(f"{key} = {value!r}" for key, value in opened.changed)
            print(f"goes on with {changes}", file=sys.stderr)
        yield opened


def _trainer(opened: OpenedRun, controls: Controls) -> "Trainer":
    from gpt2tui.data.token_store import prepare
    from gpt2tui.tracking.preparation import show_preparation

    return make_trainer(opened, show_preparation(prepare(opened.loaded.preset, cache_folder())), controls)


def _subscribers(options: argparse.Namespace, trainer: "Trainer") -> "Subscribers":
    from gpt2tui.tracking.console import Console
    from gpt2tui.tracking.jsonl import JsonStdout
    from gpt2tui.tracking.subscriber import Subscriber, Subscribers, report_on_stderr

    as_text = options.log_format == "text" or (options.log_format is None and sys.stdout.isatty())
    shown: Subscriber = (
        Console(vocab_size=trainer.preset.model.vocab_size, run_folder=trainer.run.folder) if as_text else JsonStdout()
    )
    jsonl, *others = trackers(trainer, report_on_stderr)
    return Subscribers([jsonl, shown, *others])


def _follow(trainer: "Trainer", subscribers: "Subscribers") -> None:
    try:
        for event in trainer.train():
            subscribers.handle(event)
    finally:
        subscribers.close()


def print_json(value: object) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, indent=2))
