"""The curves of several runs over each other, and the marks that choose the runs."""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from textual.content import Content

from gpt2tui.tui.history import RunHistory, Series
from gpt2tui.tui.runs.library import RunRow
from gpt2tui.tui.widgets.line_plot import Line, LinePlot


class CurvesPlot(LinePlot):
    """Shows one of CURVES for the runs given to `show_runs`."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._curve = 0
        self._log_y = True
        self._runs: Sequence[tuple[str, RunHistory, str]] = ()
        self._expected = 0

    def show_runs(self, runs: Sequence[tuple[str, RunHistory, str]], expected: int) -> None:
        """Draws the runs read so far, as (name, history, colour); `expected` is the number of runs to draw in all."""
        self._runs, self._expected = runs, expected
        self._draw_curves()

    def next_curve(self, by: int) -> None:
        """Shows the curve `by` places further."""
        self._curve = (self._curve + by) % len(CURVES)
        self._draw_curves()

    def toggle_log(self) -> None:
        """Switches the logarithmic axis on or off, for the curves that have one."""
        self._log_y = not self._log_y
        self._draw_curves()

    def _draw_curves(self) -> None:
        curve = CURVES[self._curve]
        log_y = self._log_y and curve.log
        self.border_title = Content(f"{curve.name}{' ── log y' if log_y else ''} ── [ ] other")
        empty = "no run" if not self._expected else f"no {curve.name} yet" if self._runs else "reading …"
        self.show(*curve_lines(curve, self._runs), log_y=log_y, empty=empty)


# ---- the curves

SMOOTHING = 0.9


@dataclass(frozen=True)
class Curve:
    """A number over the steps; `log`: it has a logarithmic axis; `few_points`: each point gets a sign."""

    name: str
    series: Callable[[RunHistory], Series]
    log: bool = False
    few_points: bool = False


CURVES = (
    Curve("train loss", lambda history: history.train_loss[SMOOTHING], log=True),
    Curve("val loss", lambda history: history.val_loss, log=True, few_points=True),
    Curve("bits/byte", lambda history: history.bits_per_byte, log=True, few_points=True),
    Curve("learning rate", lambda history: history.learning_rate),
    Curve("gradient norm", lambda history: history.grad_norm, log=True),
    Curve("tokens/s", lambda history: history.tokens_per_second),
)


def curve_lines(curve: Curve, runs: Sequence[tuple[str, RunHistory, str]]) -> list[Line]:
    """A line for each (run name, history, colour); a single run's train loss with its raw and val loss."""
    if curve is CURVES[0] and len(runs) == 1:
        _, history, colour = runs[0]
        return [
            Line("train", history.train_loss[0.0].points(), colour, "faint"),
            Line("smoothed", history.train_loss[SMOOTHING].points(), colour),
            Line("val", history.val_loss.points(), "accent", "marked"),
        ]
    style: Literal["marked", "solid"] = "marked" if curve.few_points else "solid"
    return [Line(short_name(name), curve.series(history).points(), colour, style) for name, history, colour in runs]


def short_name(name: str) -> str:
    """A run's name for a legend: `small 12:00` for `2026-01-31-120000-small`."""
    found = re.fullmatch(r"\d{4}-\d\d-\d\d-(\d\d)(\d\d)\d\d-(.+)", name)
    return f"{found[3]} {found[1]}:{found[2]}" if found else name


# ---- the marked runs

COLOURS = ("primary", "accent", "success", "error", "#cc79a7", "#56b4e9", "#b8a1ff", "#9a8c5c")
"""Theme colours by name, and more colours that differ from them and from each other."""


class RunMarks:
    """The marked runs, in the order of marking, each with its colour."""

    def __init__(self) -> None:
        self.colours: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self.colours)

    def __contains__(self, name: str) -> bool:
        return name in self.colours

    def toggle(self, name: str) -> bool:
        """Marks a run, or removes its mark; False when all colours are taken."""
        if name in self.colours:
            del self.colours[name]
            return True
        free = [colour for colour in COLOURS if colour not in self.colours.values()]
        if free:
            self.colours[name] = free[0]
        return bool(free)

    def keep(self, names: Collection[str]) -> None:
        """Keeps only the marks of these runs."""
        self.colours = {name: colour for name, colour in self.colours.items() if name in names}

    def clear(self) -> None:
        """Removes all marks."""
        self.colours.clear()

    def colour(self, name: str) -> str:
        """A run's colour; the first colour for a run without a mark."""
        return self.colours.get(name, COLOURS[0])

    def pair(self, rows: Sequence[RunRow], pointed: RunRow | None) -> tuple[RunRow, RunRow] | None:
        """The two runs marked last; with one mark, that one and the one under the cursor."""
        by_name = {row.name: row for row in rows}
        marked = [by_name[name] for name in self.colours if name in by_name]
        if len(marked) == 1 and pointed is not None and pointed.name != marked[0].name:
            marked.append(pointed)
        return (marked[-2], marked[-1]) if len(marked) >= 2 else None
