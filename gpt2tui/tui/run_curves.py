"""Which curves of runs can be laid over each other, and how."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from gpt2tui.tui.history import RunHistory, Series
from gpt2tui.tui.widgets.line_plot import Line

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
