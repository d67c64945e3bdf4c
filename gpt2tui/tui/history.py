"""The curves, samples and marks of a run, collected from its events in bounded memory, without screen or files.

history = RunHistory()
for event in read_events(run.events_file):
    history.add(event)
"""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from gpt2tui.run.events import (
    CheckpointSaved,
    Evaluated,
    Event,
    LearningRateChanged,
    RunFailed,
    RunFinished,
    RunStarted,
    Sampled,
    SettingsChanged,
    Step,
)
from gpt2tui.tracking.run_progress import RunProgress

if TYPE_CHECKING:
    import numpy as np

CAPACITY = 1024  # more than twice the columns of a terminal
_SAMPLES = 500
_SAMPLE_CHARACTERS = 10_000
_MARKS = 200
_STEPS_FOR_CLIPPING = 1000


@dataclass(slots=True)
class _Bucket:
    """The lowest and the highest of neighbouring points, each with its x, and the sums for their mean."""

    key: int
    low_x: int
    low_y: float
    high_x: int
    high_y: float
    count: int
    x_sum: int
    y_sum: float

    def include(self, other: "_Bucket") -> None:
        """Adds later points."""
        if other.low_y < self.low_y:
            self.low_x, self.low_y = other.low_x, other.low_y
        if other.high_y > self.high_y:
            self.high_x, self.high_y = other.high_x, other.high_y
        self.count += other.count
        self.x_sum += other.x_sum
        self.y_sum += other.y_sum

    def points(self) -> list[tuple[int, float]]:
        """Both in the order of x, or one where they are the same point."""
        low, high = (self.low_x, self.low_y), (self.high_x, self.high_y)
        if low == high:
            return [low]
        return [low, high] if low < high else [high, low]


class Series:
    """Points (x, y) with rising x. It keeps every peak and dip, and the last point, whatever its length.

    Points with the same x // stride share a bucket. When there are more than `capacity` buckets the stride
    doubles, so at most 2 * capacity + 1 points are kept.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._stride = 1
        self._buckets: list[_Bucket] = []
        self.last: tuple[int, float] | None = None
        """The newest point."""

    def add(self, x: int, y: float) -> None:
        """Adds a point; one that is not finite is dropped."""
        if not math.isfinite(y):
            return
        self.last = (x, y)
        self._append(_Bucket(x // self._stride, x, y, x, y, 1, x, y))
        if len(self._buckets) > self._capacity:
            self._double_stride()

    def _double_stride(self) -> None:
        self._stride *= 2
        buckets, self._buckets = self._buckets, []
        for bucket in buckets:
            bucket.key = bucket.low_x // self._stride
            self._append(bucket)

    def add_all(self, xs: "np.ndarray[Any, Any]", ys: "np.ndarray[Any, Any]") -> None:
        """Adds many points, with the same result as one after the other, but for the rounding of the means."""
        import numpy as np

        finite = np.isfinite(ys)
        xs, ys = xs[finite], ys[finite]
        if not len(xs):
            return
        self.last = (int(xs[-1]), float(ys[-1]))
        while True:
            keys = xs // self._stride
            starts = [0, *(np.flatnonzero(np.diff(keys)) + 1).tolist()]
            joined = bool(self._buckets) and self._buckets[-1].key == keys[0]
            if len(self._buckets) + len(starts) - joined <= self._capacity:
                break
            self._double_stride()
        for start, end in zip(starts, [*starts[1:], len(xs)], strict=True):
            y = ys[start:end]
            low, high = start + int(y.argmin()), start + int(y.argmax())
            self._append(
                _Bucket(
                    int(keys[start]), int(xs[low]), float(ys[low]), int(xs[high]), float(ys[high]), end - start,
                    int(xs[start:end].sum()), float(y.sum()),
                )
            )  # fmt: skip

    def truncate(self, x: int) -> None:
        """Removes every point after x. The mean of the bucket that is cut is that of the points it keeps."""
        if self.last is None or self.last[0] <= x:
            return
        cut = [bucket for bucket in self._buckets if bucket.key >= x // self._stride]
        del self._buckets[len(self._buckets) - len(cut) :]
        self.last = None
        for point in (point for bucket in cut for point in bucket.points() if point[0] <= x):
            self.add(*point)
        if self.last is None and self._buckets:
            self.last = self._buckets[-1].points()[-1]

    def points(self) -> list[tuple[int, float]]:
        """The points that are kept, in the order of x."""
        points = [point for bucket in self._buckets for point in bucket.points()]
        if self.last is not None and (not points or points[-1][0] < self.last[0]):
            points.append(self.last)
        return points

    def means(self) -> list[tuple[float, float]]:
        """The mean point of each bucket, over all of its points."""
        return [(bucket.x_sum / bucket.count, bucket.y_sum / bucket.count) for bucket in self._buckets]

    def __len__(self) -> int:
        return len(self._buckets)

    def _append(self, bucket: _Bucket) -> None:
        if self._buckets and self._buckets[-1].key == bucket.key:
            self._buckets[-1].include(bucket)
        else:
            self._buckets.append(bucket)


def converted(points: Iterable[tuple[float, float]], scale: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points with each x, a step, replaced by the value of `scale` there.

    `scale` has (step, value) with rising steps, and is interpolated linearly; beyond its ends the nearest slope
    continues. Without two of its points there is nothing to convert by, and the result is empty.
    """
    if len(scale) < 2:
        return []
    result, index = [], 0
    for x, y in points:
        while index < len(scale) - 2 and scale[index + 1][0] < x:
            index += 1
        (x0, v0), (x1, v1) = scale[index], scale[index + 1]
        result.append((v0 + (x - x0) * (v1 - v0) / (x1 - x0), y))
    return result


