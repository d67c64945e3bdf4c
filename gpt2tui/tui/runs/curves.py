"""One kind of curve of several runs over each other."""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from textual.content import Content

from gpt2tui.tui.history import RunHistory, Series
from gpt2tui.tui.runs.library import RunRow
from gpt2tui.tui.widgets.line_plot import Line, LinePlot


class CurvesPlot(LinePlot):
    """Shows one of CURVES; `show_runs` says of which runs."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._curve = 0
        self._log_y = True
        self._runs: Sequence[tuple[str, RunHistory, str]] = ()
        self._expected = 0

    def show_runs(self, runs: Sequence[tuple[str, RunHistory, str]], expected: int) -> None:
        """The runs as (name, history, colour), as far as they are read; `expected` is how many there will be."""
        self._runs, self._expected = runs, expected
        self._draw_curves()

    def other_curve(self, by: int) -> None:
        """The next curve, or the one before."""
        self._curve = (self._curve + by) % len(CURVES)
        self._draw_curves()

    def switch_log(self) -> None:
        """Turns the logarithmic axis on or off, for the curves that have one."""
        self._log_y = not self._log_y
        self._draw_curves()

    def _draw_curves(self) -> None:
        curve = CURVES[self._curve]
        log_y = self._log_y and curve.log
        self.border_title = Content(f"{curve.name}{' ── log y' if log_y else ''} ── [ ] other")
        empty = "no run" if not self._expected else f"no {curve.name} yet" if self._runs else "reading …"
        self.show(*curve_lines(curve, self._runs), log_y=log_y, empty=empty)


# ---- which curves of runs can be laid over each other, and how

SMOOTHING = 0.9


@dataclass(frozen=True)
class Curve:
    """A number over the steps; `log` where a logarithmic axis shows it better; `few` where it has few points."""

    name: str
    series: Callable[[RunHistory], Series]
    log: bool = False
    few: bool = False


CURVES = (
    Curve("train loss", lambda history: history.train_loss[SMOOTHING], log=True),
    Curve("val loss", lambda history: history.val_loss, log=True, few=True),
    Curve("bits/byte", lambda history: history.bits_per_byte, log=True, few=True),
    Curve("learning rate", lambda history: history.learning_rate),
    Curve("gradient norm", lambda history: history.grad_norm, log=True),
    Curve("tokens/s", lambda history: history.tokens_per_second),
)


def curve_lines(curve: Curve, runs: Sequence[tuple[str, RunHistory, str]]) -> list[Line]:
    """A line for each (run name, history, colour); one run alone shows its raw and held-out loss beside."""
    if curve is CURVES[0] and len(runs) == 1:
        _, history, colour = runs[0]
        return [
            Line("step", history.train_loss[0.0].points(), colour, "faint"),
            Line("smoothed", history.train_loss[SMOOTHING].points(), colour),
            Line("held out", history.val_loss.points(), "accent", "marked"),
        ]
    style: Literal["marked", "solid"] = "marked" if curve.few else "solid"
    return [Line(short_name(name), curve.series(history).points(), colour, style) for name, history, colour in runs]


def short_name(name: str) -> str:
    """A run's name for a legend: `small 12:00` for `2026-01-31-120000-small`."""
    found = re.fullmatch(r"\d{4}-\d\d-\d\d-(\d\d)(\d\d)\d\d-(.+)", name)
    return f"{found[3]} {found[1]}:{found[2]}" if found else name


# ---- the marked runs: drawn over each other, each in its colour. No screen

COLOURS = ("primary", "accent", "success", "error", "#cc79a7", "#56b4e9", "#b8a1ff", "#9a8c5c")
"""Names of the theme's colours, and colours that are told from them and from each other."""


class RunMarks:
    """Names of runs in the order of marking, with their colours."""

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
        """Removes the marks of runs that are not there any more."""
        self.colours = {name: colour for name, colour in self.colours.items() if name in names}

    def clear(self) -> None:
        """Removes all marks."""
        self.colours.clear()

    def colour(self, name: str) -> str:
        """A run's colour; the first one for a run that is not marked."""
        return self.colours.get(name, COLOURS[0])

    def pair(self, rows: Sequence[RunRow], pointed: RunRow | None) -> tuple[RunRow, RunRow] | None:
        """The two runs marked last; with one mark, that one and the one under the cursor."""
        by_name = {row.name: row for row in rows}
        marked = [by_name[name] for name in self.colours if name in by_name]
        if len(marked) == 1 and pointed is not None and pointed.name != marked[0].name:
            marked.append(pointed)
        return (marked[-2], marked[-1]) if len(marked) >= 2 else None
