"""`gpt2tui --headless`: from a command line to a trained run, in this thread and without a screen."""

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2tui import checkpoint, preset_files, runs
from gpt2tui.checkpoint import Checkpoint
from gpt2tui.errors import CheckpointError, UsageError
from gpt2tui.folders import cache_folder
from gpt2tui.preset import Preset
from gpt2tui.preset_files import LoadedPreset
from gpt2tui.signals import Interrupted, StopSignals
from gpt2tui.training.controls import Controls

if TYPE_CHECKING:
    from gpt2tui.data.token_store import TokenizedCorpus
    from gpt2tui.tracking.subscriber import Subscribers
    from gpt2tui.training.trainer import Trainer

# A resumed run may change how it goes on, not what it is.
FIXED = ("model", "data", "optimizer.name", "training.sequence_length")


def start(options: argparse.Namespace) -> int:
    """What `gpt2tui` without a command does: train, look ahead, or open the workbench."""
    if options.dry_run:
        from gpt2tui.commands.dry_run import dry_run

        return dry_run(options)
    if not options.headless:
        raise UsageError("this version trains without a screen: add --headless, and --preset small for a first run")
    return train(options)


def train(options: argparse.Namespace) -> int:
    """Trains a new run, or goes on with an old one. Returns the exit code."""
    controls = Controls()
    with StopSignals(controls) as signals:
        try:
            with _opened_run(options) as (run, loaded, resume_from):
                trainer = _trainer(options, run, loaded, resume_from, controls)
                signals.training = True
                _follow(trainer, _subscribers(options, trainer))
        except Interrupted as interrupted:
            print("gpt2tui: stopped at once; the last checkpoint is as it was", file=sys.stderr)
            return interrupted.exit_code
        return signals.exit_code or 0


def load_preset(options: argparse.Namespace) -> LoadedPreset:
    """The preset of --preset and --set. Raises UsageError when none is named."""
    if not options.preset:
        names = ", ".join(source.name for source in preset_files.available())
        raise UsageError(f"--headless needs --preset NAME or FILE, or --resume RUN; presets: {names}")
    return preset_files.load(options.preset, options.overrides)


@contextlib.contextmanager
def _opened_run(options: argparse.Namespace) -> Iterator[tuple[runs.Run, LoadedPreset, Checkpoint | None]]:
    """The run folder, locked, with its preset; a new folder in which training never began is removed again."""
    if options.resume:
        if options.run_dir:
            raise UsageError("--resume continues in the run's own folder; --run-dir does not go with it")
        run = runs.find(options.resume)
        with runs.locked(run):
            saved = checkpoint.newest(run.checkpoints)
            loaded = _resumed_preset(run, options)
            runs.update_info(run, **runs.this_process())
            yield run, loaded, saved
        return
    loaded = load_preset(options)
    run = runs.create(loaded.name, Path(options.run_dir) if options.run_dir else None)
    try:
        with runs.locked(run):
            yield run, loaded, None
    finally:
        runs.remove_if_empty(run)


def _resumed_preset(run: runs.Run, options: argparse.Namespace) -> LoadedPreset:
    """The run's frozen preset under what this command line changes. Raises CheckpointError when it no longer fits."""
    frozen = preset_files.check(run.preset_file).preset
    name = run.info().get("preset", run.name)
    loaded = preset_files.load([run.preset_file, *options.preset], options.overrides)
    before, after = _flat(frozen), _flat(loaded.preset)
    changed = [key for key in before if before[key] != after[key]]
    if misfits := [key for key in changed if key.startswith(FIXED)]:
        lines = [f"  {key}: the run has {before[key]!r}, the preset {after[key]!r}" for key in misfits]
        raise CheckpointError(
            f"the run {run.name} cannot go on with this preset, which would be another model or other data:\n"
            + "\n".join(lines)
            + "\nleave these settings as they are, or start a new run"
        )
    if changed:
        print("goes on with " + ", ".join(f"{key} = {after[key]!r}" for key in changed), file=sys.stderr)
    return LoadedPreset(name, loaded.preset, loaded.layers)


def _flat(preset: Preset) -> dict[str, object]:
    tables = preset.model_dump()
    return {
        f"{table}.{key}": value
        for table, values in tables.items()
        if isinstance(values, dict)
        for key, value in values.items()
    }


def _trainer(
    options: argparse.Namespace,
    run: runs.Run,
    loaded: LoadedPreset,
    resume_from: Checkpoint | None,
    controls: Controls,
) -> "Trainer":
    from gpt2tui.data.token_store import prepare
    from gpt2tui.tracking.preparation import show_preparation
    from gpt2tui.training.trainer import Trainer

    corpus: TokenizedCorpus = show_preparation(prepare(loaded.preset, cache_folder()))
    preset = loaded.preset.with_vocab_size(loaded.preset.model.vocab_size or corpus.tokenizer.vocab_size)
    return Trainer(
        run,
        preset,
        corpus,
        preset_name=loaded.name,
        controls=controls,
        command=runs.command_line(),
        resume_from=resume_from,
    )


def _subscribers(options: argparse.Namespace, trainer: "Trainer") -> "Subscribers":
    from gpt2tui.tracking.console import Console
    from gpt2tui.tracking.jsonl import JsonLines, JsonStdout
    from gpt2tui.tracking.subscriber import Subscriber, Subscribers
    from gpt2tui.tracking.wandb import WandbTracker

    as_text = options.log_format == "text" or (options.log_format is None and sys.stdout.isatty())
    shown: Subscriber = (
        Console(vocab_size=trainer.preset.model.vocab_size, run_folder=trainer.run.folder) if as_text else JsonStdout()
    )
    subscribers: list[Subscriber] = [JsonLines(trainer.run.events_file), shown]
    if trainer.preset.tracking.wandb != "disabled":
        subscribers.append(WandbTracker(trainer.preset, trainer.run.folder))
    return Subscribers(subscribers)


def _follow(trainer: "Trainer", subscribers: "Subscribers") -> None:
    try:
        for event in trainer.train():
            subscribers.handle(event)
    finally:
        subscribers.close()


def print_json(value: object) -> None:
    """One JSON document on stdout."""
    print(json.dumps(value, indent=2))
