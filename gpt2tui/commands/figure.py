"""The curves of runs as a picture for a paper or a slide: `gpt2tui runs export RUN ... --png FILE` or `--svg FILE`.

Runs differ in the dashes and the markers of their lines, not only in colour, so that a grey print can be read.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2tui.errors import ResourceError, UsageError
from gpt2tui.run import events
from gpt2tui.run.events_file import read_events
from gpt2tui.run.folder import Run
from gpt2tui.system.terminal_text import printable
from gpt2tui.tracking.run_progress import ExponentialAverage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INCHES = (6.4, 4.0)
DPI = 200
DASHES = ("-", "--", "-.", ":", (0, (8, 2)), (0, (5, 1, 1, 1, 1, 1)))
MARKERS = "osD^vP*X"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Of Okabe and Ito, which people with any colour vision can tell apart."""
FEW_POINTS = 60
"""Up to this many steps the losses of single steps are drawn, not their average."""


@dataclass(frozen=True)
class Curves:
    """What is drawn of a run: (step, nats per token) of the training and the validation."""

    name: str
    train: list[tuple[int, float]]
    validation: list[tuple[int, float]]
    """Or, of a metric, its value at each evaluation; there is then no `train`."""


def require_matplotlib() -> None:
    """Raises UsageError with the command that installs it."""
    if find_spec("matplotlib") is None:
        raise UsageError(
            "--png and --svg need the package matplotlib, which is not installed: python -m pip install "
            "'gpt2tui[figures]', or in a checkout uv sync --extra figures"
        )


def curves_of(run: Run) -> Curves:
    """The losses in a run's events: of the steps smoothed as on the Train screen, of the validation sample as they are.

    Raises UsageError when the run has no steps, or its events cannot be read.
    """
    steps: dict[int, float] = {}
    validation: dict[int, float] = {}
    try:
        for event in read_events(run.events_file):
            if isinstance(event, events.Step):
                steps[event.step] = event.train_loss
            elif isinstance(event, events.Evaluated) and not event.whole:
                validation[event.step] = event.val_loss
    except OSError as error:
        raise UsageError(f"{run.events_file} cannot be read: {error.strerror or error}") from error
    if not steps:
        raise UsageError(f"{run.name} has no steps to draw")
    average = ExponentialAverage()
    train = []
    for step, loss in sorted(steps.items()):
        average = average.add(loss)
        shown = loss if len(steps) <= FEW_POINTS else average.value
        if shown is not None:
            train.append((step, shown))
    return Curves(run.name, train, sorted(validation.items()))


def metric_of(run: Run, metric: str) -> Curves:
    """A metric of the evaluations over the validation sample. Raises UsageError when the run has not measured it."""
    found: dict[int, float] = {}
    measured: set[str] = set()
    try:
        for event in read_events(run.events_file):
            if isinstance(event, events.Evaluated) and not event.whole:
                measured |= event.metrics.keys()
                if math.isfinite(value := event.metrics.get(metric, math.nan)):
                    found[event.step] = value
    except OSError as error:
        raise UsageError(f"{run.events_file} cannot be read: {error.strerror or error}") from error
    if not found:
        names = [name for name in events.METRICS if name in measured]
        has = f"it has {', '.join(names)}" if names else "[evaluation] metrics names what a run measures"
        raise UsageError(f"{run.name} has not measured {printable(metric, 40)}; {has}")
    return Curves(run.name, [], sorted(found.items()))


def draw(curves: Sequence[Curves], metric: str | None = None) -> "Figure":
    """The figure, of the losses or of a metric; needs no screen and no global state of matplotlib."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    figure = Figure(figsize=INCHES, layout="constrained")
    axes = figure.add_subplot()
    styles = zip(itertools.cycle(DASHES), itertools.cycle(MARKERS), itertools.cycle(COLOURS), strict=False)
    for each, (dashes, marker, colour) in zip(curves, styles, strict=False):
        prefix = "" if len(curves) == 1 else f"{each.name}: "
        label = f"{prefix}training" + ("" if len(each.train) <= FEW_POINTS else " (smoothed)")
        if each.train:
            axes.plot(*_columns(each.train), linestyle=dashes, color=colour, linewidth=1.2, label=label)
        if each.validation:
            axes.plot(
                *_columns(each.validation),
                linestyle=dashes,
                marker=marker,
                markersize=5,
                markerfacecolor="white",
                color=colour,
                linewidth=0.8,
                label=each.name if metric else f"{prefix}validation",
            )
    axes.set_xlabel("step (updates of the weights)")
    axes.set_ylabel(metric or "loss (nats per token)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.grid(alpha=0.3)
    legend = axes.legend(frameon=False, fontsize="small")
    if len(curves) == 1:
        axes.set_title(curves[0].name, parse_math=False)
    for text in legend.get_texts():  # a name may hold a dollar sign
        text.set_parse_math(False)
    return figure


def write_figure(runs: Sequence[Run], path: Path, kind: str, metric: str | None = None) -> None:
    """Draws the losses or a metric of the runs into a new file of this kind, png or svg.

    Raises UsageError for a file that exists or runs without steps or the metric, ResourceError when it is not written.
    """
    require_matplotlib()
    import matplotlib

    figure = draw([metric_of(run, metric) if metric else curves_of(run) for run in runs], metric)
    try:
        # A text in an SVG stays text, and the same runs give the same file.
        with path.open("xb") as file, matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "gpt2tui"}):
            figure.savefig(file, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)
    except FileExistsError:
        raise UsageError(f"{path} exists already; choose another name") from None
    except OSError as error:
        raise ResourceError(f"{path} cannot be written: {error.strerror or error}") from error


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [step for step, _ in points], [loss for _, loss in points]