@dataclass(frozen=True)
class Mark:
    """Something that happened at a step, drawn as a vertical line in the plots."""

    step: int
    kind: Literal["resumed", "learning rate"]
    text: str


class RunHistory:
    """The curves of one run. Steps that a resumed run repeats replace the earlier ones.

    The x of every curve is the step. `seconds` counts from the start of each of its sessions, evaluations and pauses
    included, the time between two sessions not. `grad_clip` is the preset's limit, 0 or None without one.
    """

    def __init__(self, grad_clip: float | None = None) -> None:
        self.grad_clip = grad_clip
        self.clear()

    def clear(self) -> None:
        """Forgets the run."""
        self.train_loss = Series()
        self.val_loss = Series()
        self.bits_per_byte = Series()
        self.metrics: dict[str, Series] = {}
        """Of the evaluations, by the names that they have in the events."""
        self.learning_rate = Series()
        self.grad_norm = Series()
        self.tokens_per_second = Series()
        self.device_memory = Series()
        self.device_memory_reserved = Series()
        self.host_memory = Series()
        self.tokens_seen = Series()
        self.seconds = Series()
        self.samples: deque[Sampled] = deque(maxlen=_SAMPLES)
        self.marks: deque[Mark] = deque(maxlen=_MARKS)
        self.progress = RunProgress()
        self.started: RunStarted | None = None
        self.step: Step | None = None
        self.evaluation: Evaluated | None = None
        """The last one."""
        self.checkpoint: CheckpointSaved | None = None
        self.ending: RunFinished | RunFailed | None = None
        self.peak_memory_bytes: int | None = None
        self.learning_rate_factor = 1.0
        self.logged = 0
        """The number of steps and evaluations: the rows sent to W&B."""
        self._session = (0.0, 0.0)  # when it began, and the seconds of those before
        self._clipped: deque[bool] = deque(maxlen=_STEPS_FOR_CLIPPING)
        self._bests: deque[Evaluated] = deque(maxlen=_MARKS)

    @classmethod
    def of(cls, events: Iterable[Event], grad_clip: float | None = None) -> "RunHistory":
        """The history of these events."""
        history = cls(grad_clip)
        for event in events:
            history.add(event)
        return history

    def add(self, event: Event) -> None:
        """Adds an event."""
        match event:
            case Step():
                self._step(event)
            case RunStarted():
                self._run_started(event)
            case Evaluated():
                self._evaluated(event)
            case Sampled():
                self.samples.append(
                    replace(event, prompt=event.prompt[:_SAMPLE_CHARACTERS], text=event.text[:_SAMPLE_CHARACTERS])
                )
            case CheckpointSaved():
                self.checkpoint = event
            case RunFinished() | RunFailed():
                self.ending = event
            case LearningRateChanged():
                self.learning_rate_factor = event.factor
                self.marks.append(Mark(event.step, "learning rate", f"lr × {event.factor:g}"))
            case SettingsChanged():
                for change in event.changes:
                    self._setting_changed(event.step, change)
        self.progress = self.progress.after(event)

    @property
    def curves(self) -> list[Series]:
        """All curves."""
        return [
            self.train_loss, self.val_loss, self.bits_per_byte, self.learning_rate, self.grad_norm,
            self.tokens_per_second, self.device_memory, self.device_memory_reserved, self.host_memory,
            self.tokens_seen, self.seconds, *self.metrics.values(),
        ]  # fmt: skip

    @property
    def best(self) -> Evaluated | None:
        """The evaluation with the lowest val_loss over the fixed validation tokens, as the events say."""
        return self._bests[-1] if self._bests else None

    @property
    def clipped_fraction(self) -> float | None:
        """The share of the last 1,000 steps whose gradient was scaled down; None without clipping or steps."""
        return sum(self._clipped) / len(self._clipped) if self.grad_clip and self._clipped else None

    @property
    def bytes_per_token(self) -> float | None:
        """The mean bytes of text per token, from loss and bits per byte of the same validation text."""
        from math import isfinite, log

        last = self.evaluation
        if last is None or not isfinite(last.val_loss) or not last.bits_per_byte > 0:
            return None
        return last.val_loss / log(2) / last.bits_per_byte

    def _setting_changed(self, step: int, change: dict[str, Any]) -> None:
        """Marks where the learning rate is another one."""
        key = str(change.get("key"))
        if key == "optimizer.lr" or key.startswith("schedule."):
            words = f"{key.rpartition('.')[2]} {change.get('before')} → {change.get('after')}"
            self.marks.append(Mark(step, "learning rate", words))

    def _run_started(self, event: RunStarted) -> None:
        if event.step == 0:
            self.clear()
        else:
            self._forget_after(event.step)
            # An evaluation at that step may be newer than the checkpoint, which then does not include it.
            known = float("inf") if event.best_val_loss is None else event.best_val_loss
            self._bests = deque((e for e in self._bests if e.val_loss >= known), _MARKS)
            self.marks.append(Mark(event.step, "resumed", "resumed"))
        self._session = (event.time, self.seconds.last[1] if self.seconds.last else 0.0)
        self.started, self.ending, self.learning_rate_factor = event, None, event.learning_rate_factor

    def _forget_after(self, step: int) -> None:
        """Forgets what came after `step`."""
        for curve in self.curves:
            curve.truncate(step)
        self.samples = deque((s for s in self.samples if s.step <= step), _SAMPLES)
        self.marks = deque((m for m in self.marks if m.step <= step), _MARKS)
        self._bests = deque((e for e in self._bests if e.step <= step), _MARKS)
        if self.evaluation is not None and self.evaluation.step > step:
            self.evaluation = None
        if self.checkpoint is not None and self.checkpoint.step > step:
            self.checkpoint = None
        self._clipped.clear()

    def _step(self, event: Step) -> None:
        step = event.step
        self.step = event
        self.logged += 1
        self.train_loss.add(step, event.train_loss)
        self.tokens_seen.add(step, event.tokens_seen)
        if not self._session[0]:  # a file without its beginning
            self._session = (event.time, 0.0)
        began, before = self._session
        self.seconds.add(step, before + max(0.0, event.time - began))
        self.learning_rate.add(step, event.learning_rate)
        self.grad_norm.add(step, event.grad_norm)
        if event.tokens_per_second is not None:
            self.tokens_per_second.add(step, event.tokens_per_second)
        memory = event.device_memory_bytes
        if memory is not None:
            self.device_memory.add(step, memory)
            reserved = event.device_memory_reserved_bytes
            if reserved is not None:
                self.device_memory_reserved.add(step, reserved)
                memory = max(memory, reserved)
        if event.host_memory_bytes is not None:
            self.host_memory.add(step, event.host_memory_bytes)
            memory = event.host_memory_bytes if memory is None else memory
        if memory is not None:
            self.peak_memory_bytes = max(memory, self.peak_memory_bytes or 0)
        if self.grad_clip:
            self._clipped.append(event.grad_norm > self.grad_clip)

    def add_steps(self, columns: "Mapping[str, np.ndarray[Any, Any]]") -> None:
        """Adds the curves of many steps at once, by field of Step; averages and shares need the last ones by `add`."""
        import numpy as np

        steps, times = columns["step"], columns["time"]
        if not len(steps):
            return
        self.logged += len(steps)
        if not self._session[0]:
            self._session = (float(times[0]), 0.0)
        began, before = self._session
        self.seconds.add_all(steps, before + np.maximum(0.0, times - began))
        device, host = columns["device_memory_bytes"], columns["host_memory_bytes"]
        reserved = columns["device_memory_reserved_bytes"]
        for series, values in (
            (self.train_loss, columns["train_loss"]),
            (self.tokens_seen, columns["tokens_seen"]),
            (self.learning_rate, columns["learning_rate"]),
            (self.grad_norm, columns["grad_norm"]),
            (self.tokens_per_second, columns["tokens_per_second"]),
            (self.device_memory, device),
            (self.device_memory_reserved, np.where(np.isnan(device), np.nan, reserved)),
            (self.host_memory, host),
        ):
            series.add_all(steps, values)
        memory = np.where(np.isnan(device), host, np.fmax(device, reserved))
        if not np.isnan(memory).all():
            self.peak_memory_bytes = max(int(np.nanmax(memory)), self.peak_memory_bytes or 0)

    def _evaluated(self, event: Evaluated) -> None:
        self.logged += 1
        if not event.whole:
            # The loss over all validation text is not comparable with that over eval_tokens tokens.
            self.val_loss.add(event.step, event.val_loss)
            self.bits_per_byte.add(event.step, event.bits_per_byte)
            for name, value in event.metrics.items():
                self.metrics.setdefault(name, Series()).add(event.step, value)
            if event.best:
                self._bests.append(event)
        self.evaluation = event
