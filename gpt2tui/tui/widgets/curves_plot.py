"""One kind of curve of several runs over each other."""

from collections.abc import Sequence

from textual.content import Content

from gpt2tui.tui.history import RunHistory
from gpt2tui.tui.run_curves import CURVES, curve_lines
from gpt2tui.tui.widgets.line_plot import LinePlot


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
