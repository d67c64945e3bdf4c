"""From a preset, or a run to resume, to a stream of events: the same for the console and the screen.

Both iterate over `drive`, which opens the run folder, prepares the data, makes the trainer and passes events to the
trackers. Imports nothing heavy before a training starts.
"""

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Union

from gpt2tui.errors import CheckpointError, Gpt2TuiError
from gpt2tui.run.events import Event, RunFailed, RunFinished, Warned
from gpt2tui.training.controls import Controls

if TYPE_CHECKING:
    from gpt2tui.data.token_store import StageProgress, TokenizedCorpus
    from gpt2tui.preset.files import LoadedPreset
    from gpt2tui.preset.schema import Preset
    from gpt2tui.preset.settings import Difference
    from gpt2tui.run.checkpoint import Checkpoint
    from gpt2tui.run.folder import Run
    from gpt2tui.system.terminal_text import Report
    from gpt2tui.tracking.subscriber import Subscriber
    from gpt2tui.training.trainer import Trainer

# Settings that a resumed run cannot change.
FIXED = (
    "model",
    "data",
    "optimizer.name",
    "training.sequence_length",
    "training.batch_size",
    "training.gradient_accumulation",
)


@dataclass(frozen=True)
class Launch:
    """A training to start: a preset in a new run, or a run to resume from its newest valid checkpoint.

    `layers` and `overrides` change settings of a resumed run. `learning_rate_factor` multiplies its schedule; None
    keeps its last factor.
    """

    loaded: "LoadedPreset"
    resume: "Run | None" = None
    run_dir: Path | None = None
    layers: tuple[str | Path, ...] = ()
    overrides: tuple[str, ...] = ()
    learning_rate_factor: float | None = None

    def open(self) -> contextlib.AbstractContextManager["OpenedRun"]:
        """Opens the run folder, locked while the context is open."""
        if self.resume is None:
            return new_run(self.loaded, self.run_dir)
        return resumed_run(self.resume, self.layers, self.overrides, self.learning_rate_factor)


@dataclass(frozen=True)
class OpenedRun:
    """A locked run folder, with the preset to train in it."""

    run: "Run"
    loaded: "LoadedPreset"
    resume_from: "Checkpoint | None" = None
    changed: "tuple[Difference, ...]" = ()
    """Settings of a resumed run that differ from its checkpoint's preset."""
    learning_rate_factor: float | None = None
    """Multiplies the schedule; None means the checkpoint's factor."""


Emitted = Union[OpenedRun, "StageProgress", Event]
"""What `drive` yields: the run folder once, then the progress of the preparation, then the events."""

TrainingStream = Callable[[Launch, Controls], Iterator[Emitted]]
"""Starts a training; tests substitute their own."""


def drive(
    opening: contextlib.AbstractContextManager[OpenedRun], controls: Controls, report: "Report | None" = None
) -> Generator[Emitted, None, None]:
    """Trains in the run that `opening` gives, in the caller's thread; close the generator to end it early.

    Errors of trackers go to `report`, or without it become warnings in the stream. A stop during the preparation ends
    it without an event. Raises the errors of `Trainer.train` and of the preparation.
    """
    from gpt2tui.data.token_store import StageProgress, prepare
    from gpt2tui.system.files import cache_folder
    from gpt2tui.tracking.subscriber import Subscribers

    with opening as opened:
        yield opened
        corpus = yield from prepare(opened.loaded.preset, cache_folder())
        if controls.stopping:
            return
        yield StageProgress("preparing the network")
        trainer = make_trainer(opened, corpus, controls)
        reports: list[str] = []
        report = report or reports.append
        subscribers = Subscribers(trackers(trainer, report), report)
        events, ended = trainer.train(), False
        try:
            for event in events:
                ended = isinstance(event, RunFinished | RunFailed)
                subscribers.handle(event)
                yield event
                yield from _warnings(reports)
        finally:
            events.close()
            if not ended:
                for event in trainer.abandon():
                    subscribers.handle(event)
            with contextlib.suppress(Exception):
                subscribers.close()
        yield from _warnings(reports)


def _warnings(reports: list[str]) -> Iterator[Warned]:
    """The errors of the trackers as warnings; W&B's thread may append to `reports` meanwhile."""
    while reports:
        yield Warned(message=reports.pop(0))


@contextlib.contextmanager
def new_run(loaded: "LoadedPreset", folder: Path | None = None) -> Iterator[OpenedRun]:
    """A new run folder, locked; it is removed again if training never begins."""
    from gpt2tui.run import folder as runs

    check_device(loaded.preset)
    run = runs.create(loaded.name, folder)
    with runs.locked(run):
        try:
            yield OpenedRun(run, loaded)
        finally:
            runs.remove_unless_begun(run)


def check_device(preset: "Preset") -> None:
    """Raises ResourceError when this machine lacks the preset's device or precision, before long work begins."""
    from gpt2tui.device import choose_device, choose_precision

    choose_precision(preset, choose_device(preset.training.device))


