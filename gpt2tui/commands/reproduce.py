"""`gpt2tui runs reproduce RUN`: trains the first steps of a run again, from its own folder, and compares the losses."""

import argparse
import contextlib
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpt2tui.commands.tables import print_json
from gpt2tui.errors import CheckpointError, DataError, Gpt2TuiError, ResourceError, UsageError
from gpt2tui.launch import OpenedRun, drive, new_run, resumed_run
from gpt2tui.preset.files import LoadedPreset, load_frozen
from gpt2tui.preset.schema import Preset
from gpt2tui.preset.settings import preset_differences
from gpt2tui.run import checkpoint, events
from gpt2tui.run import folder as runs
from gpt2tui.run.events_file import read_events
from gpt2tui.run.folder import Run
from gpt2tui.system.terminal_text import print_on_stderr, printable, printable_value
from gpt2tui.training.controls import Controls
from gpt2tui.training.resuming import with_source_found

CODES: Mapping[str, type[Gpt2TuiError]] = {
    "setting": UsageError,
    "version": ResourceError,
    "thread count": ResourceError,
    "machine": ResourceError,
    "data": DataError,
    "weights": CheckpointError,
}
"""The error, and with it the exit code, by what differs."""
WITHOUT_PAUSES = (
    "tracking.wandb=disabled",
    "tracking.tensorboard=false",
    "training.eval_frequency=0",
    "training.sample_frequency=0",
    "training.checkpoint_frequency=0",
    "training.target_loss=auto",
    "training.patience=auto",
)
"""None of this changes a loss."""


@dataclass(frozen=True)
class Recorded:
    """The beginning of a run, by its events."""

    first_step: int
    """Updates before it: 0 unless it is a branch."""
    last_step: int
    """Updates before its first resume."""
    num_iterations: int
    losses: dict[int, float]
    """By step."""
    ending: str
    """Why no later step is compared; empty where that is not the run's doing."""


@dataclass(frozen=True)
class Divergence:
    """Something that is not as it was when the run began."""

    kind: str
    name: str
    then: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.kind} {self.name}: {_shown(self.then)} then, {_shown(self.now)} now"


def reproduce(options: argparse.Namespace) -> int:
    """Compares the losses bit for bit.

    Where they are not equal, raises the error of the first difference: UsageError of a setting, ResourceError of a
    version, thread count or machine, DataError of the data, and CheckpointError where none was found.
    """
    if options.steps < 1:
        raise UsageError(f"--steps {options.steps} compares nothing; it is 1 at least")
    run = runs.find(options.run)
    recorded = _recorded(run, options.steps)
    if not recorded.losses:
        raise UsageError(f"{run.name} has no steps to compare with{recorded.ending and f': {recorded.ending}'}")
    steps = sorted(recorded.losses)
    print_on_stderr(f"training the steps {steps[0]:,} to {steps[-1]:,} of {run.name} again")
    with tempfile.TemporaryDirectory(prefix="gpt2tui-") as folder:
        again = Run(Path(folder) / "again")
        losses = _train_again(run, recorded, again.folder, steps[-1])
        divergences = list(_divergences(run, recorded, again))
    wrong = next((step for step in steps if losses.get(step) != recorded.losses[step]), None)
    if options.json:
        print_json(
            {
                "run": run.name,
                "equal": wrong is None,
                "steps": len(steps),
                "first_different_step": wrong,
                "losses": [
                    {"step": step, "recorded": recorded.losses[step], "reproduced": losses.get(step)} for step in steps
                ],
                "differences": [asdict(each) for each in divergences],
            }
        )
    if wrong is None:
        if not options.json:
            print(f"reproduced: the losses of the steps {steps[0]:,} to {steps[-1]:,} are equal, bit for bit")
            if recorded.ending:
                print(f"  later steps are not compared: {recorded.ending}")
            for each in divergences:
                print(f"  although it differs: {each}")
        return 0
    message = (
        f"{run.name} is not reproduced: the loss of step {wrong:,} was {recorded.losses[wrong]!r} and is "
        f"{losses.get(wrong)!r}. "
    )
    if not divergences:
        raise CheckpointError(
            f"{message}Settings, versions, thread count and data are those that it records; what differs is something "
            "that it does not record, such as the processor"
        )
    others = f" ({len(divergences) - 1} more with --json)" if len(divergences) > 1 else ""
    raise CODES[divergences[0].kind](f"{message}The first difference: {divergences[0]}{others}")


def _recorded(run: Run, steps: int) -> Recorded:
    """The first `steps` steps, up to the first change of the learning rate, of the end, or resume."""
    started: events.RunStarted | None = None
    losses: dict[int, float] = {}
    ending, last = "", 0
    try:
        for event in read_events(run.events_file):
            step = getattr(event, "step", 0)
            if isinstance(event, events.RunStarted) and started is None:
                started = event
                continue
            match event:
                case events.RunStarted():
                    ending = f"the run was resumed at step {step:,}"
                case events.LearningRateChanged():
                    ending = f"the learning rate was changed by hand at step {step:,}"
                case events.NumIterationsChanged():
                    ending = f"the time budget changed the number of steps at step {step:,}"
                case events.SettingsChanged() if step:
                    ending = f"the settings were changed at step {step:,}"
            if ending:
                break
            if isinstance(event, events.Step) and math.isfinite(event.train_loss):
                last = step
                if len(losses) < steps:
                    losses[step] = event.train_loss
    except OSError as error:
        raise UsageError(f"{run.events_file} cannot be read: {error.strerror or error}") from error
    if started is None:
        raise UsageError(f"{run.name} has no steps to compare with: its training has not begun")
    return Recorded(started.step, last, started.num_iterations, losses, ending if len(losses) < steps else "")


