"""The top line: the four modes, and the progress of the training."""

import re
from dataclasses import dataclass
from typing import ClassVar, cast

from rich.cells import cell_len, set_cell_size
from rich.style import Style
from rich.text import Text
from textual.app import RenderResult
from textual.widget import Widget

from gpt2tui.run.state import BESIDE_STATE, RunState
from gpt2tui.system.numbers import duration, percent, steps_of
from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tui.session import TRAINING, SessionState
from gpt2tui.tui.states import ELSEWHERE, SIGNS

MODES = {"presets": "Presets", "train": "Train", "chat": "Chat", "runs": "Runs"}
BAR_WIDTHS = (14, 6)
NAME_WIDTHS = (30, 14)
DATED = re.compile(r"\d{4}-\d\d-\d\d-(\d\d)(\d\d)\d\d-(.+)")
"""The name of a run, as the program chooses it."""


def short_name(name: str) -> str:
    """A run's name where there is little room: `small 12:00` for `2026-01-31-120000-small`."""
    found = DATED.fullmatch(name)
    return f"{found[3]} {found[1]}:{found[2]}" if found else name


@dataclass(frozen=True)
class TrainingStatus:
    """The progress of this process's training, or of another process's run on the Train screen."""

    state: SessionState | RunState = "idle"
    run: str = ""
    step: int = 0
    num_iterations: int = 0
    seconds_left: float | None = None
    preparation: str = ""
    elsewhere: bool = False
    """Whether another process trains it."""
    beside: bool = False
    """Whether the Train screen shows another run than this one."""

    @property
    def fraction(self) -> float:
        """The share of the steps that are done."""
        return min(1.0, self.step / self.num_iterations) if self.num_iterations else 0.0


class ModeBar(Widget):
    """One line; a click on a mode shows it. It watches `app.training_status`."""

    DEFAULT_CSS = """
    ModeBar {
        height: 1; background: $panel; color: $foreground;
        link-style: none; link-style-hover: underline; link-background-hover: $panel; link-color-hover: $foreground;
    }
    """

    ALLOW_SELECT: ClassVar[bool] = False

    def on_mount(self) -> None:
        """Watches the app's status and theme."""
        self.watch(self.app, "training_status", self._redraw, init=False)
        self.watch(self.app, "theme", self._redraw, init=False)

    def _redraw(self) -> None:
        self.refresh()

    def render(self) -> RenderResult:
        """The modes on the left; on the right as much of the status as fits."""
        colours = self.app.theme_variables
        status = cast(TrainingStatus, getattr(self.app, "training_status", TrainingStatus()))
        modes = self._modes(colours)
        room = self.size.width - modes.cell_len
        right = next((line for line in _status_lines(status, colours) if line.cell_len <= room), Text())
        return Text.assemble(modes, " " * max(0, room - right.cell_len), right, no_wrap=True, end="")

    def _modes(self, colours: dict[str, str]) -> Text:
        front = self.app.current_mode
        for name, wide in (("gpt2tui", True), ("", True), ("", False)):
            line = Text(f" {name} " if name else "", Style(bold=True, color=_colour(colours, "primary")))
            for number, (mode, label) in enumerate(MODES.items(), start=1):
                here = mode == front
                style = Style(meta={"@click": f"app.go('{mode}')"})
                if here:
                    style += Style(bold=True, color=_colour(colours, "background"), bgcolor=_colour(colours, "primary"))
                line.append(f" {number} {label} " if wide or here else f" {number} ", style)
            if line.cell_len + (30 if name else 20) <= self.size.width:
                break
        return line


def _status_lines(status: TrainingStatus, colours: dict[str, str]) -> list[Text]:
    """The status in words, the longest first: first the bar is dropped, then the run's name is cut."""
    if status.state == "idle":
        return []
    sign, colour = SIGNS[status.state]
    word = f"{ELSEWHERE if status.elsewhere and sign == '●' else sign} {status.state.upper()}"
    state = Text(word, Style(bold=True, color=_colour(colours, colour)))
    if status.elsewhere:
        state.append(f" {BESIDE_STATE.upper()}")
    name = sanitize(short_name(status.run), keep_newlines=False)
    if status.beside:
        name = f"training here: {name}"
    long, short = (shorten_middle(name, width) for width in NAME_WIDTHS)
    bare = shorten_middle(name.rpartition(" ")[0] or name, NAME_WIDTHS[-1])
    if status.state == "preparing":
        what = Text(f"  {sanitize(status.preparation, keep_newlines=False)}") if status.preparation else Text()
        lines = [(long, "  ", state, what), (short, "  ", state, what), (state, what), (state,)]
        return [Text.assemble(*line, " ") for line in lines]
    if not status.num_iterations:
        return [Text.assemble(*line, " ") for line in ((long, "  ", state), (short, "  ", state), (state,))]
    steps = f"  {steps_of(status.step, status.num_iterations)}"
    share = f"  {percent(status.fraction)}"
    bar, small_bar = (_bar(status.fraction, width, colours, colour) for width in BAR_WIDTHS)
    left = ""
    if status.seconds_left is not None and status.state in TRAINING:
        left = f"  ETA {duration(status.seconds_left)}"
    parts = [
        (long, "  ", state, steps, share, bar, left),
        (long, "  ", state, steps, share, small_bar, left),
        (long, "  ", state, steps, share, left),
        (short, "  ", state, steps, share, left),
        (short, "  ", state, share, left),
        *([] if status.beside else [(bare, "  ", state, share, left)]),
        (state, steps, share, left),
        (state, steps, left),
        (state, share, left),
        (state, share),
        (state,),
        (word[:1],),
    ]
    return [Text.assemble(*line, " ") for line in parts]


def shorten_middle(name: str, width: int) -> str:
    """The name, in at most `width` columns: the beginning and the end of a name tell more than its middle."""
    if cell_len(name) <= width:
        return name
    end = max(0, width - 1) // 2
    start = set_cell_size(name, max(0, width - 1 - end)).rstrip()
    tail = name[len(name) - end :]
    while cell_len(tail) > end:
        tail = tail[1:]
    return f"{start}…{tail}"


def _bar(fraction: float, width: int, colours: dict[str, str], colour: str) -> Text:
    filled = round(fraction * width)
    return Text.assemble(
        "  ",
        ("━" * filled, Style(color=_colour(colours, colour))),
        ("━" * (width - filled), Style(color=_colour(colours, "surface-lighten-2"))),
    )


def _colour(colours: dict[str, str], name: str) -> str | None:
    """A theme colour for rich; None for one that is not a plain colour, such as `ansi_blue`."""
    value = colours.get(name, "")
    return value[:7] if value.startswith("#") else None
