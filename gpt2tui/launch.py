"""From a preset, or a run to resume, to a stream of events: the same for the console and the screen.

Both iterate over `drive`, which opens the run folder, prepares the data, makes the trainer and passes events to the
trackers. Imports nothing heavy before a training starts.
"""

import contextlib
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar, Union

from gpt2tui.errors import (
    OUT_OF_THREADS,
    CheckpointError,
    DoesNotFitError,
    Gpt2TuiError,
    ResourceError,
    UsageError,
    is_out_of_threads,
)
from gpt2tui.run.events import Event, RunFailed, RunFinished, Warned
from gpt2tui.training.controls import Controls

if TYPE_CHECKING:
    from gpt2tui.data.token_store import StageProgress, TokenizedCorpus
    from gpt2tui.preset.files import LoadedPreset, Overrides
    from gpt2tui.preset.schema import Preset
    from gpt2tui.run.checkpoint import Checkpoint
    from gpt2tui.run.folder import Run
    from gpt2tui.system.terminal_text import Report
    from gpt2tui.tracking.subscriber import Subscriber
    from gpt2tui.training.distributed import Ranks
    from gpt2tui.training.resuming import SettingChange
    from gpt2tui.training.starting import StartingWeights
    from gpt2tui.training.trainer import Trainer


@dataclass(frozen=True)
class Launch:
    """A training to start: a preset in a new run, or a run to resume.

    A run is resumed from `resume_from`, or its checkpoint of `resume_step`, or else its newest valid checkpoint; with
    `run_dir` in a new run there, a branch. `layers` and `overrides` change its settings. `learning_rate_factor`
    multiplies its schedule; None keeps its last factor. With `force` it is started although it may not fit into memory
    or on the disk.
    """

    loaded: "LoadedPreset"
    resume: "Run | None" = None
    run_dir: Path | None = None
    layers: tuple[str | Path, ...] = ()
    overrides: tuple[str, ...] = ()
    learning_rate_factor: float | None = None
    resume_from: "Checkpoint | None" = None
    resume_step: int | None = None
    force: bool = False

    def open(self) -> contextlib.AbstractContextManager["OpenedRun"]:
        """Opens the run folder, locked while the context is open. Raises CheckpointError for `resume_step`."""
        from gpt2tui.run import checkpoint

        if self.resume is None:
            return new_run(self.loaded, self.run_dir)
        step = self.resume_step
        return resumed_run(
            self.resume,
            self.layers,
            self.overrides,
            self.learning_rate_factor,
            resume_from=self.resume_from if step is None else checkpoint.at(self.resume.checkpoints, step),
            branch=self.run_dir,
        )


@dataclass(frozen=True)
class OpenedRun:
    """A locked run folder, with the preset to train in it."""

    run: "Run"
    loaded: "LoadedPreset"
    resume_from: "Checkpoint | None" = None
    changes: "tuple[SettingChange, ...]" = ()
    """Settings of a resumed run that differ from its checkpoint's preset."""
    learning_rate_factor: float | None = None
    """Multiplies the schedule; None means the checkpoint's factor."""
    notices: tuple[str, ...] = ()
    """Warnings about the resume."""
    start_from: "StartingWeights | None" = None
    """The weights that a new run starts from; None for random ones."""
    torchrun: int | None = None
    """The process of torchrun that trains it in a session of its own; None where this process trains it."""

    def tokenizer_folder(self) -> Path | None:
        """Where the tokenizer is that comes with the weights; None where it is made from the preset."""
        if self.loaded.preset.model.init_from is None:
            return None
        if self.start_from is not None:
            return self.start_from.description
        return self.run.folder if self.resume_from is None else self.resume_from.folder


Emitted = Union[OpenedRun, "StageProgress", Event]
"""What `drive` yields: the run folder once, then the progress of the preparation, then the events."""

Prepared = TypeVar("Prepared")
TrainingStream = Callable[[Launch, Controls], Iterator[Emitted]]
"""Starts a training; tests substitute their own."""


FitCheck = Literal["refuse", "ask", "warn"]
"""What happens to a run that needs more than is free: it is refused, also when it is only close ("ask": the caller then
asks the user), or it is started with a warning."""


