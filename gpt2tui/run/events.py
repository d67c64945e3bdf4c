"""The events of a training run: frozen dataclasses, one per kind, and their JSON form.

Training is a generator of events; the console, `events.jsonl`, W&B and the screen only read them. An unknown number
is None (null in JSON), never 0.
"""

import dataclasses
import json
import math
import time
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_origin

VERSION = 1
METRICS = (
    "accuracy", "bleu", "chrf", "rouge_1", "rouge_2", "rouge_l", "distinct_1", "distinct_2", "repetition",
)  # fmt: skip
"""What an evaluation may measure beside the loss."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened; `time` is seconds since the Unix epoch."""

    name: ClassVar[str]
    time: float = field(default_factory=time.time)

    def as_dict(self) -> dict[str, Any]:
        """The JSON form: `v`, `event`, `time`, then the fields; numbers that are not finite become null."""
        fields = {f.name: _finite(getattr(self, f.name)) for f in dataclasses.fields(self) if f.name != "time"}
        return {"v": VERSION, "event": self.name, "time": round(self.time, 3), **fields}

    def as_json(self) -> str:
        """One line of JSON without its newline; other than ASCII is escaped, so that text cannot control a terminal."""
        return json.dumps(self.as_dict(), allow_nan=False)


@dataclass(frozen=True, kw_only=True)
class RunStarted(Event):
    """Training begins, or is resumed; `run` is the run folder's name."""

    name: ClassVar[str] = "run_started"
    run: str
    preset: str
    parameters: int
    tokens_per_step: int
    device: str
    precision: str
    precision_reason: str | None = None
    compile_reason: str | None = None  # why the network is compiled, or is not
    step: int = 0  # updates before this session: 0 for a new run
    num_iterations: int
    xz_bits_per_byte: float | None = None  # of the validation text under `xz -9`, to compare bits_per_byte with
    xz_after_training_bits_per_byte: float | None = None  # the same when xz has read the training text
    vocab_size: int | None = None
    best_val_loss: float | None = None  # of a resumed run: the lowest so far over the fixed validation sample
    learning_rate_factor: float = 1.0  # multiplies the schedule
    init_from: str | None = None  # the weights that the run started from
    trained_parameters: int | None = None  # fewer than `parameters` where adapters are trained
    time_budget_left: float | None = None  # seconds; num_iterations is an upper bound until the first estimate


@dataclass(frozen=True, kw_only=True)
class Step(Event):
    """One update of the weights. `train_loss` is in nats per token, the mean over the whole step."""

    name: ClassVar[str] = "step"
    step: int
    train_loss: float
    learning_rate: float
    grad_norm: float
    tokens_seen: int
    tokens_per_second: float | None
    step_seconds: float
    device_memory_bytes: int | None
    host_memory_bytes: int | None
    mfu: float | None
    device_memory_reserved_bytes: int | None = None  # by torch, unused blocks included


@dataclass(frozen=True, kw_only=True)
class Evaluated(Event):
    """The validation loss in nats per token over a fixed sample, or over all validation text if `whole`.

    `best`: the loss is the lowest so far over the sample. `best_val_loss` is that lowest, this one included; None while
    none was finite. A loss over the whole text is never compared with those over the sample.
    """

    name: ClassVar[str] = "evaluated"
    step: int
    val_loss: float
    perplexity: float
    bits_per_byte: float
    whole: bool = False
    best: bool = False
    best_val_loss: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    """Those of METRICS that the preset's [evaluation] asks for; in the JSON form fields of the event."""

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, with each metric under its name."""
        record = super().as_dict()
        del record["metrics"]
        return {**record, **{name: _finite(value) for name, value in self.metrics.items()}}


@dataclass(frozen=True, kw_only=True)
class Sampled(Event):
    """A text that the model has generated after the prompt."""

    name: ClassVar[str] = "sampled"
    step: int
    prompt: str
    text: str


@dataclass(frozen=True, kw_only=True)
class CheckpointSaved(Event):
    """A checkpoint is durable on disk; `path` is relative to the run folder."""

    name: ClassVar[str] = "checkpoint_saved"
    step: int
    path: str
    seconds: float
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Warned(Event):
    """A fallback or an error that does not end the run."""

    name: ClassVar[str] = "warning"
    message: str


@dataclass(frozen=True, kw_only=True)
class Paused(Event):
    """Training waits after this step."""

    name: ClassVar[str] = "paused"
    step: int


@dataclass(frozen=True, kw_only=True)
class Resumed(Event):
    """Training continues after a pause."""

    name: ClassVar[str] = "resumed"
    step: int


@dataclass(frozen=True, kw_only=True)
class LearningRateChanged(Event):
    """From the next step on, the learning rate is `factor` times that of the preset's schedule."""

    name: ClassVar[str] = "learning_rate_changed"
    step: int
    factor: float