def _train_again(run: Run, recorded: Recorded, folder: Path, last: int) -> dict[int, float]:
    """The losses of a new run in `folder` that begins as the run did, up to the step `last`."""
    found: dict[int, float] = {}
    with contextlib.closing(drive(_opening(run, recorded, folder), Controls(), fit_check="warn")) as stream:
        for emitted in stream:
            if isinstance(emitted, events.Step):
                found[emitted.step] = emitted.train_loss
                if emitted.step >= last:
                    break
    return found


def _opening(run: Run, recorded: Recorded, folder: Path) -> contextlib.AbstractContextManager[OpenedRun]:
    """The new run: from the beginning, or for a branch from the checkpoint that it began with."""
    if recorded.first_step:
        saved = checkpoint.at(run.checkpoints, recorded.first_step)
        return resumed_run(run, (), WITHOUT_PAUSES, resume_from=saved, branch=folder)
    frozen = load_frozen(_first_preset_file(run))
    preset, notices = with_source_found(frozen, frozen, run)
    for notice in notices:
        print_on_stderr(notice)
    tracking = preset.tracking.model_copy(update={"wandb": "disabled", "tensorboard": False})
    preset = preset.model_copy(update={"tracking": tracking}).with_training(
        num_iterations=recorded.num_iterations,
        eval_frequency=0,
        sample_frequency=0,
        checkpoint_frequency=0,
        target_loss=None,
        patience=None,
    )
    return new_run(LoadedPreset(str(run.info().get("preset", run.name)), preset, ()), folder)


def _first_preset_file(run: Run) -> Path:
    """The preset with which the run began: where resumes have changed it, it was kept beside."""
    earlier = sorted(run.folder.glob("preset-*.toml"))
    return earlier[0] if earlier else run.preset_file


def _divergences(run: Run, recorded: Recorded, again: Run) -> Iterator[Divergence]:
    """What differs between the run and its repetition, in the order in which it would matter."""
    yield from _changed_settings(run, recorded)
    then, now = run.info(), again.info()
    for name in ("precision", "compile_reason"):
        if name in then and then[name] != now.get(name):
            yield Divergence("setting", name, then[name], now.get(name))
    versions, present = then.get("versions") or {}, now.get("versions") or {}
    for name in versions:
        if versions[name] != present.get(name):
            yield Divergence("version", name, versions[name], present.get(name))
    if then.get("git_commit") and then["git_commit"] != now.get("git_commit"):
        yield Divergence("version", "of the checkout (git)", then["git_commit"], now.get("git_commit"))
    if "threads" in then and then["threads"] != now.get("threads"):
        yield Divergence("thread count", "of torch", then["threads"], now.get("threads"))
    for name in ("device", "platform"):
        if then.get(name) != now.get(name):
            yield Divergence("machine", name, then.get(name), now.get(name))
    before, after = then.get("origin") or {}, now.get("origin") or {}
    if before.get("sha256") != after.get("sha256") and not recorded.first_step:
        yield Divergence("weights", str(before.get("source")), before.get("sha256"), after.get("sha256"))
    yield from _changed_data(then.get("data") or {}, now.get("data") or {})


def _changed_settings(run: Run, recorded: Recorded) -> Iterator[Divergence]:
    """The settings in which the run's preset is no longer that of its first checkpoint."""
    saved = [each for each in checkpoint.saved_in(run.checkpoints) if each.step <= recorded.last_step]
    if not saved:
        return
    with contextlib.suppress(Gpt2TuiError, OSError, ValueError):
        first, kept = load_frozen(saved[0].folder / "preset.toml"), load_frozen(_first_preset_file(run))
        for each in preset_differences(_comparable(first), _comparable(kept)):
            yield Divergence("setting", each.key, each.left, each.right)


def _comparable(preset: Preset) -> Preset:
    """Without what a training changes by itself."""
    return preset.with_training(num_iterations=1)


def _changed_data(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Divergence]:
    if then.get("fingerprint") == now.get("fingerprint"):
        return
    files, present = then.get("files"), now.get("files")
    if isinstance(files, dict) and isinstance(present, dict):
        for name in [*files, *(name for name in present if name not in files)]:
            if files.get(name) != present.get(name):
                yield Divergence("data", f"file {printable(name)}", files.get(name), present.get(name))
        return
    yield Divergence("data", printable(str(then.get("source"))), then.get("fingerprint"), now.get("fingerprint"))


def _shown(value: Any) -> str:
    if value is None:
        return "missing"
    return value[:16] if isinstance(value, str) and len(value) == 64 else printable_value(value)