def drive(
    opening: contextlib.AbstractContextManager[OpenedRun],
    controls: Controls,
    report: "Report | None" = None,
    fit_check: FitCheck = "refuse",
    ranks: "Ranks | None" = None,
) -> Generator[Emitted, None, None]:
    """Trains in the run that `opening` gives, in the caller's thread; close the generator to end it early.

    Errors of trackers go to `report`, or without it become warnings in the stream. A stop during the preparation ends
    it without an event. With several `ranks` this is rank 0, and each other one calls `follow`. Raises the errors of
    `Trainer.train` and of the preparation, and before it DoesNotFitError.
    """
    from gpt2tui.data.token_store import prepare
    from gpt2tui.data.tokenizers import of_model
    from gpt2tui.system.files import cache_folder
    from gpt2tui.tracking.subscriber import Subscribers
    from gpt2tui.training.outside_requests import obeying

    started = time.monotonic()
    with opening as opened, obeying(opened.run, controls):
        opened = _with_fit_checked(opened, fit_check, 1 if ranks is None else ranks.world_size)
        yield opened
        weights = opened.tokenizer_folder()
        tokenizer = None if weights is None else of_model(weights)
        preparation = prepare(opened.loaded.preset, cache_folder(), tokenizer)
        corpus = yield from _until_stopped(preparation, controls)
        if corpus is None:
            return
        if ranks is not None:
            _assign(ranks, opened)
        trainer = make_trainer(opened, corpus, controls, started, ranks)
        yield from _until_stopped(trainer.prepare(), controls)
        if controls.stopping:
            return
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


def _assign(ranks: "Ranks", opened: OpenedRun) -> None:
    """Tells the other ranks what is trained, when its data is prepared."""
    from gpt2tui.device import choose_device

    preset, saved = opened.loaded.preset, opened.resume_from
    ranks.assign(
        {
            "run": str(opened.run.folder.absolute()),
            "preset": preset.model_dump_json(),
            "checkpoint": None if saved is None else str(saved.folder.absolute()),
        },
        preset.rank_timeout,
        on_gpu=choose_device(preset.training.device).type == "cuda",
    )


def follow(ranks: "Ranks", controls: Controls, ready: Callable[[], None]) -> int:
    """Takes part, as a rank other than 0, in the run that rank 0 trains with `drive`; returns its exit code.

    Writes nothing but the cache of the corpus. `ready` is called before the first step. `controls` only carry a signal
    to rank 0. Raises the errors of `Trainer.train`, and LostRankError when another rank has failed.
    """
    from gpt2tui.data.token_store import prepare
    from gpt2tui.data.tokenizers import of_model
    from gpt2tui.preset.files import LoadedPreset
    from gpt2tui.preset.schema import Preset
    from gpt2tui.run.folder import Run
    from gpt2tui.run.manifest import inspect
    from gpt2tui.system.files import cache_folder
    from gpt2tui.training.distributed import is_connection_error
    from gpt2tui.training.failures import expected_failure
    from gpt2tui.training.preparation import prepare as prepare_state
    from gpt2tui.training.starting import resolve
    from gpt2tui.training.taking_part import take_part

    assignment = ranks.assignment()
    loaded = LoadedPreset("", Preset.model_validate_json(assignment["preset"]), ())
    saved = None if assignment["checkpoint"] is None else inspect(Path(assignment["checkpoint"]))
    start_from = resolve(loaded)[1] if saved is None else None
    opened = OpenedRun(Run(Path(assignment["run"])), loaded, saved, start_from=start_from)
    weights = opened.tokenizer_folder()
    corpus = _result_of(prepare(loaded.preset, cache_folder(), None if weights is None else of_model(weights)))
    preset = loaded.preset.with_vocab_size(loaded.preset.model.vocab_size or corpus.tokenizer.vocab_size)
    state = None
    try:
        state = _result_of(prepare_state(opened.run, preset, corpus, saved, start_from, ranks))
        ready()
        return take_part(state, corpus, ranks, controls)
    except Exception as error:
        expected = isinstance(error, Gpt2TuiError) or is_connection_error(error)
        failure = None if expected else expected_failure(error, opened.run, preset, corpus, state)
        if failure is None:
            raise
        raise failure from error


def _result_of(preparation: "Generator[StageProgress, None, Prepared]") -> Prepared:
    while True:
        try:
            next(preparation)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


def _until_stopped(
    preparation: "Generator[StageProgress, None, Prepared]", controls: Controls
) -> "Generator[StageProgress, None, Prepared | None]":
    """The progress of a preparation; returns its result, None when a stop was requested first."""
    while not controls.stopping:
        try:
            progress = next(preparation)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        yield progress
    preparation.close()
    return None


