"""The preset of a run that is resumed: which settings may change, and what each change does."""

import contextlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpt2tui.errors import CheckpointError, Gpt2TuiError, UsageError
from gpt2tui.preset import files as preset_files
from gpt2tui.preset import source as sources
from gpt2tui.preset.files import LoadedPreset
from gpt2tui.preset.schema import Preset
from gpt2tui.preset.settings import Difference, preset_differences
from gpt2tui.run import checkpoint
from gpt2tui.run.aliases import aliases_of
from gpt2tui.run.checkpoint import Checkpoint
from gpt2tui.run.events import change_line
from gpt2tui.run.folder import Run
from gpt2tui.training.schedules import learning_rate

JUMP = 1.05
"""A learning rate that is higher by this factor than it would have been is worth a warning."""
MICRO_BATCHES = ("training.batch_size", "training.gradient_accumulation")
CHANGEABLE = ("model.dropout", "lora.dropout", "data.source")
"""Settings of these tables that may change; whether a source has the same text, its fingerprint decides."""


@dataclass(frozen=True)
class SettingChange:
    """A setting that a resume changes; None where a preset leaves it out."""

    key: str
    before: Any
    after: Any
    effect: str
    """From which step on it takes effect, or why it has none."""

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, as in the event `settings_changed`."""
        return asdict(self)

    def __str__(self) -> str:
        return change_line(self.as_dict())


@dataclass(frozen=True)
class ResumedPreset:
    """What a run is resumed with."""

    loaded: LoadedPreset
    changes: tuple[SettingChange, ...] = ()
    """The settings that differ from the checkpoint's preset."""
    notices: tuple[str, ...] = ()


def resumed_preset(
    run: Run,
    saved: Checkpoint | None,
    layers: Sequence[str | Path],
    overrides: preset_files.Overrides,
    *,
    newest: bool = True,
) -> ResumedPreset:
    """The run's preset changed by layers and overrides, and its differences from the checkpoint's preset.

    With `newest` it includes what was changed since the checkpoint. Raises CheckpointError when it no longer fits the
    checkpoint.
    """
    path = saved.folder / "preset.toml" if saved else run.preset_file
    frozen = preset_files.load_frozen(path)
    base = _newest_preset(run, saved, frozen) if saved and newest else path
    loaded = preset_files.load(layers, overrides, frozen=base)
    preset, notices = with_source_found(loaded.preset, frozen, run)
    differences = preset_differences(frozen, preset)
    if refused := [f"  {_values(d)}: {reason}" for d in differences if (reason := refusal(d.key, frozen, preset))]:
        raise CheckpointError(
            f"the run {run.name} cannot be resumed with other values of these settings:\n"
            + "\n".join(refused)
            + "\nleave them as they are, or start a new run"
        )
    step = saved.step if saved else 0
    if preset.training.num_iterations < step:
        raise CheckpointError(
            f"training.num_iterations = {preset.training.num_iterations}, but the run {run.name} "
            f"has been trained for {step} already; ask for more, or sample the run as it is"
        )
    changes = tuple(SettingChange(d.key, d.left, d.right, effect(d, frozen, preset, step)) for d in differences)
    named = LoadedPreset(run.info().get("preset", run.name), preset, loaded.layers)
    return ResumedPreset(named, changes, notices)


def refusal(key: str, before: Preset, after: Preset) -> str | None:
    """Why a resumed run cannot change a setting; None where it can."""
    if key in CHANGEABLE:
        return None
    if key == "data.mix" and [each.weight for each in before.data.mix] == [each.weight for each in after.data.mix]:
        return None
    if key == "model.init_from":
        return "the run has started from its weights already"
    if key == "lora.quantize":
        return "the adapters were trained beside the other numbers"
    if key == "lora" or key.startswith("lora."):
        return "the saved adapters have another shape or another scale"
    if key.startswith("model."):
        return "it gives a network of another shape, which the saved weights do not fit"
    if key.startswith("data."):
        return "it gives other tokens than those that the run was trained on"
    if key == "optimizer.name":
        return "the saved moments are those of the other optimizer"
    if key == "training.sequence_length":
        return "the text would be cut into other windows, and the order of the windows would not continue"
    if key in MICRO_BATCHES and before.tokens_per_step != after.tokens_per_step:
        per_step = before.training.batch_size * before.training.gradient_accumulation
        return (
            f"a step would have {after.tokens_per_step:,} tokens instead of {before.tokens_per_step:,}; "
            f"batch_size x gradient_accumulation must stay {per_step}"
        )
    return None


