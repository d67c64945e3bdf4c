"""`gpt2tui --headless`: trains a run in this thread, and prints its events."""

import argparse
import contextlib
import itertools
import os
import traceback
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2tui.commands.signals import Interrupted, StopSignals
from gpt2tui.errors import DivergedError, DoesNotFitError, Gpt2TuiError, UsageError, first_line
from gpt2tui.launch import Emitted, FitCheck, OpenedRun, drive, follow, new_run, resumed_run
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.files import LoadedPreset
from gpt2tui.run import folder as runs
from gpt2tui.run.events import Event, RunStarted
from gpt2tui.system.terminal_text import print_on_stderr, report_on_stderr
from gpt2tui.training.controls import Controls

if TYPE_CHECKING:
    from gpt2tui.data.token_store import StageProgress
    from gpt2tui.tracking.subscriber import Subscriber
    from gpt2tui.training.distributed import Ranks


def train(options: argparse.Namespace) -> int:
    """Trains a new run, or resumes an old one; under torchrun as one of its processes. Returns the exit code."""
    world_size = os.environ.get("WORLD_SIZE", "1")
    if not world_size.isdecimal() or int(world_size) <= 1:
        return _train(options, None)
    from gpt2tui.training.distributed import join, leave

    return leave(_train_as_rank(options, join()))


def _train_as_rank(options: argparse.Namespace, ranks: "Ranks") -> int:
    """Leads the training or takes part in it. Returns the exit code; a failure is told once, whatever rank it is of."""
    from gpt2tui.training.distributed import LostRankError

    try:
        if ranks.rank:
            return _follow(ranks)
        code = _train(options, ranks)
        ranks.end(code)
        return code
    except LostRankError as lost:
        if ranks.is_reporter(lost.failure):
            report_on_stderr(str(lost))
        return lost.failure.exit_code
    except Gpt2TuiError as error:
        if not isinstance(error, DivergedError) or not ranks.rank:  # all ranks diverge at once
            ranks.report(f"has failed: {error}", error.exit_code)
        if not ranks.rank:
            print_on_stderr(f"gpt2tui: {error}")
        return error.exit_code
    except BaseException as bug:
        ranks.report(f"has failed: {type(bug).__name__}: {first_line(bug)}", 1)
        traceback.print_exc()
        return 1


def _follow(ranks: "Ranks") -> int:
    """Takes part in the training of rank 0. Returns the exit code."""
    controls = Controls()
    with StopSignals(controls, silent=True) as signals:

        def ready() -> None:
            signals.training = True

        try:
            return follow(ranks, controls, ready)
        except Interrupted as interrupted:
            return interrupted.exit_code
        except RuntimeError as error:
            raise ranks.explained(error) from error


def _train(options: argparse.Namespace, ranks: "Ranks | None") -> int:
    controls = Controls()
    with StopSignals(controls, silent=ranks is not None) as signals:
        try:
            fit_check: FitCheck = "warn" if options.force else "refuse"
            with contextlib.closing(
                drive(_open_run(options, ranks), controls, report_on_stderr, fit_check, ranks)
            ) as stream:
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
        if ranks is not None and ranks.stopped_by is not None:
            return 128 + ranks.stopped_by[1]
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


def _open_run(options: argparse.Namespace, ranks: "Ranks | None") -> contextlib.AbstractContextManager[OpenedRun]:
    """The new or resumed run of the command line, with its preset."""
    if (begun := _run_before_restart(options)) is not None:
        return resumed_run(begun, ranks=ranks)
    if not options.resume:
        return new_run(load_preset(options), Path(options.run_dir) if options.run_dir else None, options.name, ranks)
    run, saved = runs.find_with_checkpoint(options.resume)
    return resumed_run(
        run,
        options.preset,
        options.overrides,
        resume_from=saved,
        branch=Path(options.run_dir) if options.run_dir else None,
        ranks=ranks,
    )


def _run_before_restart(options: argparse.Namespace) -> runs.Run | None:
    """The run that this command has begun already, where torchrun has restarted it; else None."""
    restarts, job = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), runs.torchrun_job()
    if not restarts.isdecimal() or int(restarts) == 0:
        return None
    if options.run_dir:
        begun = runs.Run(Path(options.run_dir))
        return begun if begun.info_file.exists() else None
    return None if job is None else runs.of_torchrun(job)


def _print_events(stream: Generator[Emitted, None, None], options: argparse.Namespace, signals: StopSignals) -> None:
    """Runs the training; prints the preparation of its data on stderr and its events on stdout."""
    from gpt2tui.tracking.console import show_preparation
    from gpt2tui.tracking.subscriber import Subscribers

    opened = next(stream)
    assert isinstance(opened, OpenedRun)
    if (options.resume or opened.run.info_file.exists()) and opened.resume_from is None:
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
