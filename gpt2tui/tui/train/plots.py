"""The plots of the Train screen: which place shows which, and their titles."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from textual.content import Content
from textual.style import Style

from gpt2tui.evaluation.text_scores import MEANINGS
from gpt2tui.tui.figures import (
    GRAD_NORM,
    LEARNING_RATE,
    SPEED,
    NamedRun,
    Options,
    curve_figure,
    loss_figure,
    memory_figure,
    metric_curve,
)
from gpt2tui.tui.history import RunHistory
from gpt2tui.tui.train.view import DisplayedRun
from gpt2tui.tui.widgets.line_plot import LinePlot
from gpt2tui.tui.widgets.plot_drawing import Figure

PLOTS = ("loss", "lr", "grad", "tok/s", "memory")
LOWER_PLOTS = ("lr", "grad", "tok/s")
LOWER_PLACES = ("lower", "lower-2", "lower-3")
EDGE_SIGNS = "▴ ▾ at the edge: values beyond the axis, which are outside of the 1st to 99th percentile."
DEFINITIONS = {
    "loss": "Training loss of each step (faint) and smoothed, and validation loss, in nats per token. Smoothed: "
    "averaged with the weights of a Gaussian whose standard deviation is the given number of columns. ln V: the loss "
    "of uniform probabilities over the vocabulary. xz: the loss of a model with the bits per byte of `xz -9` on the "
    f"validation text. {EDGE_SIGNS}",
    "lr": "The learning rate of AdamW at each step.",
    "grad": f"The gradient norm of each step before clipping (faint), and smoothed. {EDGE_SIGNS}",
    "tok/s": f"Tokens trained per second, from the time of each step alone (faint), and smoothed. {EDGE_SIGNS}",
    "memory": "GPU memory that torch has allocated and reserved.",
    "accuracy": "At each evaluation the share of the validation tokens that were the single most probable one.",
    **{name: f"Of the continued windows of an evaluation: {meaning}." for name, meaning in MEANINGS.items()},
}

_CURVES = {"lr": LEARNING_RATE, "grad": GRAD_NORM, "tok/s": SPEED}
Room = Literal["grid", "all", "one", "low", "none"]


class TrainPlots:
    """With room, the loss over all LOWER_PLOTS side by side ("grid") or one of them ("all"); otherwise one of PLOTS.

    A metric that the run's evaluations measure is one more of either; side by side it takes the last place. Beside
    them the memory of a GPU. `plot_of` returns the widget of a place: "main", one of LOWER_PLACES, "memory".
    """

    def __init__(self, plot_of: Callable[[str], LinePlot]) -> None:
        self.options = Options()
        self.compared: NamedRun | None = None
        self.main = "loss"
        """What the main plot shows where there is room for only one."""
        self.lower = "lr"
        self.last = LOWER_PLOTS[-1]
        """What the last of the plots side by side shows."""
        self.measured: tuple[str, ...] = ()
        """The metrics that the run on show has measured."""
        self.room: Room = "none"
        self.with_memory = False
        """Whether the run on show trains on a device with its own memory."""
        self._plot_of = plot_of
        self._turn = 0
        self._versions: dict[str, int] = {}  # of the run, as each place shows it

    @property
    def places(self) -> tuple[str, ...]:
        """The places that have a plot."""
        memory = ("memory",) if self.with_memory else ()
        return {
            "grid": ("main", *LOWER_PLACES, *memory),
            "all": ("main", "lower", *memory),
            "one": ("main",),
            "low": ("main",),
            "none": (),
        }[self.room]

    def draw(self, view: DisplayedRun, note: str) -> None:
        """Draws all; `note` stands beside the names of the plots, in place of their keys."""
        for place in self.places:
            self._draw(place, view, note)

    def outdated(self, view: DisplayedRun) -> set[str]:
        """The places that do not show all of the run yet."""
        return {place for place in self.places if self._versions.get(place) != view.version}

    def draw_next(self, view: DisplayedRun, note: str) -> None:
        """Draws one outdated plot, each in its turn, the loss every second time."""
        turns = [turn for place in self.places[1:] for turn in ("main", place)] or list(self.places)
        outdated = self.outdated(view)
        for turn in range(self._turn + 1, self._turn + 1 + len(turns)):
            place = turns[turn % len(turns)]
            if place in outdated:
                self._turn = turn % len(turns)
                self._draw(place, view, note)
                return

    def toggle_log(self) -> None:
        """Switches the axis of the loss between logarithmic and linear."""
        self.options = replace(self.options, log_y=not self._plot_of("main").figure.log_y)

    def next_smoothing(self) -> None:
        """The next stronger smoothing; after the strongest, none."""
        self.options = self.options.next_smoothing()

    def next_x_unit(self) -> None:
        """Steps, tokens, time."""
        self.options = self.options.next_x_unit()

    def next_plot(self, by: int) -> None:
        """The plot `by` places after the one that is shown."""
        if self.room == "all":
            self.lower = neighbour((*LOWER_PLOTS, *self.measured), self.lower, by)
        elif self.room == "grid":
            self.last = neighbour(self._last_plots, self.last, by)
        else:
            base = PLOTS if self.with_memory else PLOTS[:-1]
            self.main = neighbour((*base, *self.measured), self.main, by)

    def choose(self, plot: str) -> None:
        """Shows a plot by name, where it has a place."""
        if self.room in ("one", "low", "none") and plot in (*PLOTS, *self.measured):
            self.main = plot
        elif self.room == "grid" and plot in self._last_plots:
            self.last = plot
        elif plot in (*LOWER_PLOTS, *self.measured):
            self.lower = plot

    @property
    def _last_plots(self) -> tuple[str, ...]:
        return (LOWER_PLOTS[-1], *self.measured)

    def forget_unmeasured(self, measured: tuple[str, ...]) -> None:
        """Takes the metrics of the run on show; a plot of one that it has not measured gives way to the first."""
        if measured == self.measured:
            return
        self.measured = measured
        known = (*PLOTS, *measured)
        self.main, self.lower = (
            plot if plot in known else first for plot, first in ((self.main, PLOTS[0]), (self.lower, LOWER_PLOTS[0]))
        )
        self.last = self.last if self.last in known else LOWER_PLOTS[-1]

    def _draw(self, place: str, view: DisplayedRun, note: str) -> None:
        plot = self._plot_in(place)
        self._versions[place] = view.version
        widget = self._plot_of(place)
        widget.figure = figure(plot, view, self.options, self.compared)
        widget.set_title(self._title(place, plot, widget.figure, note), DEFINITIONS.get(plot, ""))

    def _plot_in(self, place: str) -> str:
        if place == "memory":
            return "memory"
        if place == "main":
            return "loss" if self.room in ("grid", "all") else self.main
        if self.room != "grid":
            return self.lower
        return self.last if place == LOWER_PLACES[-1] else LOWER_PLOTS[LOWER_PLACES.index(place)]

    def _tabs(self, place: str, plot: str) -> tuple[str, ...]:
        """The plots of a place, of the metrics the one that is shown, else the first."""
        metrics = (plot,) if plot in self.measured else self.measured[:1]
        if self.room == "grid":
            return (LOWER_PLOTS[-1], *metrics)
        if place != "main":
            return (*LOWER_PLOTS, *metrics)
        return (*(PLOTS if self.with_memory else PLOTS[:-1]), *metrics)

    def _title(self, place: str, plot: str, drawn: Figure, note: str) -> Content:
        if place == "memory":
            return Content("GPU memory")
        if self.room == "grid" and place != "main" and not (self.measured and place == LOWER_PLACES[-1]):
            return Content(_CURVES[plot].name)
        if place == "main" and self.room in ("grid", "all"):
            return Content(loss_title(drawn, self.options))
        tabs = Content(" │ ").join(_tab(name, name == plot) for name in self._tabs(place, plot))
        hint = note if place == "main" and note else "[ ] cycle"
        if self.room == "low":
            hint = "t samples, log"
        return Content.assemble(tabs, (f" · {hint}", "$foreground-muted"))


def _tab(plot: str, shown: bool) -> Content:
    if shown:
        return Content.styled(plot, "bold $text-primary")
    click = Style.from_meta({"@click": f"screen.choose_plot('{plot}')"})
    return Content.styled(plot, "$foreground-muted").stylize(click)


def figure(plot: str, view: DisplayedRun, options: Options, compared: NamedRun | None = None) -> Figure:
    """The figure of one of `PLOTS`, or of a metric."""
    run = NamedRun("", view.history)
    if compared and view.run and compared.name == view.run.name:
        compared = None
    if plot == "loss":
        vocab_size = view.preset.model.vocab_size if view.preset else None
        return loss_figure(run, compared, vocab_size, options, view.waiting)
    if plot == "memory":
        return memory_figure(view.history, options, view.waiting)
    curve = _CURVES.get(plot) or metric_curve(plot)
    runs = [replace(run, name=curve.name)]
    if compared:
        runs.insert(0, compared)
    return curve_figure(curve, runs, replace(options, log_y=None), view.waiting)


def loss_title(drawn: Figure, options: Options) -> str:
    """The title of the loss plot."""
    parts = ["loss", "log y" if drawn.log_y else "linear y"]
    parts.append(f"smoothing {options.smoothing:g} columns" if options.smoothing else "not smoothed")
    if options.x_unit != "step":
        parts.append(f"by {options.x_unit}")
    return " · ".join(parts)


def compared_run(name: str, history: RunHistory) -> NamedRun:
    """Another run, to be drawn beside the one on show."""
    return NamedRun(name, history, "foreground", "dotted")


def neighbour(plots: Sequence[str], plot: str, by: int) -> str:
    """The plot `by` places after `plot`, around the end."""
    return plots[(plots.index(plot) + by) % len(plots)] if plot in plots else plots[0]
