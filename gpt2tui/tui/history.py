"""The curves, samples and marks of a run, collected from its events in bounded memory, without screen or files.

history = RunHistory()
for event in read_events(run.events_file):
    history.add(event)
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from gpt2tui.run.events import (
    CheckpointSaved,
    Evaluated,
    Event,
    LearningRateChanged,
    RunFailed,
    RunFinished,
    RunStarted,
    Sampled,
    Step,
)
from gpt2tui.tracking.run_progress import ExponentialAverage, RunProgress

CAPACITY = 1024  # more than twice the columns of a terminal
SMOOTHINGS = (0.0, 0.5, 0.9, 0.99)
_SAMPLES = 500
_SAMPLE_CHARACTERS = 10_000
_MARKS = 200
_STEPS_FOR_CLIPPING = 1000


@dataclass(slots=True)
class _Bucket:
    """The lowest and the highest of neighbouring points, each with its x."""

    key: int
    low_x: int
    low_y: float
    high_x: int
    high_y: float

    def include(self, x: int, y: float) -> None:
        if y < self.low_y:
            self.low_x, self.low_y = x, y
        if y > self.high_y:
            self.high_x, self.high_y = x, y

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
        key = x // self._stride
        if self._buckets and self._buckets[-1].key == key:
            self._buckets[-1].include(x, y)
            return
        self._buckets.append(_Bucket(key, x, y, x, y))
        if len(self._buckets) > self._capacity:
            self._stride *= 2
            self._rebuild(self.points())

    def truncate(self, x: int) -> None:
        """Removes every point after x."""
        if self.last is None or self.last[0] <= x:
            return
        kept = [point for point in self.points() if point[0] <= x]
        self.last = kept[-1] if kept else None
        self._rebuild(kept)

    def points(self) -> list[tuple[int, float]]:
        """The points that are kept, in the order of x."""
        points = [point for bucket in self._buckets for point in bucket.points()]
        if self.last is not None and (not points or points[-1][0] < self.last[0]):
            points.append(self.last)
        return points

    def __len__(self) -> int:
        return len(self._buckets)

    def _rebuild(self, points: list[tuple[int, float]]) -> None:
        self._buckets = []
        for x, y in points:
            key = x // self._stride
            if self._buckets and self._buckets[-1].key == key:
                self._buckets[-1].include(x, y)
            else:
                self._buckets.append(_Bucket(key, x, y, x, y))


@dataclass(frozen=True)
class Mark:
    """Something that happened at a step, drawn as a vertical line in the plots."""

    step: int
    kind: Literal["resumed", "learning rate"]
    text: str


class RunHistory:
    """The curves of one run. Steps that a resumed run repeats replace the earlier ones.

    `train_loss[beta]` is smoothed by beta over every single step, before points are dropped (0 is the raw loss).
    `grad_clip` is the preset's limit, 0 or None without one.
    """

    def __init__(self, grad_clip: float | None = None) -> None:
        self.grad_clip = grad_clip
        self.clear()

    def clear(self) -> None:
        """Forgets the run."""
        self.train_loss = {beta: Series() for beta in SMOOTHINGS}
        self.val_loss = Series()
        self.bits_per_byte = Series()
        self.learning_rate = Series()
        self.grad_norm = Series()
        self.tokens_per_second = Series()
        self.device_memory = Series()
        self.device_memory_reserved = Series()
        self.host_memory = Series()
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
        self._averages = {beta: ExponentialAverage(beta) for beta in SMOOTHINGS if beta}
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
        self.progress = self.progress.after(event)

    @property
    def curves(self) -> list[Series]:
        """All curves."""
        return [
            *self.train_loss.values(), self.val_loss, self.bits_per_byte, self.learning_rate, self.grad_norm,
            self.tokens_per_second, self.device_memory, self.device_memory_reserved, self.host_memory,
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

    def _run_started(self, event: RunStarted) -> None:
        if event.step == 0:
            self.clear()
        else:
            self._forget_after(event.step)
            # An evaluation at that step may be newer than the checkpoint, which then does not include it.
            known = float("inf") if event.best_val_loss is None else event.best_val_loss
            self._bests = deque((e for e in self._bests if e.val_loss >= known), _MARKS)
            self.marks.append(Mark(event.step, "resumed", "resumed"))
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
        # The exact sums are gone; the average continues from the last smoothed value.
        for beta in self._averages:
            last = self.train_loss[beta].last
            self._averages[beta] = ExponentialAverage(beta, last[1], 1.0) if last else ExponentialAverage(beta)

    def _step(self, event: Step) -> None:
        step = event.step
        self.step = event
        self.logged += 1
        self.train_loss[0.0].add(step, event.train_loss)
        for beta, average in self._averages.items():
            self._averages[beta] = average = average.add(event.train_loss)
            if average.value is not None:
                self.train_loss[beta].add(step, average.value)
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

    def _evaluated(self, event: Evaluated) -> None:
        self.logged += 1
        if not event.whole:
            # The loss over all validation text is not comparable with that over eval_tokens tokens.
            self.val_loss.add(event.step, event.val_loss)
            self.bits_per_byte.add(event.step, event.bits_per_byte)
            if event.best:
                self._bests.append(event)
        self.evaluation = event
