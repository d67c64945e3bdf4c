"""The one driver of a training: from a preset, or a run to resume, to a stream of events.

The console and the screen both iterate over `drive`; it opens the run folder, prepares the data, makes the trainer and
lets the trackers write down what happens. Imports nothing heavy before somebody trains.
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
    from gpt2tui.data.token_store import Progress, TokenizedCorpus
    from gpt2tui.preset.files import LoadedPreset
    from gpt2tui.preset.schema import Preset
    from gpt2tui.preset.settings import Difference
    from gpt2tui.run.checkpoint import Checkpoint
    from gpt2tui.run.folder import Run
    from gpt2tui.system.terminal_text import Report
    from gpt2tui.tracking.subscriber import Subscriber
    from gpt2tui.training.trainer import Trainer

# A resumed run may change how it goes on, not what it is.
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
    """What is to be trained: a preset in a new run, or a run that is resumed from its newest valid checkpoint.

    `layers` and `overrides` change how a resumed run goes on. `learning_rate_factor` multiplies its schedule from then
    on; None keeps the factor that it had.
    """

    loaded: "LoadedPreset"
    resume: "Run | None" = None
    run_dir: Path | None = None
    layers: tuple[str | Path, ...] = ()
    overrides: tuple[str, ...] = ()
    learning_rate_factor: float | None = None

    def open(self) -> contextlib.AbstractContextManager["OpenedRun"]:
        """Its run folder, locked while the context is open."""
        if self.resume is None:
            return new_run(self.loaded, self.run_dir)
        return resumed_run(self.resume, self.layers, self.overrides, self.learning_rate_factor)


@dataclass(frozen=True)
class OpenedRun:
    """A run folder that this process holds, with what is to be trained in it."""

    run: "Run"
    loaded: "LoadedPreset"
    resume_from: "Checkpoint | None" = None
    changed: "tuple[Difference, ...]" = ()
    """Settings of a resumed run that are no longer what its checkpoint's preset says."""
    learning_rate_factor: float | None = None
    """What the schedule is to be multiplied by; None is as the checkpoint has it."""


Emitted = Union[OpenedRun, "Progress", Event]
"""What a training tells: once its run folder, then how far the preparation is, then its events."""

TrainingStream = Callable[[Launch, Controls], Iterator[Emitted]]
"""How a training is driven; tests put a stream of their own here."""


def drive(
    opening: contextlib.AbstractContextManager[OpenedRun], controls: Controls, report: "Report | None" = None
) -> Generator[Emitted, None, None]:
    """Trains in the run that `opening` gives; the thread is that of the caller, who closes it when it ends early.

    Trackers say through `report` what goes wrong with them, without it by a warning in the stream. A stop while data is
    prepared ends it without an event. Raises what ends a training early, see `Trainer.train`.
    """
    from gpt2tui.data.token_store import Progress, prepare
    from gpt2tui.system.files import cache_folder
    from gpt2tui.tracking.subscriber import Subscribers

    with opening as opened:
        yield opened
        corpus = yield from prepare(opened.loaded.preset, cache_folder())
        if controls.stopping:
            return
        yield Progress("preparing the network")
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
    """What the trackers have had to say; W&B's thread may be adding to it."""
    while reports:
        yield Warned(message=reports.pop(0))


@contextlib.contextmanager
def new_run(loaded: "LoadedPreset", folder: Path | None = None) -> Iterator[OpenedRun]:
    """A new run folder, locked; one in which training never began is removed again."""
    from gpt2tui.run import folder as runs

    check_device(loaded.preset)
    run = runs.create(loaded.name, folder)
    with runs.locked(run):
        try:
            yield OpenedRun(run, loaded)
        finally:
            runs.remove_unless_begun(run)


def check_device(preset: "Preset") -> None:
    """Raises ResourceError when the preset's device or precision is not to be had, before anything takes long."""
    from gpt2tui.device import choose_device, choose_precision

    choose_precision(preset, choose_device(preset.training.device))


@contextlib.contextmanager
def resumed_run(
    run: "Run",
    layers: Sequence[str | Path] = (),
    overrides: Sequence[str] = (),
    learning_rate_factor: float | None = None,
) -> Iterator[OpenedRun]:
    """A run, locked, to resume from its newest valid checkpoint, with its preset under the layers and overrides.

    One that ended before its first checkpoint begins anew. Raises RunLockedError, CheckpointError when what was saved
    is not valid or the preset no longer fits, PresetError.
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
    """The learning rate's factor that a person has set since the checkpoint was saved."""
    change = run.info().get("learning_rate_change")
    if not isinstance(change, dict) or type(change.get("step")) is not int or type(change.get("factor")) is not float:
        return None
    return change["factor"] if saved is None or change["step"] >= saved.step else None


def make_trainer(opened: OpenedRun, corpus: "TokenizedCorpus", controls: Controls) -> "Trainer":
    """The trainer of an opened run on its prepared corpus."""
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
    """Who writes a run down: `events.jsonl` always, W&B where the preset says so."""
    from gpt2tui.run.events_file import JsonLines
    from gpt2tui.tracking.wandb import WandbTracker

    subscribers: list[Subscriber] = [JsonLines(trainer.run.events_file, report)]
    if trainer.preset.tracking.wandb != "disabled":
        subscribers.append(WandbTracker(trainer.preset, trainer.run.folder, report=report))
    return subscribers


def resumed_preset(
    run: "Run", saved: "Checkpoint | None", layers: Sequence[str | Path], overrides: Sequence[str]
) -> "tuple[LoadedPreset, tuple[Difference, ...]]":
    """The run's preset under what is to change, and what differs from the checkpoint's preset.

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
            f"has been trained for {saved.step} already; ask for more, or sample it as it is"
        )
    return LoadedPreset(run.info().get("preset", run.name), loaded.preset, loaded.layers), tuple(changed)


def _newest_preset(run: "Run", saved: "Checkpoint", frozen: "Preset") -> Path:
    """The run folder's preset, which knows what a resumption has changed since the checkpoint; else the checkpoint's.

    With a time budget the number of iterations belongs to the checkpoint's step. The run folder's preset is not needed,
    so that a damaged one is skipped.
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