@dataclass(frozen=True, kw_only=True)
class SettingsChanged(Event):
    """The run is resumed with other settings than its checkpoint's.

    `changes`: a dict for each, with `key`, the values `before` and `after`, and `effect`, a sentence's part.
    """

    name: ClassVar[str] = "settings_changed"
    step: int
    changes: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class NumIterationsChanged(Event):
    """The run's last step has changed to fit the time budget.

    `fewest`: fewer steps would fit, but the schedule of the learning rate needs these.
    """

    name: ClassVar[str] = "num_iterations_changed"
    step: int
    num_iterations: int
    fewest: bool = False


@dataclass(frozen=True, kw_only=True)
class RunFinished(Event):
    """The run ended without an error.

    `reason` is "done" after all steps, "stopped" on request, or the setting that ended it: "target_loss", "patience".
    """

    name: ClassVar[str] = "run_finished"
    step: int
    best_val_loss: float | None
    seconds: float
    reason: str = "done"

    @property
    def rule(self) -> str:
        """What a stop rule has found, for the user; empty where none has ended the run."""
        return STOP_RULES.get(self.reason, "")


@dataclass(frozen=True, kw_only=True)
class RunFailed(Event):
    """The run ended on an error."""

    name: ClassVar[str] = "run_failed"
    message: str
    step: int


KINDS: dict[str, type[Event]] = {
    kind.name: kind
    for kind in (
        RunStarted, Step, Evaluated, Sampled, CheckpointSaved, Warned, Paused, Resumed, LearningRateChanged,
        SettingsChanged, NumIterationsChanged, RunFinished, RunFailed,
    )
}  # fmt: skip
_FIELDS = {kind: [(field.name, field.type) for field in dataclasses.fields(kind)] for kind in KINDS.values()}


StopRule = Literal["target_loss", "patience"]
STOP_RULES: dict[str, str] = {
    "target_loss": "target_loss is reached",
    "patience": "the val loss has not improved any more (patience)",
}


def change_line(change: dict[str, Any]) -> str:
    """`optimizer.lr: 0.01 -> 0.001, from step 41 on`, from the JSON form of a change, which may be from elsewhere."""
    before, after = ("left out" if change.get(k) is None else repr(change[k]) for k in ("before", "after"))
    return f"{change.get('key')}: {before} -> {after}, {change.get('effect')}"


def parse(line: str) -> Event | None:
    """The event of one line of `events.jsonl`.

    None when it is cut off, of another version, of an unknown kind, or has fields of another type.
    """
    try:
        record = json.loads(line)
        if not isinstance(record, dict) or record.get("v") != VERSION:
            return None
        kind = KINDS[record["event"]]
        if kind is Evaluated:
            record["metrics"] = {name: record[name] for name in METRICS if name in record}
        values = {name: _read(record[name], type_) for name, type_ in _FIELDS[kind] if name in record}
        return kind(**values)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _read(value: Any, kind: Any) -> Any:
    """A field's value converted to its type: null to NaN, 1 to 1.0. Raises TypeError."""
    if type(value) is kind:  # most are: three quarters of the time are saved
        return value
    if kind is float and value is None:
        return math.nan
    if isinstance(value, bool) and kind is not bool:
        raise TypeError
    if get_origin(kind) is list:  # of dicts
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise TypeError
        return value
    if get_origin(kind) is dict:  # of numbers
        return {name: _read(number, float) for name, number in value.items()}
    if isinstance(value, int) and isinstance(1.0, kind) and not isinstance(1, kind):
        return float(value)
    if not isinstance(value, kind):
        raise TypeError
    return value


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
