"""The plots of the Train screen as figures: pure functions of a run's curves and of what is asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gpt2tui.system.numbers import byte_size, compact
from gpt2tui.tui.history import RunHistory, Series
from gpt2tui.tui.plot_drawing import Figure, Line, VerticalMark
from gpt2tui.tui.plot_scale import tick_label
from gpt2tui.tui.run_view import RunView

PLOTS = ("loss", "lr", "grad", "tok/s", "memory")
DEFINITIONS = {
    "loss": "Training loss of each step (faint) and smoothed, and the held-out loss, in nats a token.",
    "lr": "The learning rate of AdamW at each step.",
    "grad": "The norm of the gradient before clipping, at each step.",
    "tok/s": "Tokens trained on a second, by the time of each step alone.",
    "memory": "What torch has allocated on the GPU and what it holds reserved; without a GPU, the process's memory.",
}


_NAMES = {"lr": "learning rate", "grad": "gradient norm", "tok/s": "tokens/s"}
_CURVES: dict[str, tuple[Callable[[RunHistory], Series], Callable[[float], str]]] = {
    "lr": (lambda history: history.learning_rate, tick_label),
    "grad": (lambda history: history.grad_norm, tick_label),
    "tok/s": (lambda history: history.tokens_per_second, compact),
}


@dataclass(frozen=True)
class Comparison:
    """Another run's curves beside these."""

    name: str
    history: RunHistory


@dataclass(frozen=True)
class LossOptions:
    """How the loss is drawn. `smoothing` is the weight of what came before, one of `SMOOTHINGS`."""

    log_y: bool = True
    smoothing: float = 0.9


def figure(plot: str, view: RunView, options: LossOptions, comparison: Comparison | None = None) -> Figure:
    """The figure of one of `PLOTS`."""
    marks = tuple(VerticalMark(mark.step, mark.text if plot == "loss" else "") for mark in view.history.marks)
    if comparison and view.run and comparison.name == view.run.name:
        comparison = None
    if plot == "loss":
        lines = _loss_lines(view.history, options, comparison)
        return Figure(lines, marks, log_y=options.log_y, empty=view.waiting)
    if plot == "memory":
        lines = _memory_lines(view.history)
        return Figure(lines, marks, from_zero=True, y_label=_memory_label, empty=view.waiting)
    curve, label = _CURVES[plot]
    lines = (Line(_NAMES[plot], curve(view.history).points(), "primary"),)
    if comparison:
        lines = (Line(comparison.name, curve(comparison.history).points(), "foreground", "dotted"), *lines)
    return Figure(lines, marks, from_zero=True, y_label=label, empty=view.waiting)


def title(plot: str, options: LossOptions) -> str:
    """What the plot of the loss says of itself."""
    if plot != "loss":
        return plot
    axis = "log y" if options.log_y else "linear y"
    return f"loss · {axis} · smoothing {options.smoothing:g}"


def _loss_lines(history: RunHistory, options: LossOptions, comparison: Comparison | None) -> tuple[Line, ...]:
    lines = []
    if comparison:
        other = comparison.history.train_loss[options.smoothing or 0.9].points()
        lines.append(Line(comparison.name, other, "foreground", "dotted"))
    raw = Line("train", history.train_loss[0.0].points(), "primary", "faint" if options.smoothing else "solid")
    lines += [raw, Line("val", history.val_loss.points(), "success", "marked")]
    if options.smoothing:
        lines.append(Line("smoothed", history.train_loss[options.smoothing].points(), "primary"))
    return tuple(lines)


def _memory_lines(history: RunHistory) -> tuple[Line, ...]:
    if len(history.device_memory):
        return (
            Line("reserved", history.device_memory_reserved.points(), "accent"),
            Line("allocated", history.device_memory.points(), "primary"),
        )
    return (Line("process", history.host_memory.points(), "primary"),)


def _memory_label(value: float) -> str:
    return byte_size(value).replace(" ", "")


def neighbour(plots: Sequence[str], plot: str, by: int) -> str:
    """The plot `by` places after `plot`, around the end."""
    return plots[(plots.index(plot) + by) % len(plots)] if plot in plots else plots[0]