@contextlib.contextmanager
def resumed_run(
    run: "Run",
    layers: Sequence[str | Path] = (),
    overrides: Sequence[str] = (),
    learning_rate_factor: float | None = None,
) -> Iterator[OpenedRun]:
    """A locked run to resume from its newest valid checkpoint, with its preset changed by layers and overrides.

    A run that ended before its first checkpoint starts again at step 0. Raises RunLockedError, PresetError, and
    CheckpointError when no saved checkpoint is valid or the changed preset no longer fits.
    """
    from gpt2tui.run import checkpoint
    from gpt2tui.run import folder as runs

    with runs.locked(run):
        checkpoint.remove_leftovers(run.checkpoints)
        saved = runs.resume_point(run)
        loaded, changed = resumed_preset(run, saved, layers, overrides)
        check_device(loaded.preset)
        if learning_rate_factor is None:
            learning_rate_factor = _changed_factor(run, saved)
        yield OpenedRun(run, loaded, saved, changed, learning_rate_factor)


def _changed_factor(run: "Run", saved: "Checkpoint | None") -> float | None:
    """The learning-rate factor that the user has set since the checkpoint was saved."""
    change = run.info().get("learning_rate_change")
    if not isinstance(change, dict) or type(change.get("step")) is not int or type(change.get("factor")) is not float:
        return None
    return change["factor"] if saved is None or change["step"] >= saved.step else None


def make_trainer(opened: OpenedRun, corpus: "TokenizedCorpus", controls: Controls) -> "Trainer":
    """The trainer of an opened run and its prepared corpus."""
    from gpt2tui.run import folder as runs
    from gpt2tui.training.trainer import Trainer

    preset = opened.loaded.preset
    return Trainer(
        opened.run,
        preset.with_vocab_size(preset.model.vocab_size or corpus.tokenizer.vocab_size),
        corpus,
        preset_name=opened.loaded.name,
        controls=controls,
        command=runs.command_line(),
        resume_from=opened.resume_from,
        learning_rate_factor=opened.learning_rate_factor,
    )


def trackers(trainer: "Trainer", report: "Report") -> "list[Subscriber]":
    """The subscribers that record a run: `events.jsonl` always, W&B if the preset enables it."""
    from gpt2tui.run.events_file import JsonLines
    from gpt2tui.tracking.wandb import WandbTracker

    subscribers: list[Subscriber] = [JsonLines(trainer.run.events_file, report)]
    if trainer.preset.tracking.wandb != "disabled":
        subscribers.append(WandbTracker(trainer.preset, trainer.run.folder, report=report))
    return subscribers


def resumed_preset(
    run: "Run", saved: "Checkpoint | None", layers: Sequence[str | Path], overrides: Sequence[str]
) -> "tuple[LoadedPreset, tuple[Difference, ...]]":
    """The run's preset changed by layers and overrides, and its differences from the checkpoint's preset.

    Raises CheckpointError when it no longer fits the checkpoint.
    """
    from gpt2tui.preset import files as preset_files
    from gpt2tui.preset.files import LoadedPreset
    from gpt2tui.preset.settings import preset_differences

    path = saved.folder / "preset.toml" if saved else run.preset_file
    frozen = preset_files.load_frozen(path)
    newest = _newest_preset(run, saved, frozen) if saved else path
    loaded = preset_files.load(layers, overrides, frozen=newest)
    changed = preset_differences(frozen, loaded.preset)
    if changed_fixed_settings := [change for change in changed if change.key.startswith(FIXED)]:
        lines = [f"  {c.key}: the run has {c.left!r}, the preset {c.right!r}" for c in changed_fixed_settings]
        raise CheckpointError(
            f"the run {run.name} cannot be resumed with this preset, which would be another model or other data:\n"
            + "\n".join(lines)
            + "\nleave these settings as they are, or start a new run"
        )
    if saved and loaded.preset.training.num_iterations < saved.step:
        raise CheckpointError(
            f"training.num_iterations = {loaded.preset.training.num_iterations}, but the run {run.name} "
            f"has been trained for {saved.step} already; ask for more, or sample the run as it is"
        )
    return LoadedPreset(run.info().get("preset", run.name), loaded.preset, loaded.layers), tuple(changed)


def _newest_preset(run: "Run", saved: "Checkpoint", frozen: "Preset") -> Path:
    """The run folder's preset, which includes changes since the checkpoint, or the checkpoint's.

    The checkpoint's if there is a time budget, whose num_iterations belongs to its step, or if the run folder's preset
    is damaged or does not fit.
    """
    from gpt2tui.preset import files as preset_files
    from gpt2tui.preset.settings import preset_differences
    from gpt2tui.run import checkpoint

    if not checkpoint.read_json(saved.folder / "trainer.json").get("time_budget"):
        with contextlib.suppress(Gpt2TuiError, OSError, ValueError):
            changed = preset_differences(frozen, preset_files.load_frozen(run.preset_file))
            if not any(change.key.startswith(FIXED) for change in changed):
                return run.preset_file
    return saved.folder / "preset.toml"
