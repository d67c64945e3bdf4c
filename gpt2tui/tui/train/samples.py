"""The samples that the model generated at each evaluation: one, and with room an earlier one beside it."""

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.style import Style
from textual.widgets import Static

from gpt2tui.run.events import Sampled
from gpt2tui.system.numbers import compact
from gpt2tui.system.terminal_text import sanitize

WIDE = 96  # from here on there is room for two samples


class SampleTimeline(Vertical):
    """One sample in full under a line of all their steps: the newest, until the user chooses an earlier one.

    With room, the sample before it is on its left, or the one that the user keeps there. A click on a step or an arrow
    runs the screen's action `sample(index)` or `travel(by)`.
    """

    DEFAULT_CSS = """
    SampleTimeline {
        border: round $panel-lighten-2;
        border-title-color: $text-muted;
        border-subtitle-color: $text-muted;
    }
    SampleTimeline #steps { height: 1; padding: 0 1; text-wrap: nowrap; link-style: none; link-color: $text-muted; }
    SampleTimeline VerticalScroll { width: 1fr; scrollbar-size-vertical: 1; padding: 0 1; }
    SampleTimeline #earlier { border-right: solid $foreground 20%; display: none; }
    SampleTimeline.-two #earlier { display: block; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._samples: Sequence[Sampled] = ()
        self._takes_requests = False
        self._chosen: int | None = None
        """The step on show, None for the newest."""
        self._kept: int | None = None
        """The step on the left, None for the one before that on show."""

    def compose(self) -> ComposeResult:
        """The steps over the text."""
        yield Static("", markup=False, id="steps")
        with Horizontal():
            with VerticalScroll(id="earlier"):
                yield Static("", markup=False, id="earlier-sample")
            with VerticalScroll():
                yield Static("", markup=False, id="sample")

    def on_mount(self) -> None:
        """Draws the titles and the sample."""
        self._draw()

    def on_resize(self) -> None:
        """Draws as many samples and steps as fit."""
        self._draw()

    def show(self, samples: Sequence[Sampled], takes_requests: bool = False) -> None:
        """These samples, in the order of their steps; `takes_requests`: the user may ask for one now."""
        self._samples, self._takes_requests = tuple(samples), takes_requests
        steps = {sample.step for sample in samples}
        self._chosen = self._chosen if self._chosen in steps else None
        self._kept = self._kept if self._kept in steps else None
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

    def keep(self) -> bool:
        """Keeps the sample on show on the left, or the one before it again; returns whether one is kept."""
        self._kept = self.sample.step if self._kept is None and self.sample else None
        self._draw()
        return self._kept is not None

    @property
    def sample(self) -> Sampled | None:
        """The sample on show."""
        return self._samples[self._index] if self._samples else None

    @property
    def earlier(self) -> Sampled | None:
        """The sample on its left."""
        index = self._earlier_index
        return None if index is None else self._samples[index]

    @property
    def _index(self) -> int:
        found = self._index_of(self._chosen)
        return len(self._samples) - 1 if found is None else found

    @property
    def _earlier_index(self) -> int | None:
        if self.size.width < WIDE or len(self._samples) < 2:
            return None
        kept = self._index_of(self._kept)
        return kept if kept is not None else self._index - 1 if self._index > 0 else None

    def _index_of(self, step: int | None) -> int | None:
        """The last sample of a step, which has two when one was requested at an evaluation."""
        return next((index for index, s in reversed(list(enumerate(self._samples))) if s.step == step), None)

    def _draw(self) -> None:
        if not self.query("#sample"):
            return  # drawn once its parts are there
        sample, earlier = self.sample, self.earlier
        text = self.query_one("#sample", Static)
        self.border_title = "samples"
        self.set_class(earlier is not None, "-two")
        if sample is None:
            text.update(
                Content.styled(
                    "no sample yet: one at each evaluation (w: now)" if self._takes_requests else "no sample",
                    "$foreground-muted",
                )
            )
            self.border_subtitle = ""
        else:
            text.update(_text(sample))
            shown = sanitize(sample.prompt, keep_newlines=False)
            name = f"prompt “{shown[:24]}{'…' if len(shown) > 24 else ''}”" if shown else "no prompt"
            self.border_title = Content(f"samples · {name} · same seed")
            newest = ", newest" if self._chosen is None else ""
            step = f"step {sample.step:,}"
            if earlier is not None:
                self.query_one("#earlier-sample", Static).update(_text(earlier))
                kept = " (kept)" if self._kept is not None else ""
                step = f"step {earlier.step:,}{kept} │ {step}"
            self.border_subtitle = f"{step} · {self._index + 1} of {len(self._samples)}{newest}"
        self._draw_steps()

    def _draw_steps(self) -> None:
        steps = self.query_one("#steps", Static)
        steps.display = len(self._samples) > 1
        if not steps.display:
            return
        labels = [f" {compact(sample.step)} " for sample in self._samples]
        first, last = _window([len(label) for label in labels], self._index, max(1, self.size.width - 8))
        earlier = self._earlier_index
        parts = [
            Content.styled(label, "reverse") if index == self._index
            else _link(label, f"screen.sample({index})", "bold underline" if index == earlier else "")
            for index, label in enumerate(labels[first:last], start=first)
        ]  # fmt: skip
        steps.update(Content("").join([_link("◀ ", "screen.travel(-1)"), *parts, _link(" ▶", "screen.travel(1)")]))


def _text(sample: Sampled) -> Content:
    """The prompt, dim, and what the model wrote."""
    prompt, text = sanitize(sample.prompt), sanitize(sample.text).rstrip()
    return Content.assemble((prompt, "$foreground-muted"), (text, "$foreground"))


def _link(text: str, action: str, style: str = "") -> Content:
    return Content.styled(text, style).stylize(Style.from_meta({"@click": action}))


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
