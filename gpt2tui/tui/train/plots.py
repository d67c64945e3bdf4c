"""The three plots of the Train screen: which curves each shows, how, and under which title."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from textual.content import Content
from textual.style import Style

from gpt2tui.system.numbers import byte_size, compact
from gpt2tui.tui.history import SMOOTHINGS, RunHistory, Series
from gpt2tui.tui.train.view import DisplayedRun
from gpt2tui.tui.widgets.line_plot import LinePlot
from gpt2tui.tui.widgets.plot_drawing import Figure, Line, VerticalMark, tick_label

LOWER_PLOTS = ("lr", "grad", "tok/s")


class TrainPlots:
    """With room for all, the loss stands over one of LOWER_PLOTS, beside the memory; else one of PLOTS is all there is.

    `plot_of` gives the widget of a place: "main", "lower" or "memory".
    """

    def __init__(self, plot_of: Callable[[str], LinePlot]) -> None:
        self.options = LossOptions()
        self.comparison: Comparison | None = None
        self.main = "loss"
        """What the only plot shows where there is room for one."""
        self.lower = "lr"
        self.room: Literal["all", "one", "none"] = "none"
        self._plot_of = plot_of
        self._turn = 0
        self._versions: dict[str, int] = {}  # of the run, as each place shows it

    @property
    def places(self) -> tuple[str, ...]:
        """Where there is a plot."""
        return {"all": ("main", "lower", "memory"), "one": ("main",), "none": ()}[self.room]

    def draw(self, view: DisplayedRun, note: str) -> None:
        """Draws all; `note` is said beside the names of the plots, in place of their keys."""
        for place in self.places:
            self._draw(place, view, note)

    def behind(self, view: DisplayedRun) -> set[str]:
        """The places that do not show all of the run yet."""
        return {place for place in self.places if self._versions.get(place) != view.version}

    def draw_next(self, view: DisplayedRun, note: str) -> None:
        """Draws one of those that are behind, each in its turn, the loss in every second."""
        turns = ("main", "lower", "main", "memory") if self.room == "all" else self.places
        behind = self.behind(view)
        for turn in range(self._turn + 1, self._turn + 1 + len(turns)):
            place = turns[turn % len(turns)]
            if place in behind:
                self._turn = turn % len(turns)
                self._draw(place, view, note)
                return

    def switch_log(self) -> None:
        """A logarithmic loss axis, or a linear one."""
        self.options = LossOptions(not self.options.log_y, self.options.smoothing)

    def smooth_more(self) -> None:
        """The next smoothing; after the strongest, none."""
        place = SMOOTHINGS.index(self.options.smoothing) + 1
        self.options = LossOptions(self.options.log_y, SMOOTHINGS[place % len(SMOOTHINGS)])

    def step(self, by: int) -> None:
        """Another of the plots, before or after the one that is shown."""
        if self.room == "all":
            self.lower = neighbour(LOWER_PLOTS, self.lower, by)
        else:
            self.main = neighbour(PLOTS, self.main, by)

    def choose(self, plot: str) -> None:
        """One of them by name."""
        if self.room != "all" and plot in PLOTS:
            self.main = plot
        elif plot in LOWER_PLOTS:
            self.lower = plot

    def _draw(self, place: str, view: DisplayedRun, note: str) -> None:
        plot = {"main": "loss" if self.room == "all" else self.main, "lower": self.lower, "memory": "memory"}[place]
        self._versions[place] = view.version
        widget = self._plot_of(place)
        widget.figure = figure(plot, view, self.options, self.comparison)
        widget.name_it(self._title(place, plot, view, note), DEFINITIONS[plot])

    def _title(self, place: str, plot: str, view: DisplayedRun, note: str) -> Content:
        if place == "memory":
            return Content("GPU memory" if len(view.history.device_memory) else "memory of the process")
        if place == "main" and self.room == "all":
            return Content(title(plot, self.options))
        plots = PLOTS if place == "main" else LOWER_PLOTS
        tabs = Content(" │ ").join(_tab(name, name == plot) for name in plots)
        hint = note if place == "main" and note else "[ ] cycle"
        return Content.assemble(tabs, (f" · {hint}", "$foreground-disabled"))


def _tab(plot: str, shown: bool) -> Content:
    if shown:
        return Content.styled(plot, "bold $text-primary")
    click = Style.from_meta({"@click": f"screen.choose_plot('{plot}')"})
    return Content.styled(plot, "$foreground-muted").stylize(click)


# ---- the plots of the Train screen as figures: pure functions of a run's curves and of what is asked for

PLOTS = ("loss", "lr", "grad", "tok/s", "memory")
DEFINITIONS = {
    "loss": "Training loss of each step (faint) and smoothed, and the held-out loss, in nats per token.",
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


def figure(plot: str, view: DisplayedRun, options: LossOptions, comparison: Comparison | None = None) -> Figure:
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
