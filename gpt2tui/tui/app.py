"""The workbench: four modes that keep their state, and what outlives each of them."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.events import Event, Paste
from textual.filter import LineFilter
from textual.message import Message
from textual.reactive import var
from textual.screen import ModalScreen, Screen
from textual.worker import WorkerFailed

from gpt2tui.errors import Gpt2TuiError
from gpt2tui.launch import Launch
from gpt2tui.run.events import CheckpointSaved
from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tui.base import Workbench
from gpt2tui.tui.messages import (
    PreparationProgress,
    RunAttached,
    RunOpened,
    RunsChanged,
    SessionChanged,
    TrainingBegun,
    TrainingEvents,
)
from gpt2tui.tui.palette import WorkbenchCommands
from gpt2tui.tui.session import TrainingSession
from gpt2tui.tui.settings import UserSettings
from gpt2tui.tui.terminal import ControlFilter, log_file
from gpt2tui.tui.widgets.dialogs import ConfirmDialog, ErrorDialog
from gpt2tui.tui.widgets.key_footer import KeyFooter
from gpt2tui.tui.widgets.mode_bar import MODES, ModeBar, TrainingStatus

# Nothing here may import presets or runs before the first paint: pydantic alone takes as long as all else.
if TYPE_CHECKING:
    from gpt2tui.preset.files import LoadedPreset
    from gpt2tui.run.folder import Run

DRAIN_SECONDS = 0.25
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
log = logging.getLogger(__name__)


def _presets_screen() -> Screen[Any]:
    from gpt2tui.tui.presets.screen import PresetsScreen

    return PresetsScreen()


def _train_screen() -> Screen[Any]:
    from gpt2tui.tui.train.screen import TrainScreen

    return TrainScreen()


def _chat_screen() -> Screen[Any]:
    from gpt2tui.tui.chat.screen import ChatScreen

    return ChatScreen()


def _runs_screen() -> Screen[Any]:
    from gpt2tui.tui.runs.screen import RunsScreen

    return RunsScreen()


class WorkbenchApp(App[int]):
    """What outlives a screen: the training, the settings, the way out."""

    TITLE = "gpt2tui"
    COMMAND_PALETTE_DISPLAY = "^p"
    CSS_PATH = Path(__file__).with_name("app.tcss")
    # A mode's screen is made, and its module imported, when one first goes there.
    MODES: ClassVar[dict[str, str | Callable[[], Screen[Any]]]] = {
        "presets": _presets_screen,
        "train": _train_screen,
        "chat": _chat_screen,
        "runs": _runs_screen,
    }
    COMMANDS = App.COMMANDS | {WorkbenchCommands}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1", "go('presets')", "Presets", show=False),
        Binding("2", "go('train')", "Train", show=False),
        Binding("3", "go('chat')", "Chat", show=False),
        Binding("4", "go('runs')", "Runs", show=False),
        Binding("f2", "go('presets')", "Presets", show=False, priority=True),
        Binding("f3", "go('train')", "Train", show=False, priority=True),
        Binding("f4", "go('chat')", "Chat", show=False, priority=True),
        Binding("f7", "go('runs')", "Runs", show=False, priority=True),
        Binding("question_mark", "help", "Help", key_display="?"),
        Binding("f1", "help", "Help", show=False),
        Binding("ctrl+q", "quit", "Quit", priority=True, key_display="^q"),
    ]

    training_status: var[TrainingStatus] = var(TrainingStatus())  # `reactive` would draw the whole screen anew
    """What the mode bar shows."""

    attached_status: TrainingStatus | None = None
    """Set by the Train screen while it shows a run of another process; shown when no training is under way here."""

    def __init__(
        self,
        *,
        session: TrainingSession | None = None,
        settings: UserSettings | None = None,
        preset: "LoadedPreset | None" = None,
        launch: Launch | None = None,
        attach: "Run | None" = None,
        run_dir: Path | None = None,
    ) -> None:
        """`preset` is shown first, `launch` trained at once, `attach` watched; the first new run goes to `run_dir`."""
        super().__init__()
        self.session = session or TrainingSession()
        self.settings = settings or UserSettings()
        self.preselected = preset
        """The preset of the command line, for the Presets screen to open when it comes up."""
        self._first_launch = launch
        self._first_attach = attach
        self._run_dir = run_dir
        self._for_train: list[Message] = []
        self._leaving: int | None = None  # the exit code once the training has ended
        self._control_filter = ControlFilter()
        if self.settings.theme in self.available_themes:
            self.theme = self.settings.theme

    # ---- coming and going

    async def on_mount(self) -> None:
        """Opens what was open last, listens to signals, and begins to follow the training."""
        self._listen_to_signals()
        self.set_interval(DRAIN_SECONDS, self._follow_session)
        # Not before the first paint: making the first mode's screen takes as long as everything until then.
        self.call_after_refresh(self._open_first_mode)

    async def _open_first_mode(self) -> None:
        mode = self.settings.mode if self.settings.mode in MODES else "train"
        if self.preselected is not None:
            mode = "presets"
        if self.current_mode not in MODES:  # else a key has been faster
            await self.switch_mode(mode)
        if self._first_launch is not None:
            self.begin(self._first_launch)
        elif self._first_attach is not None:
            self.attach_run(self._first_attach)

    def compose(self) -> ComposeResult:
        """What is there at once, until the first mode has come up."""
        yield ModeBar()
        yield KeyFooter()

    # ---- text that is not ours

    def get_line_filters(self) -> Sequence[LineFilter]:
        """What every line goes through before the terminal has it."""
        return [*super().get_line_filters(), self._control_filter]

    async def on_event(self, event: Event) -> None:
        """Makes what is pasted harmless, wherever it goes: an input shows all that it is given."""
        if isinstance(event, Paste) and not event.is_forwarded:
            # Terminals send the ends of pasted lines as the Enter key would.
            event.text = sanitize(event.text.replace("\r\n", "\n").replace("\r", "\n"))
        await super().on_event(event)

    def _listen_to_signals(self) -> None:
        # Python's own handling would end the process in the alternate screen, with mouse reporting on.
        for name in SIGNALS:
            number = getattr(signal, name, None)
            if number is not None:
                with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
                    asyncio.get_running_loop().add_signal_handler(number, partial(self.leave, 128 + number))

    def leave(self, exit_code: int = 0) -> None:
        """Ends the program once a training that is under way has saved a checkpoint; asked again, at once."""
        if self._leaving is not None and exit_code == 0:
            self.exit(return_code=self._leaving)
            return
        self._leaving = exit_code
        self.session.stop()
        if not self.session.active:
            self.exit(return_code=exit_code)
            return
        self._update_status()
        self.notify("saving a checkpoint, then leaving; ^q again leaves at once", timeout=30, markup=False)

    async def action_quit(self) -> None:
        """Leaves; asks first when a training runs or a screen has something unsaved."""
        if self._leaving is not None:
            self.leave()
        elif isinstance(self.screen, QuitDialog):
            return
        elif self.session.active:
            self.push_screen(QuitDialog(), self._answer_quit)
        elif (unsaved := self._unsaved()) is not None:
            self.push_screen(UnsavedDialog(unsaved), lambda answer: self.leave() if answer == "!Leave" else None)
        else:
            self.leave()

    def _answer_quit(self, answer: str | None) -> None:
        if answer == QuitDialog.STOP:
            self.leave()

    def _unsaved(self) -> str | None:
        """What would be lost; a screen says so in its `unsaved_changes()`."""
        for mode in MODES:
            screen = self.screen_of(mode)
            unsaved: str | None = getattr(screen, "unsaved_changes", lambda: None)()
            if unsaved:
                return unsaved
        return None

    def _handle_exception(self, error: Exception) -> None:
        # A worker that fails is a dialog, not the end; whatever else fails in Textual still ends the app.
        if isinstance(error, WorkerFailed):
            log.error("a worker failed", exc_info=error.error)
            self.show_error("Something went wrong", f"{type(error.error).__name__}: {error.error}")
            return
        log.error("the workbench ended on a bug", exc_info=error)
        super()._handle_exception(error)

    # ---- what screens ask for

    def start_training(self, loaded: "LoadedPreset", resume: "Run | None" = None) -> None:
        """Trains a preset in a new run, or goes on with a run; refuses with a notice while one is running."""
        self.begin(Launch(loaded, resume, None if resume else self._run_dir))

    def begin(self, launch: Launch) -> None:
        """Starts a training and shows it."""
        try:
            self.session.start(launch)
        except Gpt2TuiError as error:
            self.notify(sanitize(str(error)), title="Not started", severity="warning", markup=False)
            return
        if launch.run_dir is not None:
            self._run_dir = None
        self.attached_status = None
        self._tell_train(TrainingBegun(launch.loaded, launch.resume))
        self._follow_session()
        self.action_go("train")

    def open_chat(self, reference: str | None) -> None:
        """Shows the Chat screen with a CHECKPOINT, or with the live weights (None)."""
        self._go_and("chat", "select_model", reference)

    def attach_run(self, run: "Run") -> None:
        """Shows a run on the Train screen from its events.jsonl; one of this process is simply shown."""
        if not (self.session.active and self.session.run == run):
            self._tell_train(RunAttached(run))
        self.settings.remember("run", run.name)
        self.action_go("train")

    def show_error(self, title: str, message: str) -> None:
        """A dialog with what happened and where the log is."""
        log.warning("%s: %s", title, message)
        if isinstance(self.screen, ErrorDialog):  # one at a time; the log has them all
            title = sanitize(title, keep_newlines=False)
            self.notify(sanitize(message), title=title, severity="error", markup=False)
            return
        self.push_screen(ErrorDialog(title, message, str(log_file())))

    def screen_of(self, mode: str) -> Screen[Any] | None:
        """The screen of a mode, None while one has not been there yet."""
        try:
            stack: Sequence[Screen[Any]] = self.get_screen_stack(mode)
        except KeyError:
            return None
        return stack[0] if stack else None

    # ---- following the training

    def _follow_session(self) -> None:
        drained = self.session.drain()
        if drained.opened is not None:
            self._tell_train(RunOpened(drained.opened.run))
            self.settings.remember("run", drained.opened.run.name)
        if (latest := drained.progress) is not None:
            self._tell_train(PreparationProgress(latest.stage, latest.done, latest.total, latest.unit))
        if drained.events:
            self._tell_train(TrainingEvents(drained.events))
        if drained.state_changed:
            self._tell_train(SessionChanged(self.session.state))
            for shown in self.screen_stack[-1:]:  # none while a mode's screen is exchanged
                if self.screen_of("train") is not shown:
                    shown.post_message(SessionChanged(self.session.state))
            if self.session.state == "failed":
                self._explain_failure()
        if drained.opened or drained.state_changed or any(isinstance(e, CheckpointSaved) for e in drained.events):
            for mode in ("runs", "chat"):
                if (screen := self.screen_of(mode)) is not None:
                    screen.post_message(RunsChanged())
        self._flush_train()
        self._update_status()
        if self._leaving is not None and not self.session.active:
            self.exit(return_code=self._leaving)

    def _tell_train(self, message: Message) -> None:
        """Keeps the order for a screen that may not be there yet."""
        self._for_train.append(message)
        self._flush_train()

    def _flush_train(self) -> None:
        screen = self.screen_of("train")
        if screen is not None and screen.is_mounted:
            for message in self._for_train:
                screen.post_message(message)
            self._for_train.clear()

    def _update_status(self) -> None:
        session, progress = self.session, self.session.progress
        if not session.active and self.attached_status is not None:
            self.training_status = self.attached_status
            return
        preparing = session.preparation
        self.training_status = TrainingStatus(
            state=session.state,
            run=session.run.name if session.run else session.loaded.name if session.loaded else "",
            step=progress.step,
            num_iterations=progress.num_iterations,
            seconds_left=progress.seconds_left,
            preparation=preparing.stage if preparing else "",
        )

    def _explain_failure(self) -> None:
        failure, slower = self.session.failure, self.session.half_speed()
        if failure is None or self._leaving is not None:
            return
        if slower is None:
            self.show_error("Training failed", failure.message)
            return
        text = f"{failure.message}\n\nGo on from the newest checkpoint at half the learning rate?"
        dialog = ConfirmDialog("Training diverged", text, "Resume at half", "Leave it")
        self.push_screen(dialog, lambda answer: self.begin(slower) if answer == "Resume at half" else None)

    # ---- actions

    def action_go(self, mode: str) -> None:
        """Shows a mode, before any other key is looked at: a dialog that one asks for belongs to what is in front."""
        self.settings.remember("mode", mode)
        self.switch_mode(mode)

    def _go_and(self, mode: str, method: str, argument: object) -> None:
        """Shows a mode and, once its screen is there, calls a method of it."""
        self.settings.remember("mode", mode)
        mounted = self.switch_mode(mode)

        async def call() -> None:
            await mounted
            if (found := getattr(self.screen_of(mode), method, None)) is not None:
                found(argument)

        self.call_later(call)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """A dialog has to be answered before one goes elsewhere."""
        return not (action in ("go", "help") and isinstance(self.screen, ModalScreen))

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """What the palette has from Textual; the rest is in `WorkbenchCommands`."""
        yield SystemCommand("Theme", "Choose the colours; they are remembered", self.search_themes)
        yield SystemCommand("Help", "The keys of this screen, and what its numbers mean · ?", self.action_help)
        yield SystemCommand("Screenshot", "Save this screen as an SVG picture", self.deliver_screenshot)
        yield SystemCommand("Quit", "A training that runs saves first · ^q", self.action_quit)

    def action_help(self) -> None:
        """Shows the keys of this screen and of the app."""
        from gpt2tui.tui.help import HelpScreen

        self.push_screen(HelpScreen(self.screen))

    def action_train_small(self) -> None:
        """Trains the shipped small preset."""
        self.train_preset("small")

    def train_preset(self, name: str) -> None:
        """Trains a preset by name as it is on disk."""
        from gpt2tui.preset import files as preset_files

        try:
            loaded = preset_files.load([name])
        except Gpt2TuiError as error:
            self.show_error(f"The preset {name} cannot be trained", str(error))
            return
        self.start_training(loaded)

    def open_preset(self, name: str) -> None:
        """Shows a preset in the form."""
        self._go_and("presets", "select_preset", name)

    def act_on_run(self, name: str, what: Literal["attach", "chat", "resume"]) -> None:
        """Shows, talks to or goes on with a run by name."""
        from gpt2tui.preset import files as preset_files
        from gpt2tui.run import folder as runs

        try:
            run = runs.find(name)
            if what == "attach":
                self.attach_run(run)
            elif what == "chat":
                self.open_chat(str(run.folder))
            else:
                self.start_training(preset_files.check(run.preset_file), resume=run)
        except Gpt2TuiError as error:
            self.show_error(f"The run {name}", str(error))

    def watch_theme(self, theme: str) -> None:
        """Remembers the theme."""
        if self.is_running:
            self.settings.remember("theme", theme)


_PROVIDES: type[Workbench] = WorkbenchApp
"""So that the type checker compares the two: Textual's metaclass and a Protocol's do not go together in one class."""


class QuitDialog(ConfirmDialog):
    """Asked before one leaves while a training runs."""

    STOP = "Stop and save"

    def __init__(self) -> None:
        super().__init__(
            "A training is running",
            "Leaving ends it. It saves a checkpoint first and can go on from there.",
            self.STOP,
            "Keep looking",
        )


class UnsavedDialog(ConfirmDialog):
    """Asked before one leaves with something unsaved."""

    def __init__(self, unsaved: str) -> None:
        super().__init__("Not saved", unsaved, "Keep looking", "!Leave")