def _with_fit_checked(opened: OpenedRun, fit_check: FitCheck, ranks: int) -> OpenedRun:
    """The run, with a notice when it may not fit. Raises DoesNotFitError as `fit_check` says."""
    from gpt2tui.training.memory_check import check_fit

    run, saved = opened.run, opened.resume_from
    resumed_in_place = saved is not None and saved.folder.parent == run.checkpoints
    existing = sum(1 for _ in run.checkpoints.glob("step-*")) if resumed_in_place else 0
    try:
        check_fit(opened.loaded.preset, run.folder, existing, ranks)
    except DoesNotFitError as error:
        if fit_check == "ask" or (fit_check == "refuse" and not error.close):
            raise
        return replace(opened, notices=(*opened.notices, f"this run may not fit. {error}"))
    return opened


def _warnings(reports: list[str]) -> Iterator[Warned]:
    """The errors of the trackers as warnings; W&B's thread may append to `reports` meanwhile."""
    while reports:
        yield Warned(message=reports.pop(0))


def refuse_several_processes() -> None:
    """Raises UsageError under torchrun with several processes, for what does not divide a run among them."""
    world_size = os.environ.get("WORLD_SIZE", "1")
    if world_size.isdecimal() and int(world_size) > 1:
        raise UsageError(
            f"torchrun started {world_size} processes (WORLD_SIZE), which only gpt2tui train and gpt2tui --headless "
            "share among them; start this without torchrun"
        )


