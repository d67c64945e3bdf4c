"""The curves of several runs over each other, and the marks that choose the runs."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from textual.content import Content

from gpt2tui.tui.figures import (
    CURVES,
    TRAIN_LOSS,
    NamedRun,
    Options,
    curve_figure,
    loss_figure,
    measured_in,
    metric_curve,
)
from gpt2tui.tui.history import RunHistory
from gpt2tui.tui.runs.library import RunRow
from gpt2tui.tui.runs.sweeps import MOST_DRAWN, SweepRow
from gpt2tui.tui.widgets.line_plot import LinePlot
from gpt2tui.tui.widgets.mode_bar import short_name


class CurvesPlot(LinePlot):
    """Shows one of CURVES, or a metric that a run has measured, for the runs given to `show_runs`.

    For a single run, training and validation loss are drawn together.
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._curve = TRAIN_LOSS
        self._options = Options()
        self._runs: Sequence[tuple[str, RunHistory, str]] = ()
        self._expected = 0

    def show_runs(self, runs: Sequence[tuple[str, RunHistory, str]], expected: int) -> None:
        """Draws the runs read so far, as (name, history, colour); `expected` is the number of runs to draw in all."""
        self._runs, self._expected = runs, expected
        self._draw_curves()

    def next_curve(self, by: int) -> None:
        """Shows the curve `by` places further."""
        metrics = measured_in(history for _, history, _ in self._runs)
        curves = [*CURVES, *map(metric_curve, metrics)]
        names = [curve.name for curve in curves]
        at = names.index(self._curve.name) if self._curve.name in names else 0
        self._curve = curves[(at + by) % len(curves)]
        self._draw_curves()

    def toggle_log(self) -> None:
        """Switches between a logarithmic and a linear axis, for the curves that may have either."""
        if self._curve.log:
            self._options = replace(self._options, log_y=not self.figure.log_y)
            self._draw_curves()

    def next_x_unit(self) -> None:
        """Steps, tokens, time."""
        self._options = self._options.next_x_unit()
        self._draw_curves()

    def _draw_curves(self) -> None:
        curve, options = self._curve, self._options
        empty = "no run" if not self._expected else f"no {curve.name} yet" if self._runs else "loading"
        sweeps = {name.rpartition("/")[0] for name, _, _ in self._runs}
        names = [name.rpartition("/")[2] if len(sweeps) == 1 else name for name, _, _ in self._runs]
        runs = [
            NamedRun(short_name(name), history, colour)
            for name, (_, history, colour) in zip(names, self._runs, strict=True)
        ]
        if curve is TRAIN_LOSS and len(runs) == 1:
            self.figure = loss_figure(runs[0], None, None, options, empty)
        else:
            self.figure = curve_figure(curve, runs, options, empty)
        title = [curve.name]
        if curve.log:
            title.append("log y" if self.figure.log_y else "linear y")
        if options.x_unit != "step":
            title.append(f"by {options.x_unit}")
        self.border_title = Content.assemble(" · ".join(title), (" · [ ] cycle", "$foreground-muted"))


# ---- the marked runs

COLOURS = ("primary", "accent", "success", "error", "#cc79a7", "#56b4e9", "#b8a1ff", "#9a8c5c")
"""Theme colours by name, and more colours that differ from them and from each other."""


def sweep_colours(sweep: SweepRow) -> dict[str, str]:
    """The best runs of a sweep, the best first, each with its colour; those after the last colour have the same."""
    colours = (*COLOURS, *["foreground-muted"] * MOST_DRAWN)
    return {row.name: colour for row, colour in zip(sweep.best_first[:MOST_DRAWN], colours, strict=False)}


class RunMarks:
    """The marked runs, in the order of marking, each with its colour; empty, and not drawn, when all are taken."""

    def __init__(self) -> None:
        self.colours: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.colours)

    def __contains__(self, name: str) -> bool:
        return name in self.colours

    def toggle(self, name: str) -> None:
        """Marks a run, or removes its mark."""
        if name in self.colours:
            self.remove(name)
        else:
            self.add(name)

    def remove(self, name: str) -> None:
        """Removes the mark of a run."""
        self.colours.pop(name, None)

    def add(self, name: str) -> None:
        """Marks a run."""
        if name not in self.colours:
            free = [colour for colour in COLOURS if colour not in self.colours.values()]
            self.colours[name] = free[0] if free else ""

    def keep(self, names: Collection[str]) -> None:
        """Keeps only the marks of these runs."""
        self.colours = {name: colour for name, colour in self.colours.items() if name in names}

    def clear(self) -> None:
        """Removes all marks."""
        self.colours.clear()

    def colour(self, name: str) -> str:
        """A run's colour; the first colour for a run without a mark."""
        return self.colours.get(name) or COLOURS[0]

    def pair(self, rows: Sequence[RunRow], pointed: RunRow | None) -> tuple[RunRow, RunRow] | None:
        """The two runs marked last; with one mark, that one and the one under the cursor."""
        by_name = {row.name: row for row in rows}
        marked = [by_name[name] for name in self.colours if name in by_name]
        if len(marked) == 1 and pointed is not None and pointed.name in by_name and pointed.name != marked[0].name:
            marked.append(pointed)
        return (marked[-2], marked[-1]) if len(marked) >= 2 else None
