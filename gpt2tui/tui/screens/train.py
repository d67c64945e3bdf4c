"""The Train screen: the run of this process, or one of another process, as it goes on."""

import asyncio
import contextlib
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import ActiveBinding, Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.events import Resize
from textual.style import Style

from gpt2tui import runs
from gpt2tui.errors import Gpt2TuiError
from gpt2tui.runs import Run
from gpt2tui.terminal_text import sanitize
from gpt2tui.tracking.number_format import byte_size, compact
from gpt2tui.training.events import Event, RunFailed, RunFinished, RunStarted
from gpt2tui.tui import train_figures
from gpt2tui.tui.messages import (
    PreparationProgress,
    RunAttached,
    RunOpened,
    SessionChanged,
    TrainingBegun,
    TrainingEvents,
)
from gpt2tui.tui.run_facts import beginning, earlier_view, read_history, run_facts
from gpt2tui.tui.run_follower import RunFollower
from gpt2tui.tui.run_history import SMOOTHINGS
from gpt2tui.tui.run_numbers import scientific
from gpt2tui.tui.run_view import RunView
from gpt2tui.tui.screen_bases import ModeScreen
from gpt2tui.tui.session_state import SessionState
from gpt2tui.tui.train_figures import PLOTS, Comparison, LossOptions, neighbour
from gpt2tui.tui.widgets.dialogs import ConfirmDialog, TextDialog
from gpt2tui.tui.widgets.event_log import EventLog
from gpt2tui.tui.widgets.first_run import FirstRun
from gpt2tui.tui.widgets.key_footer import KeyFooter
from gpt2tui.tui.widgets.line_plot import LinePlot
from gpt2tui.tui.widgets.mode_bar import ModeBar, TrainingStatus
from gpt2tui.tui.widgets.numbers_panel import NumbersPanel, NumbersStrip
from gpt2tui.tui.widgets.run_picker import NOTHING, RunPicker
from gpt2tui.tui.widgets.sample_timeline import SampleTimeline