def check_ranks(preset: "Preset", world_size: int) -> None:
    """Raises UsageError when a step of this preset cannot be divided among so many ranks."""
    accumulation = preset.training.gradient_accumulation
    if accumulation % world_size == 0:
        return
    more = -(-accumulation // world_size) * world_size
    sequences = preset.training.batch_size * accumulation
    same = next((n for n in range(world_size, sequences + 1, world_size) if sequences % n == 0), None)
    instead = f"training.gradient_accumulation = {more}"
    if same is not None:
        instead = (
            f"training.gradient_accumulation = {same} and training.batch_size = {sequences // same}, which train the "
            "same"
        )
    raise UsageError(
        f"training.gradient_accumulation = {accumulation} micro-batches cannot be divided among {world_size} ranks; "
        f"set {instead}"
    )


@contextlib.contextmanager
def new_run(
    loaded: "LoadedPreset", folder: Path | None = None, name: str | None = None, ranks: "Ranks | None" = None
) -> Iterator[OpenedRun]:
    """A new run folder, locked; it is removed again if training never begins.

    Without a `folder` it is a new one in the runs folder, whose name ends in `name`, or else the preset's.
    Raises UsageError for a name that no folder can have, and under torchrun without `ranks` or where these cannot
    divide the preset's steps.
    """
    from gpt2tui.run import folder as runs

    _check_processes(loaded.preset, ranks)
    if name is not None:
        runs.check_name(name)
    run = runs.create(name or loaded.name, folder)  # what is wrong with it is said before torch is imported
    with _begun(run):
        from gpt2tui.training.starting import resolve

        check_device(loaded.preset)
        loaded, start_from = resolve(loaded)
        loaded = replace(loaded, preset=with_absolute_source(loaded.preset))
        yield OpenedRun(run, loaded, notices=start_from.notices if start_from else (), start_from=start_from)


def _check_processes(preset: "Preset", ranks: "Ranks | None") -> None:
    if ranks is None:
        refuse_several_processes()
    else:
        check_ranks(preset, ranks.world_size)


@contextlib.contextmanager
def _begun(run: "Run") -> Iterator[None]:
    """Locks a new run folder, and removes it again if training never begins."""
    from gpt2tui.run import folder as runs

    with runs.locked(run):
        try:
            yield
        finally:
            runs.remove_unless_begun(run)


def with_absolute_source(preset: "Preset") -> "Preset":
    """The preset as a run keeps it: no source depends on the working folder any more, nor names the home folder."""
    from gpt2tui.preset import source as sources

    return preset.with_sources(sources.placed)


def check_device(preset: "Preset") -> None:
    """Raises ResourceError when this machine lacks the preset's device or precision, before long work begins.

    Raises UsageError when it lacks the package that quantises, or those that measure.
    """
    from gpt2tui.device import choose_device, choose_precision
    from gpt2tui.model_files import check_quantizer

    choose_precision(preset, choose_device(preset.training.device))
    if preset.lora is not None and preset.lora.quantize:
        check_quantizer()
    if preset.evaluation is not None:
        from gpt2tui.evaluation.text_scores import require_packages

        require_packages(preset.evaluation.metrics)


@contextlib.contextmanager
def resumed_run(
    run: "Run",
    layers: Sequence[str | Path] = (),
    overrides: "Overrides" = (),
    learning_rate_factor: float | None = None,
    *,
    resume_from: "Checkpoint | None" = None,
    branch: Path | None = None,
    ranks: "Ranks | None" = None,
) -> Iterator[OpenedRun]:
    """A locked run to resume, with its preset changed by layers and overrides.

    It continues from `resume_from` as that was, or from its newest valid checkpoint with the changes since then. With
    `branch` it stays as it is, and a new run in that folder continues. A run that ended before its first checkpoint
    starts again at step 0. Raises RunLockedError, PresetError, UsageError as `new_run` does and for a branch of
    nothing, and CheckpointError when no saved checkpoint is valid or the changed preset no longer fits.
    """
    from gpt2tui.preset.files import load_frozen
    from gpt2tui.run import checkpoint
    from gpt2tui.run import folder as runs

    with contextlib.ExitStack() as stack:
        if branch is None:
            stack.enter_context(runs.locked(run))
        # torch is imported after the lock: that a run is in use is said at once.
        from gpt2tui.training.resuming import rate_jump, resumed_preset
        from gpt2tui.training.starting import resolve

        if branch is None:
            checkpoint.remove_leftovers(run.checkpoints)
            if resume_from is not None and not resume_from.folder.name.startswith("step-"):
                raise UsageError(
                    f"{resume_from.folder} was set aside and no longer belongs to its run; resume from it in a new run "
                    "with --run-dir NEW"
                )
        saved = resume_from or runs.resume_point(run)
        if saved is None and branch is not None:
            raise UsageError(f"{run.name} has no checkpoint to branch from; start a new run with its preset")
        if saved is not None and "training_state.safetensors" not in saved.files:
            raise CheckpointError(
                f"{run.name} was imported, so there is no training to resume; start a new run from its weights with "
                f"--set model.init_from={run.name}"
            )
        resumed = resumed_preset(run, saved, layers, overrides, newest=resume_from is None)
        _check_processes(resumed.loaded.preset, ranks)
        check_device(resumed.loaded.preset)
        if learning_rate_factor is None and resume_from is None:
            learning_rate_factor = _changed_factor(run, saved)
        notices = list(resumed.notices)
        loaded, start_from = resolve(resumed.loaded) if saved is None else (resumed.loaded, None)
        if saved is not None:
            before = load_frozen(saved.folder / "preset.toml")
            kept = checkpoint.read_json(saved.folder / "trainer.json").get("learning_rate_factor", 1.0)
            now = kept if learning_rate_factor is None else learning_rate_factor
            if jump := rate_jump(before, resumed.loaded.preset, saved.step, (kept, now)):
                notices.append(jump)
        if branch is not None:
            run = runs.create(resumed.loaded.name, branch)
            stack.enter_context(_begun(run))
        yield OpenedRun(run, loaded, saved, resumed.changes, learning_rate_factor, tuple(notices), start_from)


def _changed_factor(run: "Run", saved: "Checkpoint | None") -> float | None:
    """The learning-rate factor that the user has set since the checkpoint was saved."""
    change = run.info().get("learning_rate_change")
    if not isinstance(change, dict) or type(change.get("step")) is not int or type(change.get("factor")) is not float:
        return None
    return change["factor"] if saved is None or change["step"] >= saved.step else None


def make_trainer(
    opened: OpenedRun,
    corpus: "TokenizedCorpus",
    controls: Controls,
    prepared_since: float | None = None,
    ranks: "Ranks | None" = None,
) -> "Trainer":
    """The trainer of an opened run and its prepared corpus; a time budget counts from `prepared_since`."""
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
        changes=opened.changes,
        notices=opened.notices,
        prepared_since=prepared_since,
        start_from=opened.start_from,
        ranks=ranks,
    )


def trackers(trainer: "Trainer", report: "Report") -> "list[Subscriber]":
    """The subscribers that record a run: `events.jsonl` always, W&B and TensorBoard if the preset enables them."""
    from gpt2tui.run.events_file import JsonLines
    from gpt2tui.tracking.tensorboard import TensorBoardTracker
    from gpt2tui.tracking.wandb import WandbTracker

    subscribers: list[Subscriber] = [JsonLines(trainer.run.events_file, report)]
    if trainer.preset.tracking.wandb != "disabled":
        try:
            subscribers.append(WandbTracker(trainer.preset, trainer.run.folder, report=report))
        except RuntimeError as error:
            if not is_out_of_threads(error):
                raise
            report(f"W&B tracking is off: {OUT_OF_THREADS}")
    if trainer.preset.tracking.tensorboard:
        try:
            subscribers.append(TensorBoardTracker(trainer.preset, trainer.run.folder))
        except ResourceError as error:
            report(f"TensorBoard tracking is off: {error}")
    return subscribers