def effect(change: Difference, before: Preset, after: Preset, step: int) -> str:
    """From which step on a change takes effect, or why it has none."""
    key, table = change.key, change.key.partition(".")[0]
    from_now = f"from step {step + 1} on"
    if key in MICRO_BATCHES:
        return f"{from_now}: the steps have the same windows as before"
    if key in ("data.source", "data.mix"):
        return "if it is the same text"
    if key in ("optimizer.muon_lr", "optimizer.muon_momentum") and after.optimizer.name != "muon":
        return f"no effect: optimizer.name is {after.optimizer.name}"
    if table == "schedule" and not _changes_learning_rate(change, after, step):
        return "no effect: the remaining steps have the same learning rates"
    if key == "training.seed":
        if after.data.streaming:
            return "no effect: the weights exist already, and a stream has one order"
        return f"{from_now}, for the order of the windows, of which some come again; the weights stay"
    if key == "training.num_iterations":
        decays = after.schedule.name != "constant"
        return f"the run ends there{', and the learning rate decays until then' if decays else ''}"
    if table in ("description", "tracking"):
        return "no effect on the training"
    return from_now


def rate_jump(before: Preset, after: Preset, step: int, factors: tuple[float, float] = (1.0, 1.0)) -> str | None:
    """A warning where the next step's learning rate is higher than without the changes; None where it is not.

    `factors` multiply the schedules before and after.
    """
    if step == 0 or step >= after.training.num_iterations:
        return None
    names = ("optimizer.lr", "optimizer.muon_lr") if after.optimizer.name == "muon" else ("optimizer.lr",)
    for name in names:
        last, unchanged, now = (
            factor * learning_rate(preset, iteration) * _peak(preset, name) / preset.optimizer.lr
            for preset, iteration, factor in (
                (before, step - 1, factors[0]),
                (before, step, factors[0]),
                (after, step, factors[1]),
            )
        )
        if now > JUMP * unchanged and now > JUMP * last:
            return (
                f"the learning rate rises from {last:.3g} at step {step} to {now:.3g} at step {step + 1}, and the loss "
                f"may rise with it; to continue with a lower one set {name} (now {_peak(after, name):g}) lower"
            )
    return None


def refuse_to_set_tagged_aside(run: Run, step: int) -> None:
    """Raises UsageError when a checkpoint later than `step`, which resuming there would set aside, has a tag."""
    for alias in aliases_of(run.folder):
        if alias.step > step:
            raise UsageError(
                f"the checkpoint of step {alias.step} has the tag @{alias.name}, and resuming from step {step} would "
                "set it aside; resume in a new run with --run-dir, or take the tag away: gpt2tui runs untag "
                f"{alias.name}"
            )


def set_later_checkpoints_aside(run: Run, step: int) -> list[str]:
    """Renames a run's checkpoints of later steps, the newest first; returns a sentence that says so.

    The run would otherwise be resumed from them, and its own new ones be deleted as the older ones. Raises
    ResourceError.
    """
    later = [saved for saved in checkpoint.saved_in(run.checkpoints) if saved.step > step]
    names = [checkpoint.set_aside(saved.folder).name for saved in reversed(later)]
    if not names:
        return []
    return [
        f"resumed from step {step}: the later checkpoints are kept beside it as {', '.join(reversed(names))}, and no "
        "longer belong to the run's history; delete them when you no longer need them"
    ]


def with_source_found(preset: Preset, frozen: Preset, run: Run) -> tuple[Preset, tuple[str, ...]]:
    """The preset with the place of its corpus, and a notice where that was found somewhere else."""
    if preset.data.sources != frozen.data.sources:
        return preset.with_sources(lambda source: sources.portable(sources.absolute(source, Path.cwd()))), ()
    notices = []

    def found(source: str) -> str:
        if not sources.is_path(source) or sources.exists(source):
            return source
        moved = sources.find_moved(source, run.folder)
        if moved is None:
            return source
        place = sources.portable(moved)
        notices.append(f"{source} does not exist; {place} is used, if it is the same text")
        return place

    return preset.with_sources(found), tuple(notices)


def _newest_preset(run: Run, saved: Checkpoint, frozen: Preset) -> Path:
    """The run folder's preset, which includes changes since the checkpoint, or the checkpoint's.

    The checkpoint's if there is a time budget, whose num_iterations belongs to its step, or if the run folder's preset
    is damaged or does not fit.
    """
    if not checkpoint.read_json(saved.folder / "trainer.json").get("time_budget"):
        with contextlib.suppress(Gpt2TuiError, OSError, ValueError):
            newest = preset_files.load_frozen(run.preset_file)
            if not any(refusal(change.key, frozen, newest) for change in preset_differences(frozen, newest)):
                return run.preset_file
    return saved.folder / "preset.toml"


def _changes_learning_rate(change: Difference, after: Preset, step: int) -> bool:
    """Whether a setting of [schedule] changes the learning rate of a remaining step, tried at up to 1,000 of them."""
    name = change.key.partition(".")[2]
    schedule = after.schedule.model_copy(update={name: change.left})
    without = after.model_copy(update={"schedule": schedule})
    last = after.training.num_iterations
    steps = range(step, last, max(1, (last - step) // 1000))
    return any(learning_rate(without, i) != learning_rate(after, i) for i in steps)


def _peak(preset: Preset, name: str) -> float:
    return preset.optimizer.muon_lr if name == "optimizer.muon_lr" else preset.optimizer.lr


def _values(change: Difference) -> str:
    return f"{change.key}: the run has {change.left!r}, the preset {change.right!r}"
