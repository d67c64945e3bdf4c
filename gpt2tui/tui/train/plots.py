"""The three plots of the Train screen: which curves each shows, how, and its title."""

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

PLOTS = ("loss", "lr", "grad", "tok/s", "memory")
LOWER_PLOTS = ("lr", "grad", "tok/s")
DEFINITIONS = {
    "loss": "Training loss of each step (faint) and smoothed, and validation loss, in nats per token.",
    "lr": "The learning rate of AdamW at each step.",
    "grad": "The gradient norm of each step, before clipping.",
    "tok/s": "Tokens trained per second, from the time of each step alone.",
    "memory": "GPU memory that torch has allocated and reserved; without a GPU, the memory of the process.",
}

_NAMES = {"lr": "learning rate", "grad": "gradient norm", "tok/s": "tokens/s"}
_CURVES: dict[str, tuple[Callable[[RunHistory], Series], Callable[[float], str]]] = {
    "lr": (lambda history: history.learning_rate, tick_label),
    "grad": (lambda history: history.grad_norm, tick_label),
    "tok/s": (lambda history: history.tokens_per_second, compact),
}


class TrainPlots:
    """With room for all, the loss over one of LOWER_PLOTS, beside the memory; otherwise one of PLOTS.

    `plot_of` returns the widget of a place: "main", "lower" or "memory".
    """

    def __init__(self, plot_of: Callable[[str], LinePlot]) -> None:
        self.options = LossOptions()
        self.compared: ComparedRun | None = None
        self.main = "loss"
        """What the main plot shows where there is room for only one."""
        self.lower = "lr"
        self.room: Literal["all", "one", "none"] = "none"
        self._plot_of = plot_of
        self._turn = 0
        self._versions: dict[str, int] = {}  # of the run, as each place shows it

    @property
    def places(self) -> tuple[str, ...]:
        """The places that have a plot."""
        return {"all": ("main", "lower", "memory"), "one": ("main",), "none": ()}[self.room]

    def draw(self, view: DisplayedRun, note: str) -> None:
        """Draws all; `note` stands beside the names of the plots, in place of their keys."""
        for place in self.places:
            self._draw(place, view, note)

    def outdated(self, view: DisplayedRun) -> set[str]:
        """The places that do not show all of the run yet."""
        return {place for place in self.places if self._versions.get(place) != view.version}

    def draw_next(self, view: DisplayedRun, note: str) -> None:
        """Draws one outdated plot, each in its turn, the loss every second time."""
        turns = ("main", "lower", "main", "memory") if self.room == "all" else self.places
        outdated = self.outdated(view)
        for turn in range(self._turn + 1, self._turn + 1 + len(turns)):
            place = turns[turn % len(turns)]
            if place in outdated:
                self._turn = turn % len(turns)
                self._draw(place, view, note)
                return

    def toggle_log(self) -> None:
        """Switches the loss axis between logarithmic and linear."""
        self.options = LossOptions(not self.options.log_y, self.options.smoothing)

    def next_smoothing(self) -> None:
        """The next stronger smoothing; after the strongest, none."""
        place = SMOOTHINGS.index(self.options.smoothing) + 1
        self.options = LossOptions(self.options.log_y, SMOOTHINGS[place % len(SMOOTHINGS)])

    def next_plot(self, by: int) -> None:
        """The plot `by` places after the one that is shown."""
        if self.room == "all":
            self.lower = neighbour(LOWER_PLOTS, self.lower, by)
        else:
            self.main = neighbour(PLOTS, self.main, by)

    def choose(self, plot: str) -> None:
        """Shows a plot by name, where it has a place."""
        if self.room != "all" and plot in PLOTS:
            self.main = plot
        elif plot in LOWER_PLOTS:
            self.lower = plot

    def _draw(self, place: str, view: DisplayedRun, note: str) -> None:
        plot = {"main": "loss" if self.room == "all" else self.main, "lower": self.lower, "memory": "memory"}[place]
        self._versions[place] = view.version
        widget = self._plot_of(place)
        widget.figure = figure(plot, view, self.options, self.compared)
        widget.set_title(self._title(place, plot, view, note), DEFINITIONS[plot])

    def _title(self, place: str, plot: str, view: DisplayedRun, note: str) -> Content:
        if place == "memory":
            return Content("GPU memory" if len(view.history.device_memory) else "process memory")
        if place == "main" and self.room == "all":
            return Content(loss_title(self.options))
        plots = PLOTS if place == "main" else LOWER_PLOTS
        tabs = Content(" │ ").join(_tab(name, name == plot) for name in plots)
        hint = note if place == "main" and note else "[ ] cycle"
        return Content.assemble(tabs, (f" · {hint}", "$foreground-disabled"))


def _tab(plot: str, shown: bool) -> Content:
    if shown:
        return Content.styled(plot, "bold $text-primary")
    click = Style.from_meta({"@click": f"screen.choose_plot('{plot}')"})
    return Content.styled(plot, "$foreground-muted").stylize(click)


# ---- the figures, as pure functions of a run's curves and of the options


@dataclass(frozen=True)
class ComparedRun:
    """Another run, whose curves are drawn beside those of the run on show."""

    name: str
    history: RunHistory


@dataclass(frozen=True)
class LossOptions:
    """How the loss is drawn. `smoothing` is the weight of the earlier steps, one of `SMOOTHINGS`."""

    log_y: bool = True
    smoothing: float = 0.9


def figure(plot: str, view: DisplayedRun, options: LossOptions, compared: ComparedRun | None = None) -> Figure:
    """The figure of one of `PLOTS`."""
    marks = tuple(VerticalMark(mark.step, mark.text if plot == "loss" else "") for mark in view.history.marks)
    if compared and view.run and compared.name == view.run.name:
        compared = None
    if plot == "loss":
        lines = _loss_lines(view.history, options, compared)
        return Figure(lines, marks, log_y=options.log_y, empty=view.waiting)
    if plot == "memory":
        lines = _memory_lines(view.history)
        return Figure(lines, marks, from_zero=True, y_label=_memory_label, empty=view.waiting)
    curve, label = _CURVES[plot]
    lines = (Line(_NAMES[plot], curve(view.history).points(), "primary"),)
    if compared:
        lines = (Line(compared.name, curve(compared.history).points(), "foreground", "dotted"), *lines)
    return Figure(lines, marks, from_zero=True, y_label=label, empty=view.waiting)


def loss_title(options: LossOptions) -> str:
    """The title of the loss plot."""
    axis = "log y" if options.log_y else "linear y"
    return f"loss · {axis} · smoothing {options.smoothing:g}"


def _loss_lines(history: RunHistory, options: LossOptions, compared: ComparedRun | None) -> tuple[Line, ...]:
    lines = []
    if compared:
        other = compared.history.train_loss[options.smoothing or 0.9].points()
        lines.append(Line(compared.name, other, "foreground", "dotted"))
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
