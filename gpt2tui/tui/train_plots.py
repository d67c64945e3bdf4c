"""The three plots of the Train screen: which curves each shows, how, and under which title."""

from collections.abc import Callable
from typing import Literal

from textual.content import Content
from textual.style import Style

from gpt2tui.tui import train_figures
from gpt2tui.tui.history import SMOOTHINGS
from gpt2tui.tui.run_view import RunView
from gpt2tui.tui.train_figures import PLOTS, Comparison, LossOptions, neighbour
from gpt2tui.tui.widgets.line_plot import LinePlot

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

    def draw(self, view: RunView, note: str) -> None:
        """Draws all; `note` is said beside the names of the plots, in place of their keys."""
        for place in self.places:
            self._draw(place, view, note)

    def behind(self, view: RunView) -> set[str]:
        """The places that do not show all of the run yet."""
        return {place for place in self.places if self._versions.get(place) != view.version}

    def draw_next(self, view: RunView, note: str) -> None:
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

    def _draw(self, place: str, view: RunView, note: str) -> None:
        plot = {"main": "loss" if self.room == "all" else self.main, "lower": self.lower, "memory": "memory"}[place]
        self._versions[place] = view.version
        widget = self._plot_of(place)
        widget.figure = train_figures.figure(plot, view, self.options, self.comparison)
        widget.name_it(self._title(place, plot, view, note), train_figures.DEFINITIONS[plot])

    def _title(self, place: str, plot: str, view: RunView, note: str) -> Content:
        if place == "memory":
            return Content("GPU memory" if len(view.history.device_memory) else "memory of the process")
        if place == "main" and self.room == "all":
            return Content(train_figures.title(plot, self.options))
        plots = PLOTS if place == "main" else LOWER_PLOTS
        tabs = Content(" │ ").join(_tab(name, name == plot) for name in plots)
        hint = note if place == "main" and note else "[ ] cycle"
        return Content.assemble(tabs, (f" · {hint}", "$foreground-disabled"))


def _tab(plot: str, shown: bool) -> Content:
    if shown:
        return Content.styled(plot, "bold $text-primary")
    click = Style.from_meta({"@click": f"screen.choose_plot('{plot}')"})
    return Content.styled(plot, "$foreground-muted").stylize(click)
