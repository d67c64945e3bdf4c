"""The figures of runs, the same on the Train and the Runs screen: curves, reference lines, marks, the scale of y."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from gpt2tui.run.events import METRICS
from gpt2tui.tui.history import RunHistory, Series, converted
from gpt2tui.tui.widgets.plot_axes import byte_label, tick_label
from gpt2tui.tui.widgets.plot_drawing import Figure, Line, Points, Reference, Style, VerticalMark, XUnit

X_UNITS: tuple[XUnit, ...] = ("step", "tokens", "time")
SMOOTHINGS = (0.0, 1.0, 2.0, 5.0)
"""The standard deviations, in columns, of the Gaussian that smooths a curve."""
SMOOTHING = 2.0
_LOG_FROM = 3.0  # the ratio of the highest to the lowest loss from which a logarithmic axis is worth it
_HIGHEST_SHARE = 0.02  # of the values, the start of the run, does not decide on that


@dataclass(frozen=True)
class Options:
    """How curves are drawn. `log_y`: None for a logarithmic axis where it is worth it; `smoothing`: of SMOOTHINGS."""

    log_y: bool | None = None
    smoothing: float = SMOOTHING
    x_unit: XUnit = "step"

    def next_smoothing(self) -> "Options":
        """The next stronger smoothing; after the strongest, none."""
        return replace(self, smoothing=SMOOTHINGS[(SMOOTHINGS.index(self.smoothing) + 1) % len(SMOOTHINGS)])

    def next_x_unit(self) -> "Options":
        """Steps, tokens, time."""
        return replace(self, x_unit=X_UNITS[(X_UNITS.index(self.x_unit) + 1) % len(X_UNITS)])


@dataclass(frozen=True)
class Curve:
    """A number over the steps.

    `noisy`: it is smoothed, and its outliers may be cut off. `marked`: each point gets a sign. `log`: it may have a
    logarithmic axis.
    """

    name: str
    series: Callable[[RunHistory], Series]
    y_label: Callable[[float], str] = tick_label
    noisy: bool = False
    marked: bool = False
    log: bool = False
    from_zero: bool = False


TRAIN_LOSS = Curve("train loss", lambda history: history.train_loss, noisy=True, log=True)
VAL_LOSS = Curve("val loss", lambda history: history.val_loss, marked=True, log=True)
BITS_PER_BYTE = Curve("bits/byte", lambda history: history.bits_per_byte, marked=True, log=True)
LEARNING_RATE = Curve("learning rate", lambda history: history.learning_rate, from_zero=True)
GRAD_NORM = Curve("gradient norm", lambda history: history.grad_norm, noisy=True, log=True)
SPEED = Curve("tokens/s", lambda history: history.tokens_per_second, noisy=True, from_zero=True)
CURVES = (TRAIN_LOSS, VAL_LOSS, BITS_PER_BYTE, LEARNING_RATE, GRAD_NORM, SPEED)


def metric_curve(name: str) -> Curve:
    """The curve of a metric of the evaluations."""
    return Curve(name, lambda history: history.metrics.get(name, Series()), marked=True)


def measured_in(histories: Iterable[RunHistory]) -> tuple[str, ...]:
    """The metrics that any of the runs has measured, in the order of METRICS."""
    found = {name for history in histories for name, series in history.metrics.items() if len(series)}
    return tuple(name for name in METRICS if name in found)


@dataclass(frozen=True)
class NamedRun:
    """A run in a figure, and its colour. `style` is that of its curves where they are not marked."""

    name: str
    history: RunHistory
    color: str = "primary"
    style: Style = "solid"


def loss_figure(
    run: NamedRun, compared: NamedRun | None, vocab_size: int | None, options: Options, empty: str
) -> Figure:
    """Training and validation loss of a run, and the smoothed training loss of another one."""
    lines = list(_curve_lines(TRAIN_LOSS, replace(run, name="train"), options, "smoothed"))
    lines.append(Line("val", _points(run.history.val_loss.points(), run.history, options), "success", "marked"))
    if compared:
        lines = [*_curve_lines(TRAIN_LOSS, compared, options)[-1:], *lines]
    return Figure(
        tuple(lines),
        run_marks(run.history, options),
        loss_references(run.history, vocab_size),
        log_y=_is_log(lines, options),
        clip=True,
        x_unit=options.x_unit,
        empty=empty,
    )


def curve_figure(curve: Curve, runs: Sequence[NamedRun], options: Options, empty: str) -> Figure:
    """One number of one run, with its raw values behind the smoothed ones, or of several runs over each other."""
    lines: list[Line] = []
    for run in runs:
        drawn = _curve_lines(curve, run, options)
        lines += drawn if len(runs) == 1 else drawn[-1:]
    marks: tuple[VerticalMark, ...] = ()
    if len(runs) == 1:
        marks = run_marks(runs[0].history, options)
    return Figure(
        tuple(lines),
        marks,
        _common([_curve_references(curve, run.history) for run in runs]),
        log_y=curve.log and _is_log(lines, options),
        from_zero=curve.from_zero,
        clip=curve.noisy,
        y_label=curve.y_label,
        x_unit=options.x_unit,
        empty=empty,
    )


def memory_figure(history: RunHistory, options: Options, empty: str) -> Figure:
    """The memory of the device, in bytes."""
    lines = tuple(
        Line(name, _points(series.points(), history, options), color)
        for name, series, color in (
            ("reserved", history.device_memory_reserved, "accent"),
            ("allocated", history.device_memory, "primary"),
        )
    )
    marks = run_marks(history, options)
    return Figure(lines, marks, from_zero=True, y_label=byte_label, x_unit=options.x_unit, empty=empty)


def loss_references(history: RunHistory, vocab_size: int | None) -> tuple[Reference, ...]:
    """The loss of uniform probabilities, ln V, and that of `xz -9` on the validation text, in nats per token.

    xz's bits per byte become nats per token by the bytes of a token, which follow from an evaluation.
    """
    found = []
    if vocab_size := vocab_size or (history.started.vocab_size if history.started else None):
        found.append(Reference(math.log(vocab_size), f"ln V = {math.log(vocab_size):.2f}"))
    xz, bytes_per_token = history.progress.xz_bits_per_byte, history.bytes_per_token
    if xz and bytes_per_token:
        found.append(Reference(xz * math.log(2) * bytes_per_token, f"xz {xz:.2f} bits/B"))
    return tuple(found)


def run_marks(history: RunHistory, options: Options) -> tuple[VerticalMark, ...]:
    """Where the run was resumed or its learning rate changed; what happened at one step shares a mark."""
    texts: dict[int, list[str]] = {}
    for mark in history.marks:
        texts.setdefault(mark.step, []).append(mark.text)
    places = _points([(float(step), 0.0) for step in sorted(texts)], history, options)
    return tuple(VerticalMark(x, ", ".join(texts[step])) for (x, _), step in zip(places, sorted(texts), strict=False))


def _curve_references(curve: Curve, history: RunHistory) -> tuple[Reference, ...]:
    if curve in (TRAIN_LOSS, VAL_LOSS):
        return loss_references(history, None)
    xz = history.progress.xz_bits_per_byte
    return (Reference(xz, f"xz {xz:.2f}"),) if curve is BITS_PER_BYTE and xz else ()


def _common(references: Sequence[tuple[Reference, ...]]) -> tuple[Reference, ...]:
    """The reference lines that all runs have with the same text."""
    if not references:
        return ()
    others = [{reference.text for reference in run} for run in references[1:]]
    return tuple(reference for reference in references[0] if all(reference.text in texts for texts in others))


def _curve_lines(curve: Curve, run: NamedRun, options: Options, smoothed_name: str = "") -> list[Line]:
    """The raw values of a noisy curve, faint, and the smoothed ones; otherwise one line."""
    series = curve.series(run.history)
    raw = _points(series.points(), run.history, options)
    style: Style = "marked" if curve.marked else run.style
    if not curve.noisy or not options.smoothing:
        return [Line(run.name, raw, run.color, style)]
    means = _points(series.means(), run.history, options)
    smoothed = Line(smoothed_name or run.name, means, run.color, style, options.smoothing)
    return [Line("raw" if not smoothed_name else run.name, raw, run.color, "faint"), smoothed]


def _points(points: Sequence[tuple[float, float]], history: RunHistory, options: Options) -> Points:
    if options.x_unit == "step":
        return points
    series = history.tokens_seen if options.x_unit == "tokens" else history.seconds
    return converted(points, series.points())


def _is_log(lines: Sequence[Line], options: Options) -> bool:
    if options.log_y is not None:
        return options.log_y
    values = sorted(y for line in lines if line.style != "faint" for _, y in line.points if y > 0)
    return bool(values) and values[-1 - int(_HIGHEST_SHARE * len(values))] >= _LOG_FROM * values[0]
