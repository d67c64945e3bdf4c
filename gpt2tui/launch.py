"""From a preset, or a run to go on with, to a training in its folder: what every way to train has in common."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2tui import checkpoint, preset_files, runs
from gpt2tui.checkpoint import Checkpoint
from gpt2tui.errors import CheckpointError
from gpt2tui.preset import Preset
from gpt2tui.preset_files import LoadedPreset
from gpt2tui.tracking.subscriber import Report, Subscriber
from gpt2tui.training.controls import Controls

if TYPE_CHECKING:
    from gpt2tui.data.token_store import TokenizedCorpus
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
class OpenedRun:
    """A run folder that this process holds, with what is to be trained in it."""

    run: runs.Run
    loaded: LoadedPreset
    resume_from: Checkpoint | None = None
    changed: tuple[tuple[str, object], ...] = ()
    """Settings of a resumed run that are no longer what its frozen preset says: keys and new values."""


@contextlib.contextmanager
def new_run(loaded: LoadedPreset, folder: Path | None = None) -> Iterator[OpenedRun]:
    """A new run folder, locked; one in which training never began is removed again."""
    check_device(loaded.preset)
    made = folder is None or not folder.exists()
    run = runs.create(loaded.name, folder)
    with runs.locked(run):
        try:
            yield OpenedRun(run, loaded)
        finally:
            runs.remove_unless_begun(run, made=made)


def check_device(preset: Preset) -> None:
    """Raises ResourceError when the preset's device or precision is not to be had, before anything takes long."""
    from gpt2tui.training.precision import choose_device, choose_precision

    choose_precision(preset, choose_device(preset.training.device))


@contextlib.contextmanager
def resumed_run(run: runs.Run, layers: Sequence[str | Path] = (), overrides: Sequence[str] = ()) -> Iterator[OpenedRun]:
    """A run, locked, to go on from its newest valid checkpoint, its frozen preset under the layers and overrides.

    Raises RunLockedError, CheckpointError when nothing valid is saved or the preset no longer fits, PresetError.
    """
    with runs.locked(run):
        checkpoint.remove_leftovers(run.checkpoints)
        saved = checkpoint.newest(run.checkpoints)
        loaded, changed = resumed_preset(run, saved, layers, overrides)
        check_device(loaded.preset)
        runs.update_info(run, **runs.this_process())
        yield OpenedRun(run, loaded, saved, changed)


def make_trainer(opened: OpenedRun, corpus: "TokenizedCorpus", controls: Controls) -> "Trainer":
    """The trainer of an opened run on its prepared corpus."""
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
    )


def trackers(trainer: "Trainer", report: Report) -> list[Subscriber]:
    """Who writes a run down: `events.jsonl` always, W&B where the preset says so."""
    from gpt2tui.tracking.jsonl import JsonLines
    from gpt2tui.tracking.wandb import WandbTracker

    subscribers: list[Subscriber] = [JsonLines(trainer.run.events_file, report)]
    if trainer.preset.tracking.wandb != "disabled":
        subscribers.append(WandbTracker(trainer.preset, trainer.run.folder, report=report))
    return subscribers


def resumed_preset(
    run: runs.Run, saved: Checkpoint, layers: Sequence[str | Path], overrides: Sequence[str]
) -> tuple[LoadedPreset, tuple[tuple[str, object], ...]]:
    """The checkpoint's frozen preset under what is to change. Raises CheckpointError when it no longer fits.

    The checkpoint's, because it knows of changes that earlier resumptions made.
    """
    path = saved.folder / "preset.toml"
    frozen = preset_files.load_frozen(path)
    name = run.info().get("preset", run.name)
    loaded = preset_files.load([path, *layers], overrides)
    before, after = _flat(frozen), _flat(loaded.preset)
    changed = [key for key in before if before[key] != after[key]]
    if misfits := [key for key in changed if key.startswith(FIXED)]:
        lines = [f"  {key}: the run has {before[key]!r}, the preset {after[key]!r}" for key in misfits]
        raise CheckpointError(
            f"the run {run.name} cannot go on with this preset, which would be another model or other data:\n"
            + "\n".join(lines)
            + "\nleave these settings as they are, or start a new run"
        )
    if loaded.preset.training.num_iterations < saved.step:
        raise CheckpointError(
            f"training.num_iterations = {loaded.preset.training.num_iterations}, but the run {run.name} "
            f"has been trained for {saved.step} already; ask for more, or sample it as it is"
        )
    return LoadedPreset(name, loaded.preset, loaded.layers), tuple((key, after[key]) for key in changed)


def _flat(preset: Preset) -> dict[str, object]:
    tables = preset.model_dump()
    return {
        f"{table}.{key}": value
        for table, values in tables.items()
        if isinstance(values, dict)
        for key, value in values.items()
    }
