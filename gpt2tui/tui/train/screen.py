"""The Train screen: the training of this process or a run of another one, live."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import ClassVar

from textual import on, work
from textual.actions import parse
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.events import Key, Resize

from gpt2tui.errors import Gpt2TuiError, UsageError
from gpt2tui.preset import files as preset_files
from gpt2tui.run import folder as runs
from gpt2tui.run.events import Event, RunFinished, RunStarted
from gpt2tui.run.folder import Run
from gpt2tui.run.requests import Request, send
from gpt2tui.run.worst_passages import read_worst_passages
from gpt2tui.system.numbers import steps_of
from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tui.base import ModeScreen
from gpt2tui.tui.figures import measured_in
from gpt2tui.tui.messages import (
    PreparationAdvanced,
    RunAttached,
    RunOpened,
    SessionChanged,
    TrainingBegun,
    TrainingEvents,
)
from gpt2tui.tui.session import TRAINING
from gpt2tui.tui.train.dialogs import NO_RUN, LearningRateDialog, RunPicker, TrainLongerDialog, whole_number
from gpt2tui.tui.train.feed import RunSource, read_history
from gpt2tui.tui.train.log import EventLog
from gpt2tui.tui.train.numbers import DEFINITIONS, NumbersPanel, NumbersStrip
from gpt2tui.tui.train.plots import DEFINITIONS as PLOTTED
from gpt2tui.tui.train.plots import LOWER_PLACES, Room, TrainPlots, compared_run
from gpt2tui.tui.train.samples import SampleTimeline
from gpt2tui.tui.train.view import CONTROLS, DisplayedRun, RunControl, attached_status
from gpt2tui.tui.train.worst import WorstPassagesDialog
from gpt2tui.tui.widgets.dialogs import ConfirmDialog
from gpt2tui.tui.widgets.first_run import FirstRun
from gpt2tui.tui.widgets.key_footer import KeyFooter
from gpt2tui.tui.widgets.line_plot import INSPECT_KEYS, LinePlot
from gpt2tui.tui.widgets.mode_bar import ModeBar

# One plot a tick: redrawing all at once would hold up a key press, and more often would cost the training time.
TICK_SECONDS = 1.0
DRAIN_SECONDS = 0.25
LOCK_SECONDS = 2.0
PLOT_DEFINITIONS = [(f"{plot} (plot)", text) for plot, text in PLOTTED.items()]
_GRID_WIDTH = 150  # from here on the lower plots are side by side
_PLOT_HEIGHT = 9  # on a very small screen, a plot is shown from this height on
_LOW = 20  # below, the plot, the samples and the log take turns


class TrainScreen(ModeScreen):
    """Plots, numbers, samples and the log of one run. It draws what the app posts and sends requests to the session."""

    AUTO_FOCUS = ""  # so that letters are keys of the screen

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "pause", "Pause", tooltip="wait after this step"),
        Binding("space", "resume", "Resume", tooltip="end the pause"),
        Binding("space", "resume_run", "Resume", tooltip="resume the run from its newest checkpoint"),
        Binding("space", "train_longer", "Train longer", tooltip="more steps, from the newest checkpoint on"),
        Binding("o", "chat", "Chat", tooltip="chat with its best val checkpoint"),
        Binding("x", "stop", "Stop", tooltip="finish the step, save a checkpoint, stop"),
        Binding("k", "request('checkpoint')", "Checkpoint", tooltip="save one after this step"),
        Binding("e", "request('evaluate')", "Evaluate", tooltip="measure the validation loss after this step"),
        Binding("w", "request('sample')", "Sample", show=False, tooltip="generate a sample after this step"),
        Binding("l", "learning_rate", "lr", tooltip="while paused: another learning rate, or a factor on the schedule"),
        Binding("y", "log_y", "Log y", tooltip="logarithmic or linear loss axis"),
        Binding("s", "smooth", "Smooth", tooltip="smoothing of the curves: over 0, 1, 2 or 5 columns"),
        Binding("i", "inspect", "Inspect", show=False, tooltip=INSPECT_KEYS),
        Binding("X", "x_unit", "X axis", show=False, tooltip="steps, tokens or time of training"),
        Binding("c", "compare", "Compare", tooltip="draw another run beside this one"),
        Binding("left_square_bracket", "plot(-1)", "Previous plot", show=False, key_display="["),
        Binding("right_square_bracket", "plot(1)", "Next plot", show=False, key_display="]"),
        Binding("left,less_than_sign", "travel(-1)", "Earlier sample", show=False, key_display="◀"),
        Binding("right,greater_than_sign", "travel(1)", "Later sample", show=False, key_display="▶"),
        Binding(
            "K", "keep_sample", "Keep sample", show=False, tooltip="keep this sample on the left, on a wide screen"
        ),
        Binding("t", "other_pane", "Samples/log", show=False, tooltip="on a small screen: the samples or the log"),
        Binding("W", "worst", "Worst passages", show=False, tooltip="the validation windows with the highest loss"),
        Binding("slash", "filter", "Filter the log", show=False, key_display="/"),
        Binding("escape", "back", "Back", show=False, tooltip="leave a pane, or show this process's training again"),
    ]

    CSS_PATH = "screen.tcss"
    HELP = "\n\n".join(f"{key}: {text}" for key, text in (*DEFINITIONS.items(), *PLOT_DEFINITIONS))

    def __init__(self) -> None:
        super().__init__()
        self.source = RunSource()
        """The run on show and the training of this process."""
        self.plots = TrainPlots(lambda place: self.query_one(f"#{place}", LinePlot))
        self._control_shown: RunControl | None = None

    @property
    def view(self) -> DisplayedRun:
        """The run on show."""
        return self.source.view

    def compose(self) -> ComposeResult:
        """The mode bar, the run on show, the keys."""
        yield ModeBar()
        yield FirstRun(id="first-run")
        with Vertical(id="workspace"):
            yield NumbersStrip(id="strip")
            with Horizontal(id="panes"):
                with Vertical(id="curves"):
                    yield LinePlot(id="main")
                    with Horizontal(id="lower-plots"):
                        for place in LOWER_PLACES:
                            yield LinePlot(id=place, legend=False)
                    yield SampleTimeline(id="samples")
                with Vertical(id="side"):
                    yield NumbersPanel(id="numbers")
                    yield LinePlot(id="memory")
                    yield EventLog(id="log")
        yield KeyFooter()

    def on_mount(self) -> None:
        """Shows the run that was shown last."""
        self._show()
        self.set_interval(TICK_SECONDS, self._tick)
        self.set_interval(DRAIN_SECONDS, self._drain)
        self.set_interval(LOCK_SECONDS, self._check_lock)
        remembered = self.workbench.settings.run
        if remembered and not self.workbench.session.active:
            with contextlib.suppress(Gpt2TuiError):
                run = runs.find(remembered)
                if run.events_file.exists():
                    self._show_attached(run)

    def on_unmount(self) -> None:
        """Ends the thread that reads a file."""
        self.source.end()

    def on_screen_resume(self) -> None:
        """Draws what happened while another mode was in front."""
        self._draw()

    def on_resize(self, event: Resize) -> None:
        """Chooses the layout."""
        width, height = event.size
        self.set_class(height >= _PLOT_HEIGHT, "-plot")
        layout = "small" if width < 60 or height < 16 else "wide" if width >= 100 and height >= 30 else "medium"
        for name in ("wide", "medium", "small"):
            self.set_class(name == layout, f"-{name}")
        grid = layout == "wide" and width >= _GRID_WIDTH
        low = layout == "medium" and height < _LOW
        self.set_class(grid, "-grid")
        self.set_class(low, "-low")
        one: Room = "low" if low else "one" if layout == "medium" or height >= _PLOT_HEIGHT else "none"
        self.plots.room = "grid" if grid else "all" if layout == "wide" else one
        self._refresh_keys()
        self.call_after_refresh(self._draw)

    # ---- the training of this process

    @on(TrainingBegun)
    def begin(self, message: TrainingBegun) -> None:
        """Shows a training that begins."""
        self.source.begin(message.loaded, message.resumed)
        self._show()

    @on(RunOpened)
    def open_run(self, message: RunOpened) -> None:
        """Takes the run folder of the training."""
        if self.source.live is not None:
            self.source.live.run = message.run

    @on(PreparationAdvanced)
    def prepare(self, message: PreparationAdvanced) -> None:
        """Shows the progress of the preparation in place of the curves."""
        if self.source.live is not None:
            stage = sanitize(message.progress.stage, keep_newlines=False)
            self.source.live.waiting = f"{stage}\n{message.amount_done}"
            self._changed(self.source.live)

    @on(TrainingEvents)
    def take_events(self, message: TrainingEvents) -> None:
        """Adds events of this process's training."""
        before = self.view
        events = self.source.receive(message.events, self.workbench.session.run)
        if self.view is not before:
            self._show()
        live = self.source.live
        if live is not None:
            for event in message.events:
                if isinstance(event, RunStarted):
                    self._add_facts(live, event)
            self._add(live, events)

    @work(group="facts")
    async def _add_facts(self, view: DisplayedRun, started: RunStarted) -> None:
        """Reads what is not in the events."""
        has_history = await self.source.add_facts(view, started)
        if has_history and view is self.view:
            self._show()
        self._changed(view)

    @on(SessionChanged)
    def take_state(self, message: SessionChanged) -> None:
        """Enables and disables keys by the state."""
        endings = {"failed": "the training failed", "cancelling": "cancelling", "idle": "the training did not begin"}
        if message.state in endings and self.source.live is not None and self.source.live.history.step is None:
            self.source.live.waiting = endings[message.state]
        self._refresh_keys()
        self._draw()

    # ---- a run of another process

    @on(RunAttached)
    def show_attached(self, message: RunAttached) -> None:
        """Shows a run from its file."""
        self._show_attached(message.run)

    def _show_attached(self, run: Run) -> None:
        read = self.source.attach(run, lambda: self.call_later(self._drain))  # sooner than its turn
        self._show()
        self.run_worker(read, thread=True, group="follow", exit_on_error=True)
        self._check_lock()

    def _drain(self) -> None:
        started = self.view.history.started
        loaded, events = self.source.drain()
        if loaded:
            self._show()
        if loaded or events:
            self._add(self.view, events)
            now = self.view.history.started
            if now is not None and now is not started:
                self._add_facts(self.view, now)
            self._update_status()

    @work(group="lock")
    async def _check_lock(self) -> None:
        if await self.source.check_lock():
            self.query_one(EventLog).show(self.view.log)
            self._update_status()
            self._draw()
            self._refresh_keys()

    def _update_status(self) -> None:
        """Shows the progress of another process's run on the mode bar."""
        state = self.source.attached_state
        self.workbench.attached_status = state and attached_status(self.view, state, self.source.locked)

    # ---- drawing

    def _show(self) -> None:
        """Shows all of the run on show."""
        view = self.view
        self.set_class(self.source.empty, "-empty")
        self.query_one(FirstRun).disabled = not self.source.empty  # or a hidden button keeps the focus
        self.query_one(SampleTimeline).show(view.history.samples, view.takes_requests)
        self.query_one(EventLog).show(view.log)
        self._update_status()
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
            self.query_one(SampleTimeline).show(view.history.samples, view.takes_requests)
        self._refresh_keys()

    def _changed(self, view: DisplayedRun) -> None:
        view.version += 1
        if view is self.view and view.history.step is None:
            self._draw()

    def _tick(self) -> None:
        """Redraws the numbers and one plot."""
        if not self.is_current or self.has_class("-empty"):
            return
        self._draw_numbers()
        self._make_room()
        self.plots.draw_next(self.view, self.source.note)

    def _draw(self) -> None:
        """Redraws everything."""
        if not self.is_mounted or not self.is_current:
            return
        self._draw_numbers()
        self._make_room()
        self.plots.draw(self.view, self.source.note)

    def _make_room(self) -> None:
        """The memory has a plot where a device has its own; elsewhere the number says it all."""
        self.plots.forget_unmeasured(measured_in([self.view.history]))
        self.plots.with_memory = len(self.view.history.device_memory) > 0
        self.set_class(self.plots.with_memory, "-device-memory")

    def _draw_numbers(self) -> None:
        if self.has_class("-wide"):
            panel = self.query_one(NumbersPanel)
            name = sanitize(self.view.run.name, keep_newlines=False) if self.view.run else "now"
            panel.show(self.view, Content(name), Content(self.source.note))
        else:
            self.query_one(NumbersStrip).show(self.view, 1 if self.has_class("-small") else 2)

    # ---- keys

    def _refresh_keys(self) -> None:
        """Rebuilds the footer when other keys are enabled."""
        control = self._control
        if control != self._control_shown:
            self._control_shown = control
            self.refresh_bindings()
        takes = self.view is self.source.live and control.state in TRAINING
        if takes != self.view.takes_requests:
            self.view.takes_requests = takes
            self.query_one(SampleTimeline).show(self.view.history.samples, takes)

    @property
    def _control(self) -> RunControl:
        return RunControl.of(self.view, self.workbench.session.state, not self.source.empty, self.source.locked)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Which keys are enabled; None shows a key dimmed."""
        return self._control.is_enabled(action) and super().check_action(action, parameters)

    def on_key(self, event: Key) -> None:
        """Says why a key does nothing; only those that no action took come here."""
        actions = [parse(b.action)[1] for b in self._bindings.key_to_bindings.get(event.key, ())]
        reasons = [self._control.why_not(action) for action in actions if action in CONTROLS]
        if reasons and not any(self._control.is_enabled(action) for action in actions):
            self.notify(reasons[0], timeout=4, markup=False)

    def action_pause(self) -> None:
        """Pauses after this step."""
        if self.view.attached:
            self._ask("pause", "to pause")
            return
        self.workbench.session.pause()
        self._refresh_keys()

    def action_resume(self) -> None:
        """Ends the pause."""
        if self.view.attached:
            self._ask("continue", "to continue")
            return
        self.workbench.session.resume()
        self._refresh_keys()

    def action_resume_run(self) -> None:
        """Asks, then resumes the run on show from its newest checkpoint."""
        view = self.view
        if view.run is None or view.history.checkpoint is None:
            return
        steps = steps_of(view.history.checkpoint.step, view.history.progress.num_iterations)
        text = f"{view.run.name}: it continues from its newest checkpoint, step {steps}."
        folder = str(view.run.folder)

        def answered(answer: str | None) -> None:
            if answer == "Resume":
                self.workbench.act_on_run(folder, "resume")

        self.app.push_screen(ConfirmDialog("Resume this run?", text, "Resume", "Not now"), answered)

    def action_train_longer(self) -> None:
        """Asks for the new number of steps of a finished run, then resumes it."""
        self.app.push_screen(TrainLongerDialog(self.view), self._answer_train_longer)

    def _answer_train_longer(self, answer: str | None) -> None:
        run, ending = self.view.run, self.view.history.ending
        if answer is None or run is None:
            return
        overrides = [f"training.num_iterations={whole_number(answer)}"]
        if isinstance(ending, RunFinished) and ending.rule:
            overrides.append(f"training.{ending.reason}=auto")  # or it would end again at once
        try:
            loaded = preset_files.load([], overrides, frozen=run.preset_file)
        except Gpt2TuiError as error:
            self.workbench.show_error("The run cannot be trained longer", str(error))
        else:
            self.workbench.start_training(loaded, run, overrides)

    def action_chat(self) -> None:
        """Chats with the best checkpoint of a run that has ended."""
        if self.view.run is not None:
            self.workbench.act_on_run(str(self.view.run.folder), "chat")

    def action_stop(self) -> None:
        """Asks, then stops the training, which saves a checkpoint, or cancels its preparation."""
        if self.workbench.session.state == "preparing" and not self.view.attached:
            text = "Nothing has been trained yet, so nothing is saved. Downloads and prepared text are kept."
            cancel = ConfirmDialog("Cancel the preparation?", text, "Cancel the preparation", "Keep preparing")
            self.app.push_screen(cancel, self._answer_cancel)
            return
        text = "It finishes this step and saves a checkpoint, from which it can be resumed."
        dialog = ConfirmDialog("Stop the training?", text, "Stop and save", "Keep training")
        self.app.push_screen(dialog, self._answer_stop)

    def _answer_cancel(self, answer: str | None) -> None:
        if answer != "Cancel the preparation":
            return
        if self.workbench.session.state == "preparing":
            self.workbench.session.stop()
            self._refresh_keys()
        elif self.workbench.session.active:
            self.action_stop()  # it has begun meanwhile, and there is something to save

    def _answer_stop(self, answer: str | None) -> None:
        if answer != "Stop and save":
            return
        if self.view.attached:
            self._ask("stop", "to stop")
            return
        self.workbench.session.stop()
        self._refresh_keys()

    def action_request(self, what: str) -> None:
        """Requests a checkpoint, an evaluation or a sample after this step."""
        words = {"checkpoint": "a checkpoint", "evaluate": "an evaluation", "sample": "a sample"}
        if self.view.attached:
            self._ask(what, f"for {words[what]}")
        elif what in words and self.workbench.session.request(what):  # type: ignore[arg-type]
            self.notify(f"{words[what]} after this step", timeout=2, markup=False)

    @work(group="request")
    async def _ask(self, request: Request, words: str) -> None:
        """Asks the process that trains the attached run; its answer is an event, as all that it does."""
        if self.view.run is None:
            return
        try:
            await asyncio.to_thread(send, self.view.run, request)
        except Gpt2TuiError as error:
            self.notify(sanitize(str(error)), severity="warning", markup=False)
        else:
            self.notify(f"asked its process {words}", timeout=2, markup=False)

    def action_learning_rate(self) -> None:
        """Asks for a factor on the learning-rate schedule from the next step on."""
        self.app.push_screen(LearningRateDialog(self.view), self._answer_learning_rate)

    def _answer_learning_rate(self, answer: str | None) -> None:
        if answer is not None and not self.workbench.session.change_learning_rate(float(answer)):
            text = "only a run in one process changes it while it trains: stop this one, and resume it with another"
            self.notify(f"{text} optimizer.lr", severity="warning", markup=False)

    def action_log_y(self) -> None:
        """Switches the loss axis between logarithmic and linear."""
        self.plots.toggle_log()
        self._draw()

    def action_inspect(self) -> None:
        """The cursor in the main plot."""
        self.query_one("#main", LinePlot).focus()

    @on(LinePlot.Moved)
    def follow_view(self, message: LinePlot.Moved) -> None:
        """All plots show the same part of the run and the same cursor."""
        message.stop()
        for plot in self.query(LinePlot):
            plot.view = message.view

    def action_x_unit(self) -> None:
        """Draws the curves over steps, tokens or time."""
        self.plots.next_x_unit()
        self._draw()

    def action_smooth(self) -> None:
        """Smooths the loss with the next factor."""
        self.plots.next_smoothing()
        self._draw()

    def action_plot(self, by: int) -> None:
        """Shows the next plot, or the previous one."""
        self.plots.next_plot(by)
        self._draw()

    def action_choose_plot(self, plot: str) -> None:
        """Shows a plot whose name was clicked."""
        self.plots.choose(plot)
        self._draw()

    def action_travel(self, by: int) -> None:
        """Shows a later sample, or an earlier one."""
        if self._show_samples():
            self.query_one(SampleTimeline).travel(by)

    def _show_samples(self) -> bool:
        """Shows the samples where there is no room for all panes; returns whether they were on show before."""
        if self.has_class("-wide"):
            return True
        low = self.has_class("-low")
        shown = not self.has_class("-log") and self.has_class("-samples") == low
        self.remove_class("-log")
        self.set_class(low, "-samples")
        return shown

    def action_keep_sample(self) -> None:
        """Keeps the sample on show on the left, while others are on show beside it; or no longer."""
        if not self.has_class("-grid"):
            self.notify("two samples are side by side from 150 columns on", timeout=4, markup=False)
        else:
            self.query_one(SampleTimeline).keep()

    def action_sample(self, index: int) -> None:
        """Shows a sample whose step was clicked."""
        self.query_one(SampleTimeline).go(index)

    def action_other_pane(self) -> None:
        """On a small screen: switches between the samples and the log, on a low one between these and the plot."""
        if self.has_class("-low") and not self.has_class("-log"):
            if not self._show_samples():
                return
        elif self.has_class("-low"):
            self.remove_class("-samples")
        self.toggle_class("-log")

    def action_filter(self) -> None:
        """Opens the filter of the log."""
        self.add_class("-log")
        self.query_one(EventLog).open_filter()

    def action_back(self) -> None:
        """Leaves a pane, or shows the training of this process again."""
        if self.focused is not None:
            self.set_focus(None)
        elif self.has_class("-low") and (self.has_class("-samples") or self.has_class("-log")):
            self.remove_class("-samples", "-log")
        elif self.source.detach():
            self._show()

    @work(group="worst", exclusive=True)
    async def action_worst(self) -> None:
        """Shows the validation windows with the highest loss at the last evaluation of the run on show."""
        if self.view.run is None:
            return
        try:
            worst = await asyncio.to_thread(read_worst_passages, self.view.run)
        except UsageError as error:
            self.notify(sanitize(str(error)), markup=False)
            return
        self.app.push_screen(WorstPassagesDialog(worst))

    @work(group="compare", exclusive=True)
    async def action_compare(self) -> None:
        """Asks for the run to draw beside this one."""
        found = await asyncio.to_thread(runs.all_runs)
        others = {run.name: run for run in reversed(found) if self.view.run is None or run.name != self.view.run.name}
        chosen = self.plots.compared.name if self.plots.compared else NO_RUN
        answer = await self.app.push_screen_wait(RunPicker("Compare with", "no comparison", tuple(others), chosen))
        if answer is None:
            return
        self.plots.compared = None
        if answer in others:
            try:
                self.plots.compared = compared_run(answer, await asyncio.to_thread(read_history, others[answer]))
            except OSError as error:
                text = f"{others[answer].events_file}: {error.strerror}"
                self.workbench.show_error("The run cannot be compared", text)
        self._draw()
