"""A summary of a run, read from its folder alone."""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

from gpt2tui.errors import Gpt2TuiError
from gpt2tui.run import checkpoint, events
from gpt2tui.run.events_file import lines_but_steps, parse_line
from gpt2tui.run.folder import Run, is_locked, is_of_this_machine
from gpt2tui.run.state import RunState, state_at, state_at_end
from gpt2tui.system.numbers import xz_comparison


@dataclass(frozen=True)
class RunSummary:
    """State, progress and metrics of a run; unknown numbers are None."""

    name: str
    folder: str
    state: RunState
    preset: str | None = None
    started: float | None = None
    last_event: float | None = None
    seconds: float | None = None
    step: int = 0
    num_iterations: int | None = None
    parameters: int | None = None
    tokens_seen: int | None = None
    train_loss: float | None = None
    val_loss: float | None = None
    best_val_loss: float | None = None
    bits_per_byte: float | None = None
    xz_bits_per_byte: float | None = None
    xz_after_training_bits_per_byte: float | None = None
    metrics: dict[str, float | None] = field(default_factory=dict, hash=False)
    """Those of `events.METRICS` that the last evaluation has measured."""
    checkpoints: int = 0
    bytes: int = 0
    reason: str | None = None
    """Of a run that has ended without an error: that of its `run_finished`."""
    message: str | None = None

    @property
    def xz_comparison(self) -> str:
        """The figures of xz beside bits_per_byte; empty where either is not known."""
        if self.bits_per_byte is None:
            return ""
        return xz_comparison(self.bits_per_byte, self.xz_bits_per_byte, self.xz_after_training_bits_per_byte)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, with each metric under its name."""
        record = asdict(self)
        metrics: dict[str, Any] = record.pop("metrics")
        return {**record, **metrics}

    def value(self, key: str) -> Any:
        """The value of a field, or of a metric by its name; None where it is not known."""
        return self.metrics.get(key) if key in events.METRICS else getattr(self, key)


def summarize(run: Run) -> RunSummary:
    """Reads a run's folder. Raises nothing: a folder that cannot be read is a failed run whose message says why."""
    try:
        return _read(run)
    except (Gpt2TuiError, OSError, ValueError, TypeError, AttributeError) as error:
        # The folder has vanished meanwhile, or has contents of another kind.
        return RunSummary(run.name, str(run.folder), "failed", message=f"this folder cannot be read as a run: {error}")


def _read(run: Run) -> RunSummary:
    started: events.RunStarted | None = None
    last_step: events.Step | None = None
    evaluations: list[events.Evaluated] = []
    ending: events.RunFinished | events.RunFailed | None = None
    paused = False
    best_val_loss: float | None = None
    first_time: float | None = None
    last_time: float | None = None
    seconds: float | None = None
    for event in _events(run.events_file):
        if isinstance(event, events.RunStarted):
            seconds, last_time = seconds or 0.0, event.time
            started, ending, best_val_loss, paused = event, None, event.best_val_loss, False
            evaluations = [e for e in evaluations if e.step <= event.step]
        elif isinstance(event, events.Step):
            last_step = event
        elif isinstance(event, events.NumIterationsChanged) and started is not None:
            started = replace(started, num_iterations=event.num_iterations)
        elif isinstance(event, events.Evaluated):
            evaluations.append(event)
            best_val_loss = event.best_val_loss
        elif isinstance(event, events.Paused | events.Resumed):
            paused = isinstance(event, events.Paused)
        elif isinstance(event, events.RunFinished | events.RunFailed):
            ending = event
            best_val_loss = event.best_val_loss if isinstance(event, events.RunFinished) else best_val_loss
        first_time = first_time or event.time
        if seconds is not None and last_time is not None:  # the time between two sessions does not count
            seconds += max(0.0, event.time - last_time)
        last_time = max(event.time, last_time or 0.0)
    message = ending.message if isinstance(ending, events.RunFailed) else None
    reason = None
    if isinstance(ending, events.RunFinished):
        reason, message, seconds = ending.reason, ending.rule or None, ending.seconds
    state: RunState
    if is_locked(run):
        # After an end, or before the first start, its process prepares to train it.
        if started is None or ending is not None:
            state, message, reason = "preparing", None, None
        else:
            step = last_step.step if last_step else 0
            state = state_at(step, started.num_iterations, evaluations[-1] if evaluations else None, paused)
    elif ending is not None:
        state = state_at_end(ending)
    elif started is None:
        state = "empty"
    elif is_of_this_machine(run.info()):
        state = "crashed"
    else:
        state, message = "unknown", "its process is one of another machine, so whether it still trains is not known"
    return RunSummary(
        name=run.name,
        folder=str(run.folder),
        preset=started.preset if started else run.info().get("preset"),
        state=state,
        started=first_time,
        last_event=last_time,
        seconds=seconds,
        step=last_step.step if last_step else 0,
        num_iterations=started.num_iterations if started else None,
        parameters=started.parameters if started else None,
        tokens_seen=last_step.tokens_seen if last_step else None,
        train_loss=_known(last_step.train_loss) if last_step else None,
        val_loss=_known(evaluations[-1].val_loss) if evaluations else None,
        best_val_loss=best_val_loss,
        bits_per_byte=_known(evaluations[-1].bits_per_byte) if evaluations else None,
        xz_bits_per_byte=started.xz_bits_per_byte if started else None,
        xz_after_training_bits_per_byte=started.xz_after_training_bits_per_byte if started else None,
        metrics={name: _known(value) for name, value in evaluations[-1].metrics.items()} if evaluations else {},
        checkpoints=len(checkpoint.saved_in(run.checkpoints)),
        bytes=_bytes_in(run.folder),
        reason=reason,
        message=message,
    )


_LAST_COUNTS = {
    kind.name.encode()
    for kind in (events.Step, events.Evaluated, events.Sampled, events.CheckpointSaved, events.Warned)
}
_KIND = re.compile(rb'"event": "(\w+)"')


def _events(path: Path) -> Iterator[events.Event]:
    """The events in the file, but of steps, evaluations and the like only those that count: to parse all takes long.

    These are the last ones before each other event, and of the evaluations before a start the last that it has not
    taken back.
    """
    waiting: dict[bytes, bytes] = {}
    evaluations: list[bytes] = []
    with contextlib.suppress(FileNotFoundError):
        for line in lines_but_steps(path):
            kind = found[1] if (found := _KIND.search(line)) else b""
            if kind in _LAST_COUNTS and line.rstrip().endswith(b"}"):
                waiting.pop(kind, None)
                waiting[kind] = line
                if kind == b"evaluated":
                    evaluations.append(line)
                continue
            event = parse_line(line)
            if isinstance(event, events.RunStarted):
                while evaluations:
                    known = parse_line(evaluations[-1])
                    if known and getattr(known, "step", 0) <= event.step:
                        yield known
                        break
                    evaluations.pop()
            yield from filter(None, map(parse_line, waiting.values()))
            waiting.clear()
            if event:
                yield event
        yield from filter(None, map(parse_line, waiting.values()))


def _known(value: float) -> float | None:
    return value if isfinite(value) else None


def _bytes_in(folder: Path) -> int:
    """The total size of all files below a folder; files that vanish meanwhile are not counted."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_size  # noqa: PTH118 a Path for each costs twice the time
    return total
