"""The Train screen: the run of this process, or one of another process, as it goes on."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.events import Resize

from gpt2tui.errors import Gpt2TuiError
from gpt2tui.run import folder as runs
from gpt2tui.run.events import Event, RunStarted
from gpt2tui.run.folder import Run
from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tui.base import ModeScreen
from gpt2tui.tui.messages import (
    PreparationProgress,
    RunAttached,
    RunOpened,
    SessionChanged,
    TrainingBegun,
    TrainingEvents,
)
from gpt2tui.tui.train.dialogs import NO_RUN, LearningRateDialog, RunPicker
from gpt2tui.tui.train.feed import RunSource, read_history
from gpt2tui.tui.train.log import EventLog
from gpt2tui.tui.train.numbers import NumbersPanel, NumbersStrip
from gpt2tui.tui.train.plots import Comparison, TrainPlots
from gpt2tui.tui.train.samples import SampleTimeline
from gpt2tui.tui.train.view import DisplayedRun, RunControl, attached_status
from gpt2tui.tui.widgets.dialogs import ConfirmDialog
from gpt2tui.tui.widgets.first_run import FirstRun
from gpt2tui.tui.widgets.key_footer import KeyFooter
from gpt2tui.tui.widgets.line_plot import LinePlot
from gpt2tui.tui.widgets.mode_bar import ModeBar

# One plot a tick: redrawing all at once would hold up a key press, and more often would cost the training time.
TICK_SECONDS = 1.0
DRAIN_SECONDS = 0.25
LOCK_SECONDS = 2.0
_PLOT_HEIGHT = 9  # on a very small screen, a plot is shown from this height on


class TrainScreen(ModeScreen):
    """Plots, numbers, samples and the log of one run. Reads what the app posts; asks the session for changes."""

    AUTO_FOCUS = ""  # letters act on the training until one goes into a pane

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "pause", "Pause", tooltip="wait after this step"),
        Binding("space", "resume", "Resume", tooltip="train on after a pause"),
        Binding("space", "go_on", "Go on", tooltip="resume the run from its newest checkpoint"),
        Binding("x", "stop", "Stop", tooltip="finish the step, save a checkpoint, end"),
        Binding("k", "request('checkpoint')", "Checkpoint", tooltip="save one after this step"),
        Binding("e", "request('evaluate')", "Evaluate", tooltip="measure the held-out loss after this step"),
        Binding("w", "request('sample')", "Write", show=False, tooltip="let the model write a sample after this step"),
        Binding("l", "learning_rate", "lr", tooltip="while paused: multiply the schedule by a factor"),
        Binding("y", "log_y", "Log y", tooltip="logarithmic or linear loss axis"),
        Binding("s", "smooth", "Smooth", tooltip="smoothing of the loss: 0, 0.5, 0.9, 0.99"),
        Binding("c", "compare", "Compare", tooltip="draw another run beside this one"),
        Binding("left_square_bracket", "plot(-1)", "Plot before", show=False, key_display="["),
        Binding("right_square_bracket", "plot(1)", "Next plot", show=False, key_display="]"),
        Binding("left,less_than_sign", "travel(-1)", "Earlier sample", show=False, key_display="◀"),
        Binding("right,greater_than_sign", "travel(1)", "Later sample", show=False, key_display="▶"),
        Binding("t", "other_pane", "Samples/log", show=False, tooltip="on a narrow screen: the samples or the log"),
        Binding("slash", "filter", "Filter the log", show=False, key_display="/"),
        Binding("escape", "back", "Back", show=False, tooltip="leave a pane, or go back to this process's training"),
    ]

    CSS_PATH = "screen.tcss"

    def __init__(self) -> None:
        super().__init__()
        self.feed = RunSource()
        """What is on show, and what else is told of."""
        self.plots = TrainPlots(lambda place: self.query_one(f"#{place}", LinePlot))
        self._control_shown: RunControl | None = None

    @property
    def view(self) -> DisplayedRun:
        """The run on show."""
        return self.feed.view

    def compose(self) -> ComposeResult:
        """The mode bar, what is on show, the keys."""
        yield ModeBar()
        yield FirstRun(id="first-run")
        with Vertical(id="workspace"):
            yield NumbersStrip(id="strip")
            with Horizontal(id="top"):
                with Vertical(id="plots"):
                    yield LinePlot(id="main")
                    yield LinePlot(id="lower", legend=False)
                with Vertical(id="side"):
                    yield NumbersPanel(id="numbers")
                    yield LinePlot(id="memory")
            with Horizontal(id="bottom"):
                yield SampleTimeline(id="samples")
                yield EventLog(id="log")
        yield KeyFooter()

    def on_mount(self) -> None:
        """Shows the run that was shown last, until another one is told of."""
        self._show()
        self.set_interval(TICK_SECONDS, self._tick)
        self.set_interval(DRAIN_SECONDS, self._drain)
        self.set_interval(LOCK_SECONDS, self._look_at_lock)
        remembered = self.workbench.settings.run
        if remembered and not self.workbench.session.active:
            with contextlib.suppress(Gpt2TuiError):
                run = runs.find(remembered)
                if run.events_file.exists():
                    self._watch_run(run)

    def on_unmount(self) -> None:
        """Lets the thread that follows a file end."""
        self.feed.end()

    def on_screen_resume(self) -> None:
        """What happened while another mode was in front."""
        self._draw()

    def on_resize(self, event: Resize) -> None:
        """Chooses the layout."""
        width, height = event.size
        self.set_class(height >= _PLOT_HEIGHT, "-plot")
        layout = "small" if width < 60 or height < 16 else "wide" if width >= 100 and height >= 30 else "medium"
        for name in ("wide", "medium", "small"):
            self.set_class(name == layout, f"-{name}")
        one = layout == "medium" or height >= _PLOT_HEIGHT
        self.plots.room = "all" if layout == "wide" else "one" if one else "none"
        self._refresh_keys()
        self.call_after_refresh(self._draw)

    # ---- the training of this process

    @on(TrainingBegun)
    def begin(self, message: TrainingBegun) -> None:
        """A training begins: what was on show goes."""
        self.feed.begin(message.loaded, message.resumed)
        self._show()

    @on(RunOpened)
    def open_run(self, message: RunOpened) -> None:
        """The training has its folder."""
        if self.feed.live is not None:
            self.feed.live.run = message.run

    @on(PreparationProgress)
    def prepare(self, message: PreparationProgress) -> None:
        """Says how far the preparation is, where the curves will be."""
        if self.feed.live is not None:
            stage = sanitize(message.stage, keep_newlines=False)
            self.feed.live.waiting = f"{stage}\n{message.how_far}"
            self._changed(self.feed.live)

    @on(TrainingEvents)
    def take_events(self, message: TrainingEvents) -> None:
        """More of the training of this process."""
        before = self.view
        events = self.feed.receive(message.events, self.workbench.session.run)
        if self.view is not before:
            self._show()
        live = self.feed.live
        if live is not None:
            for event in message.events:
                if isinstance(event, RunStarted):
                    self._learn(live, event)
            self._add(live, events)

    @work(group="facts")
    async def _learn(self, view: DisplayedRun, started: RunStarted) -> None:
        """Reads what is not in the events."""
        has_history = await self.feed.learn(view, started)
        if has_history and view is self.view:
            self._show()
        self._changed(view)

    @on(SessionChanged)
    def take_state(self, message: SessionChanged) -> None:
        """The keys that act follow the state."""
        if message.state == "failed" and self.feed.live is not None and self.feed.live.history.step is None:
            self.feed.live.waiting = "the training failed"
        self._refresh_keys()
        self._draw()

    # ---- a run of another process

    @on(RunAttached)
    def show_attached(self, message: RunAttached) -> None:
        """Shows a run from its file."""
        self._watch_run(message.run)

    def _watch_run(self, run: Run) -> None:
        follow = self.feed.attach(run)
        self._show()
        self.run_worker(follow, thread=True, group="follow", exit_on_error=True)
        self._look_at_lock()

    def _drain(self) -> None:
        started = self.view.history.started
        found, events = self.feed.drain()
        if found:
            self._show()
        if found or events:
            self._add(self.view, events)
            now = self.view.history.started
            if now is not None and now is not started:
                self._learn(self.view, now)
            self._tell_status()

    @work(group="lock")
    async def _look_at_lock(self) -> None:
        if await self.feed.look_at_lock():
            self._tell_status()
            self._draw()
            self._refresh_keys()

    def _tell_status(self) -> None:
        """Says on the mode bar where the other process's run is."""
        self.workbench.attached_status = attached_status(self.view, self.feed.locked)

    # ---- drawing

    def _show(self) -> None:
        """Shows all of the run on show."""
        view = self.view
        self.set_class(self.feed.empty, "-empty")
        self.query_one(FirstRun).disabled = not self.feed.empty  # or a button that nobody sees would keep the focus
        self.query_one(SampleTimeline).show(view.history.samples)
        self.query_one(EventLog).show(view.log)
        self._tell_status()
        self._refresh_keys()
        self._draw()

    def _add(self, view: DisplayedRun, events: Sequence[Event]) -> None:
        samples = len(view.history.samples)
        lines = view.add(events)
        if view is not self.view:
            return
        if lines:
            self.query_one(EventLog).add(lines)
        if len(view.history.samples) != samples or any(isinstance(event, RunStarted) for event in events):
            self.query_one(SampleTimeline).show(view.history.samples)
        self._refresh_keys()

    def _changed(self, view: DisplayedRun) -> None:
        view.version += 1
        if view is self.view and view.history.step is None:
            self._draw()

    def _tick(self) -> None:
        """Brings the numbers and one of the plots up to date."""
        if not self.is_current or self.has_class("-empty"):
            return
        self._draw_numbers()
        self.plots.draw_next(self.view, self.feed.note)

    def _draw(self) -> None:
        """Brings everything up to date at once."""
        if not self.is_mounted or not self.is_current:
            return
        self._draw_numbers()
        self.plots.draw(self.view, self.feed.note)

    def _draw_numbers(self) -> None:
        if self.has_class("-wide"):
            panel = self.query_one(NumbersPanel)
            name = sanitize(self.view.run.name, keep_newlines=False) if self.view.run else "now"
            panel.show(self.view, Content(name), Content(self.feed.note))
        else:
            self.query_one(NumbersStrip).show(self.view, 1 if self.has_class("-small") else 2)

    # ---- keys

    def _refresh_keys(self) -> None:
        """Draws the footer anew, when a key has come, gone or changed what it does."""
        control = self._control
        if control != self._control_shown:
            self._control_shown = control
            self.refresh_bindings()

    @property
    def _control(self) -> RunControl:
        return RunControl.of(self.view, self.workbench.session.state, not self.feed.empty, self.feed.locked)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Which keys act now; None shows a key dimmed."""
        return self._control.acts(action) and super().check_action(action, parameters)

    def action_pause(self) -> None:
        """Waits after this step."""
        self.workbench.session.pause()
        self._refresh_keys()

    def action_resume(self) -> None:
        """Trains on."""
        self.workbench.session.resume()
        self._refresh_keys()

    def action_go_on(self) -> None:
        """Resumes the run on show from its newest checkpoint."""
        if self.view.run is not None:
            self.workbench.act_on_run(str(self.view.run.folder), "resume")

    def action_stop(self) -> None:
        """Asks, then ends the training with a checkpoint."""
        text = "It finishes this step and saves a checkpoint; it can go on from there later."
        self.app.push_screen(ConfirmDialog("Stop the training?", text, "Stop and save", "Train on"), self._answer_stop)

    def _answer_stop(self, answer: str | None) -> None:
        if answer == "Stop and save":
            self.workbench.session.stop()
            self._refresh_keys()

    def action_request(self, what: str) -> None:
        """Saves, evaluates or writes after this step."""
        words = {"checkpoint": "a checkpoint", "evaluate": "an evaluation", "sample": "a sample"}
        if what in words and self.workbench.session.request(what):  # type: ignore[arg-type]
            self.notify(f"{words[what]} after this step", timeout=2, markup=False)

    def action_learning_rate(self) -> None:
        """Asks for a factor on the schedule, which holds from the next step on."""
        self.app.push_screen(LearningRateDialog(self.view), self._answer_learning_rate)

    def _answer_learning_rate(self, answer: str | None) -> None:
        if answer is not None:
            self.workbench.session.change_learning_rate(float(answer))

    def action_log_y(self) -> None:
        """A logarithmic loss axis, or a linear one."""
        self.plots.switch_log()
        self._draw()

    def action_smooth(self) -> None:
        """The next smoothing."""
        self.plots.smooth_more()
        self._draw()

    def action_plot(self, by: int) -> None:
        """Another of the plots."""
        self.plots.step(by)
        self._draw()

    def action_choose_plot(self, plot: str) -> None:
        """A click on a plot's name."""
        self.plots.choose(plot)
        self._draw()

    def action_travel(self, by: int) -> None:
        """Another sample."""
        self.query_one(SampleTimeline).travel(by)

    def action_sample(self, index: int) -> None:
        """A click on the step of a sample."""
        self.query_one(SampleTimeline).go(index)

    def action_other_pane(self) -> None:
        """On a narrow screen: the log instead of the samples, and back."""
        self.toggle_class("-log")

    def action_filter(self) -> None:
        """Looks for words in the log."""
        self.add_class("-log")
        self.query_one(EventLog).open_filter()

    def action_back(self) -> None:
        """Leaves a pane; else shows the training of this process again."""
        if self.focused is not None:
            self.set_focus(None)
        elif self.feed.detach():
            self._show()

    @work(group="compare", exclusive=True)
    async def action_compare(self) -> None:
        """Picks the run to draw beside this one."""
        found = await asyncio.to_thread(runs.all_runs)
        others = {run.name: run for run in reversed(found) if self.view.run is None or run.name != self.view.run.name}
        chosen = self.plots.comparison.name if self.plots.comparison else NO_RUN
        answer = await self.app.push_screen_wait(RunPicker("Compare with", "no comparison", tuple(others), chosen))
        if answer is None:
            return
        self.plots.comparison = None
        if answer in others:
            try:
                self.plots.comparison = Comparison(answer, await asyncio.to_thread(read_history, others[answer]))
            except OSError as error:
                text = f"{others[answer].events_file}: {error.strerror}"
                self.workbench.show_error("The run cannot be compared", text)
        self._draw()
