"""The samples that the model generated at each evaluation, one at a time."""

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.style import Style
from textual.widgets import Static

from gpt2tui.run.events import Sampled
from gpt2tui.system.numbers import compact
from gpt2tui.system.terminal_text import sanitize


class SampleTimeline(Vertical):
    """One sample in full under a line of all their steps: the newest, until the user chooses an earlier one.

    A click on a step or an arrow runs the screen's action `sample(index)` or `travel(by)`.
    """

    DEFAULT_CSS = """
    SampleTimeline {
        border: round $panel-lighten-2;
        border-title-color: $text-muted;
        border-subtitle-color: $text-muted;
    }
    SampleTimeline #steps { height: 1; padding: 0 1; text-wrap: nowrap; link-style: none; link-color: $text-muted; }
    SampleTimeline VerticalScroll { scrollbar-size-vertical: 1; padding: 0 1; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._samples: Sequence[Sampled] = ()
        self._takes_requests = False
        self._chosen: int | None = None
        """The step on show, None for the newest."""

    def compose(self) -> ComposeResult:
        """The steps over the text."""
        yield Static("", markup=False, id="steps")
        with VerticalScroll():
            yield Static("", markup=False, id="sample")

    def on_mount(self) -> None:
        """Draws the titles and the sample."""
        self._draw()

    def on_resize(self) -> None:
        """Draws as many steps as fit."""
        if self.query("#steps"):
            self._draw_steps()

    def show(self, samples: Sequence[Sampled], takes_requests: bool = False) -> None:
        """These samples, in the order of their steps; `takes_requests`: the user may ask for one now."""
        self._samples, self._takes_requests = tuple(samples), takes_requests
        if self._chosen is not None and all(sample.step != self._chosen for sample in samples):
            self._chosen = None
        self._draw()

    def travel(self, by: int) -> None:
        """Shows the sample `by` places later, or earlier when negative."""
        if self._samples:
            self.go(min(max(self._index + by, 0), len(self._samples) - 1))

    def go(self, index: int) -> None:
        """Shows one of the samples; from the last one on, always the newest."""
        if 0 <= index < len(self._samples):
            newest = index == len(self._samples) - 1
            self._chosen = None if newest else self._samples[index].step
            self._draw()

    @property
    def sample(self) -> Sampled | None:
        """The sample on show."""
        return self._samples[self._index] if self._samples else None

    @property
    def _index(self) -> int:
        steps = [sample.step for sample in self._samples]
        # The last of its step, which has two when one was requested at an evaluation.
        return len(steps) - 1 - steps[::-1].index(self._chosen) if self._chosen in steps else len(steps) - 1

    def _draw(self) -> None:
        if not self.query("#sample"):
            return  # drawn once its parts are there
        sample = self.sample
        text = self.query_one("#sample", Static)
        self.border_title = "samples"
        if sample is None:
            text.update(
                Content.styled(
                    "no sample yet: one at each evaluation (w: now)" if self._takes_requests else "no sample",
                    "$foreground-muted",
                )
            )
            self.border_subtitle = ""
        else:
            prompt = sanitize(sample.prompt)
            text.update(
                Content.assemble((prompt, "$foreground-muted"), (sanitize(sample.text).rstrip(), "$foreground"))
            )
            shown = sanitize(sample.prompt, keep_newlines=False)
            name = f"prompt “{shown[:24]}{'…' if len(shown) > 24 else ''}”" if shown else "no prompt"
            self.border_title = Content(f"samples · {name} · same seed")
            newest = ", newest" if self._chosen is None else ""
            self.border_subtitle = f"step {sample.step:,} · {self._index + 1} of {len(self._samples)}{newest}"
        self._draw_steps()

    def _draw_steps(self) -> None:
        steps = self.query_one("#steps", Static)
        steps.display = len(self._samples) > 1
        if not steps.display:
            return
        labels = [f" {compact(sample.step)} " for sample in self._samples]
        first, last = _window([len(label) for label in labels], self._index, max(1, self.size.width - 8))
        parts = [
            Content.styled(label, "reverse") if index == self._index else _link(label, f"screen.sample({index})")
            for index, label in enumerate(labels[first:last], start=first)
        ]
        steps.update(Content("").join([_link("◀ ", "screen.travel(-1)"), *parts, _link(" ▶", "screen.travel(1)")]))


def _link(text: str, action: str) -> Content:
    return Content.styled(text, Style.from_meta({"@click": action}))


def _window(widths: Sequence[int], index: int, room: int) -> tuple[int, int]:
    """The largest range around `index`, as centred as possible, whose widths fit into `room`: (first, last + 1)."""
    first, last, used = index, index + 1, widths[index]
    grown = True
    while grown:
        grown = False
        if last < len(widths) and used + widths[last] <= room:
            used, last, grown = used + widths[last], last + 1, True
        if first > 0 and used + widths[first - 1] <= room:
            used, first, grown = used + widths[first - 1], first - 1, True
    return first, last