# One plot a tick: redrawing all at once would hold up a key press, and more often would cost the training time.
TICK_SECONDS = 0.5
DRAIN_SECONDS = 0.25
LOCK_SECONDS = 2.0
_PLOT_HEIGHT = 9  # on a very small screen, a plot is shown from this height on
TRAINING: frozenset[SessionState] = frozenset({"running", "pausing", "paused"})
_LOWER_PLOTS = ("lr", "grad", "tok/s")


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

    CSS_PATH = "train.tcss"

    def __init__(self) -> None:
        super().__init__()
        self.view = RunView()
        """What is on show."""
        self.live: RunView | None = None
        """The training of this process, the last one after its end."""
        self.options = LossOptions()
        self.comparison: Comparison | None = None
        self.lower_plot = "lr"
        self.main_plot = "loss"
        self._waiting_for_history: list[Event] | None = None
        self._follower = RunFollower()
        self._locked = True  # whether the run of another process is held by one
        self._next_plot = 0
        self._drawn = -1
        self._keys: tuple[object, ...] = ()

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
        self._show(self.view)
        self.set_interval(TICK_SECONDS, self._tick)
        self.set_interval(DRAIN_SECONDS, self._drain_follower)
        self.set_interval(LOCK_SECONDS, self._look_at_lock)
        remembered = self.workbench.settings.run
        if remembered and not self.workbench.session.active:
            with contextlib.suppress(Gpt2TuiError):
                run = runs.find(remembered)
                if run.events_file.exists():
                    self._watch_run(run)

    def on_unmount(self) -> None:
        """Lets the thread that follows a file end."""
        self._follower.end()

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
        self._refresh_keys()
        self.call_after_refresh(self._draw)

    # ---- the training of this process

    @on(TrainingBegun)
    def begin(self, message: TrainingBegun) -> None:
        """A training begins: what was on show goes."""
        self._follower.end()
        self.live = RunView(run=message.resumed, waiting="preparing")
        self.live.know(message.loaded.preset, None)
        self._waiting_for_history = [] if message.resumed else None
        self._show(self.live)

    @on(RunOpened)
    def open_run(self, message: RunOpened) -> None:
        """The training has its folder."""
        if self.live is not None:
            self.live.run = message.run

    @on(PreparationProgress)
    def prepare(self, message: PreparationProgress) -> None:
        """Says how far the preparation is, where the curves will be."""
        if self.live is not None:
            stage = sanitize(message.stage, keep_newlines=False)
            self.live.waiting = f"{stage}\n{_how_far(message)}"
            self._changed(self.live)

    @on(TrainingEvents)
    def take_events(self, message: TrainingEvents) -> None:
        """More of the training of this process."""
        if self.live is None:
            self.live = RunView(run=self.workbench.session.run)
            self._show(self.live)
        started = next((event for event in message.events if isinstance(event, RunStarted)), None)
        if started is not None:
            self.live.waiting = "waiting for the first step"
            self.run_worker(self._learn(self.live, started.device, started), group="facts", exit_on_error=True)
        if self._waiting_for_history is not None:
            self._waiting_for_history.extend(message.events)
            return
        self._add(self.live, message.events)

    async def _learn(self, view: RunView, device: str, started: RunStarted | None = None) -> None:
        """Reads what is not in the events, and for a resumed run what was before."""
        run = view.run
        if run is None:
            return
        facts = await asyncio.to_thread(run_facts, run, device)
        view.know(facts.preset or view.preset, facts.train_bytes)
        view.memory_total_bytes = facts.memory_total_bytes
        if started is not None and self._waiting_for_history is not None and view is self.live:
            earlier = await asyncio.to_thread(earlier_view, run, beginning(started))
            view.history, view.log = earlier.history, earlier.log
            view.know(view.preset, view.train_bytes)
            told, self._waiting_for_history = self._waiting_for_history, None
            view.add(told)
            self._show_if_in_front(view)
        self._changed(view)

    @on(SessionChanged)
    def take_state(self, message: SessionChanged) -> None:
        """The keys that act follow the state."""
        if message.state == "failed" and self.live is not None and self.live.history.step is None:
            self.live.waiting = "the training failed"
        self._refresh_keys()
        self._draw()

    # ---- a run of another process

    @on(RunAttached)
    def show_attached(self, message: RunAttached) -> None:
        """Shows a run from its file."""
        self._watch_run(message.run)

    def _watch_run(self, run: Run) -> None:
        self._locked = True
        self._show(RunView(attached=True, run=run, waiting="reading its events"))
        self.run_worker(self._follower.begin(run), thread=True, group="follow", exit_on_error=True)
        self._look_at_lock()

    def _drain_follower(self) -> None:
        found, events = self._follower.drain()
        if not self.view.attached or (found is None and not events):
            return
        started = self.view.history.started
        if found is not None:
            found.say("watch", "its events.jsonl; controls off")
            self._show(found)
        self._add(self.view, events)
        now = self.view.history.started
        if now is not None and now is not started:
            self.run_worker(self._learn(self.view, now.device), group="facts", exit_on_error=True)
        self._tell_status()

    def _look_at_lock(self) -> None:
        if self.view.attached and self.view.run is not None:
            self.run_worker(self._read_lock(self.view, self.view.run), group="lock", exit_on_error=True)

    async def _read_lock(self, view: RunView, run: Run) -> None:
        locked = await asyncio.to_thread(runs.is_locked, run)
        if view is self.view and locked != self._locked:
            self._locked = locked
            self._tell_status()
            self._draw()
            self._refresh_keys()

    def _tell_status(self) -> None:
        """Says on the mode bar where the other process's run is."""
        view, progress = self.view, self.view.history.progress
        if not view.attached or view.run is None:
            self.workbench.attached_status = None
            return
        ending = view.history.ending
        state: SessionState = "running" if self._locked else "failed"
        if isinstance(ending, RunFinished):
            state = "finished"
        elif isinstance(ending, RunFailed):
            state = "failed"
        elif progress.paused and self._locked:
            state = "paused"
        left = progress.seconds_left
        self.workbench.attached_status = TrainingStatus(
            state, view.run.name, progress.step, progress.num_iterations, left
        )

    # ---- drawing

    def _show(self, view: RunView) -> None:
        """Puts a run on show."""
        self.view = view
        empty = view.run is None and view is not self.live
        self.set_class(empty, "-empty")
        self.query_one(FirstRun).disabled = not empty  # or a button that nobody sees would keep the focus
        self.query_one(SampleTimeline).show(view.history.samples)
        self.query_one(EventLog).show(view.log)
        self._tell_status()
        self._refresh_keys()
        self._draw()

    def _show_if_in_front(self, view: RunView) -> None:
        if view is self.view:
            self._show(view)

    def _add(self, view: RunView, events: Sequence[Event]) -> None:
        samples = len(view.history.samples)
        lines = view.add(events)
        if view is not self.view:
            return
        if lines:
            self.query_one(EventLog).add(lines)
        if len(view.history.samples) != samples or any(isinstance(event, RunStarted) for event in events):
            self.query_one(SampleTimeline).show(view.history.samples)
        self._refresh_keys()

    def _changed(self, view: RunView) -> None:
        view.version += 1
        if view is self.view and view.history.step is None:
            self._draw()

    def _tick(self) -> None:
        """Brings the numbers and one of the plots up to date."""
        if not self.is_current or self.has_class("-empty"):
            return
        self._draw_numbers()
        plots = self._visible_plots()
        if self._drawn != self.view.version and plots:
            self._next_plot += 1
            self._draw_plot(plots[self._next_plot % len(plots)])
            if self._next_plot % len(plots) == 0:
                self._drawn = self.view.version

    def _draw(self) -> None:
        """Brings everything up to date at once."""
        if not self.is_mounted or not self.is_current:
            return
        self._draw_numbers()
        for plot in self._visible_plots():
            self._draw_plot(plot)

    def _draw_numbers(self) -> None:
        if self.has_class("-wide"):
            panel = self.query_one(NumbersPanel)
            panel.show(self.view)
            panel.border_title = Content(sanitize(self.view.run.name, keep_newlines=False) if self.view.run else "now")
            panel.border_subtitle = self._attachment
        else:
            self.query_one(NumbersStrip).show(self.view, 1 if self.has_class("-small") else 2)

    @property
    def _attachment(self) -> str:
        """That nothing here controls the run on show, or nothing."""
        if not self.view.attached:
            return ""
        return "attached, controls off" if self._locked else "not training"

    def _visible_plots(self) -> list[str]:
        if self.has_class("-wide"):
            return ["main", "lower", "memory"]
        return ["main"] if self.has_class("-medium") or self.has_class("-plot") else []

    def _draw_plot(self, place: str) -> None:
        wide = self.has_class("-wide")
        plot = {"main": "loss" if wide else self.main_plot, "lower": self.lower_plot, "memory": "memory"}[place]
        widget = self.query_one(f"#{place}", LinePlot)
        widget.figure = train_figures.figure(plot, self.view, self.options, self.comparison)
        widget.border_title = self._title(place, plot)
        widget.tooltip = Content(train_figures.DEFINITIONS[plot])

    def _title(self, place: str, plot: str) -> Content:
        title = Content(train_figures.title(plot, self.options))
        if place == "memory":
            on_device = len(self.view.history.device_memory)
            return Content("GPU memory" if on_device else "memory of the process")
        if place == "main" and self.has_class("-wide"):
            return title
        plots = PLOTS if place == "main" else _LOWER_PLOTS
        tabs = Content(" │ ").join(_tab(name, name == plot) for name in plots)
        hint = self._attachment if place == "main" and self._attachment else "[ ] cycle"
        return Content.assemble(tabs, (f" · {hint}", "$foreground-disabled"))

    # ---- keys

    @property
    def active_bindings(self) -> dict[str, ActiveBinding]:
        """All keys that act now; on a narrow screen the footer leaves out those of the plots."""
        active = super().active_bindings
        if self.has_class("-wide"):
            return active
        return {
            key: found._replace(binding=replace(found.binding, show=found.binding.show and not _wide_only(found)))
            for key, found in active.items()
        }

    def _refresh_keys(self) -> None:
        """Draws the footer anew, when a key has come, gone or changed what it does."""
        layout = next((name for name in ("-wide", "-medium", "-small") if self.has_class(name)), "")
        keys = (
            layout,
            self.workbench.session.state,
            self.view.attached,
            self._locked,
            self.has_class("-empty"),
            self._can_go_on(),
        )
        if keys != self._keys:
            self._keys = keys
            self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Which keys act now; None shows a key dimmed."""
        session = self.workbench.session
        state = session.state
        if action in ("pause", "stop", "request") and (self.view.attached or state not in TRAINING):
            return True if action == "stop" and state == "preparing" and not self.view.attached else self._dim(action)
        if action == "pause":
            return state == "running"
        if action == "resume":
            return state in ("pausing", "paused") and not self.view.attached
        if action == "go_on":
            return self._can_go_on()
        if action == "learning_rate":
            return state in ("pausing", "paused") and not self.view.attached
        if action in ("log_y", "smooth", "compare", "plot", "travel", "filter", "other_pane"):
            return not self.has_class("-empty")
        return super().check_action(action, parameters)

    def _dim(self, action: str) -> bool | None:
        """Controls are shown dimmed while the run on show trains but cannot be controlled, and else not at all."""
        trains = self._locked if self.view.attached else self.workbench.session.active
        if self.has_class("-empty") or not trains or (action == "pause" and self._can_go_on()):
            return False
        return None

    def _can_go_on(self) -> bool:
        """Whether the run on show has ended early and can be resumed here."""
        view = self.view
        if self.workbench.session.active or view.run is None or view.history.checkpoint is None:
            return False
        if view.attached and self._locked:
            return False
        ending = view.history.ending
        return not (isinstance(ending, RunFinished) and ending.reason == "done")

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
        step, factor = self.view.history.step, self.view.history.learning_rate_factor
        now = f"The last step trained at {scientific(step.learning_rate)}. " if step else ""
        text = f"{now}The schedule is multiplied from the next step on by (1: the preset's own):"
        dialog = TextDialog("Learning rate", text, f"{factor:g}", validate=_bad_factor)
        self.app.push_screen(dialog, self._answer_learning_rate)

    def _answer_learning_rate(self, answer: str | None) -> None:
        if answer is not None and _bad_factor(answer) is None:
            self.workbench.session.change_learning_rate(float(answer))

    def action_log_y(self) -> None:
        """A logarithmic loss axis, or a linear one."""
        self.options = LossOptions(not self.options.log_y, self.options.smoothing)
        self._draw()

    def action_smooth(self) -> None:
        """The next smoothing."""
        place = SMOOTHINGS.index(self.options.smoothing) + 1
        self.options = LossOptions(self.options.log_y, SMOOTHINGS[place % len(SMOOTHINGS)])
        self._draw()

    def action_plot(self, by: int) -> None:
        """Another of the plots."""
        if not self.has_class("-wide"):
            self.main_plot = neighbour(PLOTS, self.main_plot, by)
        else:
            self.lower_plot = neighbour(_LOWER_PLOTS, self.lower_plot, by)
        self._draw()

    def action_choose_plot(self, plot: str) -> None:
        """A click on a plot's name."""
        if not self.has_class("-wide") and plot in PLOTS:
            self.main_plot = plot
        elif plot in _LOWER_PLOTS:
            self.lower_plot = plot
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
        elif self.view.attached and self.live is not None:
            self._follower.end()
            self._show(self.live)

    def action_compare(self) -> None:
        """Picks the run to draw beside this one."""
        self.run_worker(self._compare(), group="compare", exclusive=True)

    async def _compare(self) -> None:
        found = await asyncio.to_thread(runs.all_runs)
        others = {run.name: run for run in reversed(found) if self.view.run is None or run.name != self.view.run.name}
        chosen = self.comparison.name if self.comparison else NOTHING
        picker = RunPicker("Compare with", "no comparison", tuple(others), chosen)
        answer = await self.app.push_screen_wait(picker)
        if answer is None:
            return
        self.comparison = None
        if answer in others:
            try:
                self.comparison = Comparison(answer, await asyncio.to_thread(read_history, others[answer]))
            except OSError as error:
                self.workbench.show_error(
                    "The run cannot be compared", f"{others[answer].events_file}: {error.strerror}"
                )
        self._draw()


def _tab(plot: str, shown: bool) -> Content:
    if shown:
        return Content.styled(plot, "bold $text-primary")
    click = Style.from_meta({"@click": f"screen.choose_plot('{plot}')"})
    return Content.styled(plot, "$foreground-muted").stylize(click)


def _wide_only(key: ActiveBinding) -> bool:
    return key.binding.action in ("log_y", "smooth", "compare")


def _how_far(progress: PreparationProgress) -> str:
    def amount(count: int) -> str:
        return byte_size(count) if progress.unit in ("B", "byte", "bytes") else f"{compact(count)} {progress.unit}"

    if not progress.total:
        return amount(progress.done)
    return f"{min(1.0, progress.done / progress.total):.0%} of {amount(progress.total)}"


def _bad_factor(text: str) -> str | None:
    """What is wrong with a factor, None when nothing is."""
    try:
        factor = float(text)
    except ValueError:
        return "a number, such as 0.5"
    return None if math.isfinite(factor) and 0 < factor <= 100 else "more than 0, at most 100"
