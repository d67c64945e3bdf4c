"""The workbench: four modes that keep their state, and what they share."""

import asyncio
import contextlib
import itertools
import logging
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from textual import work
from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.events import Event, InputEvent, Paste
from textual.filter import LineFilter
from textual.message import Message
from textual.reactive import var
from textual.screen import ModalScreen, Screen
from textual.widgets import Footer
from textual.worker import WorkerFailed

from gpt2tui.errors import Gpt2TuiError
from gpt2tui.launch import Launch
from gpt2tui.run.events import CheckpointSaved
from gpt2tui.system.files import replace_text
from gpt2tui.system.styled_output import StyledConsole
from gpt2tui.system.terminal_text import printable, sanitize
from gpt2tui.tui.base import Workbench
from gpt2tui.tui.contrast import ContrastFilter
from gpt2tui.tui.customization import load_keymap, load_themes, named_bindings
from gpt2tui.tui.garbage import CHECK_SECONDS, IdleCollector
from gpt2tui.tui.messages import (
    PreparationAdvanced,
    RunAttached,
    RunOpened,
    RunsChanged,
    SessionChanged,
    TrainingBegun,
    TrainingEvents,
)
from gpt2tui.tui.palette import WorkbenchCommands
from gpt2tui.tui.session import TRAINING, Failure, TrainingSession
from gpt2tui.tui.settings import UserSettings
from gpt2tui.tui.stylesheet import ParsedOnceStylesheet
from gpt2tui.tui.terminal import ControlFilter, log_file
from gpt2tui.tui.widgets.dialogs import ConfirmDialog, Dialog, ErrorDialog
from gpt2tui.tui.widgets.key_footer import KeyFooter
from gpt2tui.tui.widgets.mode_bar import MODES, ModeBar, TrainingStatus

# Presets and runs are imported after the first paint: pydantic alone takes as long as everything else.
if TYPE_CHECKING:
    from gpt2tui.preset.files import LoadedPreset
    from gpt2tui.run.folder import Run

DRAIN_SECONDS = 0.25
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
HANGUP = 128 + 1
"""The exit code after SIGHUP: the terminal is gone, and only what has a session of its own trains on."""
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


LEAVE_RUNNING = "Leave it running"


class QuitDialog(ConfirmDialog):
    """Asked before the program ends while a training is running or something is unsaved."""

    LEAVING = ("Stop and save", "Cancel and leave", "!Leave")
    """The answers that end the program."""


FOOTER_LOOKS = 40  # for a footer with its keys, before a picture is taken without


class WorkbenchApp(App[int]):
    """Owns what all screens share: the training, the settings, and how the program ends."""

    TITLE = "gpt2tui"
    COMMAND_PALETTE_DISPLAY = "^p"
    CSS_PATH = Path(__file__).with_name("app.tcss")
    # A mode's screen is made, and its module imported, when the mode is first shown.
    MODES: ClassVar[dict[str, str | Callable[[], Screen[Any]]]] = {
        "presets": _presets_screen,
        "train": _train_screen,
        "chat": _chat_screen,
        "runs": _runs_screen,
    }
    COMMANDS = App.COMMANDS | {WorkbenchCommands}
    BINDINGS: ClassVar[list[BindingType]] = named_bindings(
        "app",
        [
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
            Binding("ctrl+z", "do_not_suspend", "Suspend", show=False),
        ],
    )

    training_status: var[TrainingStatus] = var(TrainingStatus())  # `reactive` would draw the whole screen anew
    """What the mode bar shows."""

    bug: Exception | None = None
    """The first unexpected error, which ended the app."""

    attached_status: TrainingStatus | None = None
    """Set by the Train screen while it shows a run of another process; shown when this process trains nothing."""

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
        """Opens with a `preset` in the form, a training (`launch`) or a run of another process (`attach`).

        The first new run is written to `run_dir`.
        """
        super().__init__()
        self.stylesheet = ParsedOnceStylesheet(variables=self.get_css_variables())
        self.error_console = StyledConsole(stderr=True, highlight=False)
        self.session = session or TrainingSession()
        self.settings = settings or UserSettings()
        self.preselected = preset
        """The preset of the command line, which the Presets screen opens first."""
        self._first_launch = launch
        self._first_attach = attach
        self._run_dir = run_dir
        self._waiting_for_train: list[Message] = []  # messages to a Train screen that is not there yet
        self._questions: list[tuple[Dialog[Any], Callable[[Any], None] | None]] = []  # wait for a dialog's answer
        self._detaching = False  # while the training saves before another process resumes it
        self._leaving: int | None = None  # the exit code, while the training saves before the program ends
        self._collector = IdleCollector()
        self._contrast_filter = ContrastFilter()
        self._control_filter = ControlFilter()
        themes, wrong = load_themes()
        for theme in themes:
            self.register_theme(theme)
        self._keymap_file, also_wrong = load_keymap()
        self._wrong_files = [*wrong, *also_wrong]
        if self.settings.theme in self.available_themes:
            self.theme = self.settings.theme

    # ---- coming and going

    async def on_mount(self) -> None:
        """Handles signals, drains the training's events, and opens the mode that was open last."""
        self._handle_signals()
        self.set_keymap(self._keymap_file)
        for wrong in self._wrong_files:
            self.notify(sanitize(wrong), title="Left out", severity="warning", timeout=15, markup=False)
        self.set_interval(DRAIN_SECONDS, self._drain_session)
        self._collector.begin()
        self.set_interval(CHECK_SECONDS, self._collector.check)
        # After the first paint: making the first mode's screen takes as long as everything before it.
        self.call_after_refresh(self._open_first_mode)

    async def _open_first_mode(self) -> None:
        mode = self.settings.mode if self.settings.mode in MODES else "train"
        if self.preselected is not None:
            mode = "presets"
        if self.current_mode not in MODES:  # unless a key has chosen a mode already
            await self.switch_mode(mode)
        if self._first_launch is not None:
            self.begin(self._first_launch)
        elif self._first_attach is not None:
            self.attach_run(self._first_attach)

    def on_unmount(self) -> None:
        """Leaves garbage collection to Python again."""
        self._collector.end()

    def compose(self) -> ComposeResult:
        """What is shown until the first mode has its screen."""
        yield ModeBar()
        yield KeyFooter()

    # ---- text from outside

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Textual's filters, then those that keep contrast and drop control characters."""
        return [*super().get_line_filters(), self._contrast_filter, self._control_filter]

    async def on_event(self, event: Event) -> None:
        """Removes control characters from pasted text."""
        if isinstance(event, InputEvent):
            self._collector.used()
        if isinstance(event, Paste) and not event.is_forwarded:
            # Terminals send pasted line ends as carriage returns, as the Enter key does.
            event.text = sanitize(event.text.replace("\r\n", "\n").replace("\r", "\n"))
        await super().on_event(event)

    # ---- leaving

    def _handle_signals(self) -> None:
        # Python's own handlers would leave the terminal in the alternate screen, with mouse reporting on.
        for name in SIGNALS:
            number = getattr(signal, name, None)
            if number is not None:
                with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
                    asyncio.get_running_loop().add_signal_handler(number, partial(self.leave, 128 + number))

    def leave(self, exit_code: int = 0) -> None:
        """Ends the program once a running training has saved a checkpoint; at once when called again."""
        if self._leaving is not None and exit_code == 0:
            self.exit(return_code=self._leaving)
            return
        if exit_code == HANGUP and self._leave_ranks(exit_code):
            return
        self._leaving = exit_code
        self.session.stop()
        if not self.session.active:
            self.exit(return_code=exit_code)
            return
        self._update_status()
        doing = "Cancelling the preparation" if self.session.state == "cancelling" else "Saving a checkpoint"
        self.notify(f"{doing}, then leaving; ^q again leaves at once", timeout=30, markup=False)

    async def action_quit(self) -> None:
        """Leaves; asks first when a training is running or a screen has unsaved changes."""
        if self._leaving is not None:
            self.leave()
        elif isinstance(self.screen, QuitDialog):
            return
        elif self.session.state in ("preparing", "cancelling"):
            text = "Leaving cancels the preparation. Nothing has been trained yet."
            self._ask_to_leave("Preparation in progress", text, "Cancel and leave", "Keep preparing")
        elif self.session.state in TRAINING:
            text = "Leaving stops it and saves a checkpoint, from which it can be resumed.\n" + (
                "Left running, it is resumed at once by a process without a screen."
                if self.session.torchrun is None
                else "Left running, its ranks train on without a screen."
            )
            self._ask_to_leave("Training in progress", text, "Stop and save", LEAVE_RUNNING, "Keep training")
        elif self.session.active:
            text = "Leaving waits until it has saved a checkpoint, from which it can be resumed."
            self._ask_to_leave("Training in progress", text, "Stop and save", "Keep training")
        elif (unsaved := self._unsaved()) is not None:
            self._ask_to_leave("Not saved", unsaved, "Keep editing", "!Leave")
        else:
            self.leave()

    def _ask_to_leave(self, title: str, text: str, *choices: str) -> None:
        dialog = QuitDialog(title, text, *choices)

        def act(answer: str | None) -> None:
            if answer in QuitDialog.LEAVING:
                self.leave()
            elif answer == LEAVE_RUNNING and self._leave_ranks(0):
                return
            elif answer == LEAVE_RUNNING and self.session.state in TRAINING:
                self._detaching = True
                self.session.stop()
                self.notify("Saving a checkpoint, from which another process trains on", timeout=30, markup=False)

        self.push_screen(dialog, act)

    def _leave_ranks(self, exit_code: int) -> bool:
        """Ends the program, and says how to come back to the ranks that train on; False where there are none."""
        from gpt2tui.tui.detaching import farewell

        run, torchrun = self.session.run, self.session.torchrun
        if run is None or torchrun is None or not self.session.leave():
            return False
        self.exit(return_code=exit_code, message=farewell(run, torchrun))
        return True

    @work(group="detach")
    async def _leave_running(self, run: "Run") -> None:
        """Leaves once another process trains the run; stays where it could not begin."""
        from gpt2tui.tui.detaching import train_in_background

        try:
            farewell = await asyncio.to_thread(train_in_background, run)
        except Gpt2TuiError as error:
            self.show_error("It was not left running", str(error))
        else:
            self.exit(return_code=0, message=farewell)

    def _unsaved(self) -> str | None:
        """What would be lost, from the first screen whose `unsaved_changes()` names something."""
        for mode in MODES:
            screen = self.screen_of(mode)
            unsaved: str | None = getattr(screen, "unsaved_changes", lambda: None)()
            if unsaved:
                return unsaved
        return None

    def _handle_exception(self, error: Exception) -> None:
        # A failed worker opens a dialog; any other exception ends the app, as Textual does.
        if isinstance(error, WorkerFailed):
            log.error("a worker failed", exc_info=error.error)
            self.show_error("Something went wrong", f"{type(error.error).__name__}: {error.error}")
            return
        log.error("the workbench ended with an unexpected error", exc_info=error)
        self.bug = self.bug or error
        super()._handle_exception(error)

    # ---- what screens, the palette and panels call (`Workbench`)

    def start_training(
        self, loaded: "LoadedPreset", resume: "Run | None" = None, overrides: Sequence[str] = ()
    ) -> None:
        """Trains a preset in a new run, or resumes a run; a notice refuses while another one is running."""
        self.begin(Launch(loaded, resume, None if resume else self._run_dir, overrides=tuple(overrides)))

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
        self._post_to_train(TrainingBegun(launch.loaded, launch.resume))
        self.action_go("train")
        self._drain_session()  # in the new mode, so that a question about the training opens over it

    def open_chat(self, reference: str | None) -> None:
        """Shows the Chat screen with a CHECKPOINT, or with the live weights (None)."""
        self._go_and_call("chat", "select_model", reference)

    def attach_run(self, run: "Run") -> None:
        """Shows a run on the Train screen, from its events.jsonl unless this process trains it."""
        if not (self.session.active and self.session.run == run):
            self._post_to_train(RunAttached(run))
        self.settings.remember("run", run.name)
        self.action_go("train")

    def show_error(self, title: str, message: str) -> None:
        """Opens a dialog with an error message and the path of the log."""
        log.warning("%s: %s", title, message)
        if isinstance(self.screen, ErrorDialog):  # one dialog at a time; the log has all errors
            title = sanitize(title, keep_newlines=False)
            self.notify(sanitize(message), title=title, severity="error", markup=False)
            return
        self._ask(ErrorDialog(title, message, str(log_file())))

    def _ask(self, dialog: Dialog[Any], act: Callable[[Any], None] | None = None) -> None:
        """Opens a dialog that no key has asked for: not before another one is answered, whose keys it would take."""
        self._questions.append((dialog, act))
        self._open_question()

    def _open_question(self) -> None:
        in_front = self.screen_stack[-1:]  # empty while the mode changes
        if self._questions and in_front and not isinstance(in_front[0], ModalScreen):
            self.push_screen(*self._questions.pop(0))

    def screen_of(self, mode: str) -> Screen[Any] | None:
        """The screen of a mode, None until the mode is first shown."""
        try:
            stack: Sequence[Screen[Any]] = self.get_screen_stack(mode)
        except KeyError:
            return None
        return stack[0] if stack else None

    # ---- the training's events

    def _drain_session(self) -> None:
        drained = self.session.drain()
        if drained.opened is not None:
            self._post_to_train(RunOpened(drained.opened.run))
            self.settings.remember("run", drained.opened.run.name)
        if drained.preparation is not None:
            self._post_to_train(PreparationAdvanced(drained.preparation))
        if drained.events:
            self._post_to_train(TrainingEvents(drained.events))
        if drained.state_changed:
            self._post_to_train(SessionChanged(self.session.state))
            for front in self.screen_stack[-1:]:  # empty while the mode changes
                if self.screen_of("train") is not front:
                    front.post_message(SessionChanged(self.session.state))
            if self.session.failure is not None:
                self._show_failure()
        if drained.opened or drained.state_changed or any(isinstance(e, CheckpointSaved) for e in drained.events):
            for mode in ("runs", "chat"):
                if (screen := self.screen_of(mode)) is not None:
                    screen.post_message(RunsChanged())
        self._post_waiting()
        self._update_status()
        self._open_question()
        if self._leaving is not None and not self.session.active:
            self.exit(return_code=self._leaving)
        elif self._detaching and not self.session.active:
            self._detaching = False
            if self.session.failure is None and self.session.run is not None:  # a failure has its dialog
                self._leave_running(self.session.run)

    def _post_to_train(self, message: Message) -> None:
        """Posts a message in order, once the Train screen is there."""
        self._waiting_for_train.append(message)
        self._post_waiting()

    def _post_waiting(self) -> None:
        screen = self.screen_of("train")
        if screen is not None and screen.is_mounted:
            for message in self._waiting_for_train:
                screen.post_message(message)
            self._waiting_for_train.clear()

    def _update_status(self) -> None:
        session, progress = self.session, self.session.progress
        attached = self.attached_status
        if not session.active and attached is not None:
            self.training_status = attached
            return
        preparing = session.preparation
        self.training_status = TrainingStatus(
            state=session.run_state,
            run=session.run.name if session.run else session.loaded.name if session.loaded else "",
            step=progress.step,
            num_iterations=progress.num_iterations,
            seconds_left=progress.seconds_left,
            preparation=preparing.stage if preparing else "",
            beside=attached is not None,
        )

    def _show_failure(self) -> None:
        failure, retry = self.session.failure, self.session.retry_at_half_learning_rate()
        if failure is None or self._leaving is not None:
            return
        if failure.fit is not None:
            self._ask_to_train_anyway(failure)
            return
        if retry is None:
            self.show_error("Training failed", failure.message)
            return
        text = f"{failure.message}\n\nResume from step {failure.last_good_step:,} at half the learning rate?"
        dialog = ConfirmDialog("Training diverged", text, "Resume at half", "Do not resume")
        self._ask(dialog, lambda answer: self.begin(retry) if answer == "Resume at half" else None)

    def _ask_to_train_anyway(self, failure: Failure) -> None:
        """For a training that has not begun because it may not fit into memory or on the disk."""
        launch, anyway, stay = self.session.launch, "Train anyway", "Do not train"
        if failure.fit == "close":
            dialog = ConfirmDialog("It may not fit", failure.message, anyway, stay)
        else:
            anyway, text = f"!{anyway}", f"{failure.message}\n\nThe estimate is within about 15 %."
            dialog = ConfirmDialog("It does not fit", text, stay, anyway)
        if launch is not None:
            force = replace(launch, force=True)
            self._ask(dialog, lambda answer: self.begin(force) if answer == anyway else None)

    # ---- actions

    def action_go(self, mode: str) -> None:
        """Shows a mode, before the next key is handled, so that a dialog opens over the mode in front."""
        self.settings.remember("mode", mode)
        self.switch_mode(mode)

    def _go_and_call(self, mode: str, method: str, argument: object) -> None:
        """Shows a mode and, once its screen is there, calls that method of it."""
        self.settings.remember("mode", mode)
        mounted = self.switch_mode(mode)

        async def call() -> None:
            await mounted
            if (found := getattr(self.screen_of(mode), method, None)) is not None:
                found(argument)

        self.call_later(call)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Disables changing the mode while a dialog is open."""
        return not (action in ("go", "help") and isinstance(self.screen, ModalScreen))

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The palette's entries for the app itself; all others come from `WorkbenchCommands`."""
        yield SystemCommand("Theme", "Choose the colours", self.search_themes)
        yield SystemCommand("Help", "The keys of this screen, and what its numbers mean · ?", self.action_help)
        yield SystemCommand("Screenshot", "Save this screen as an SVG picture", self.action_picture)
        yield SystemCommand("Quit", "A running training saves a checkpoint first · ^q", self.action_quit)

    def action_do_not_suspend(self) -> None:
        """Says that the program stays: stopped by the terminal, it would neither train nor draw."""
        self.notify("^z undoes on the Presets screen alone; ^q leaves the workbench", timeout=5, markup=False)

    def action_picture(self) -> None:
        """Saves a picture of the screen into the current folder, once the palette has gone; a browser downloads it."""
        if self.is_web:
            self.deliver_screenshot()
            return
        self.run_worker(self._save_picture())

    async def _save_picture(self) -> None:
        def is_drawn(footer: Footer) -> bool:
            return any(key.size.width for key in footer.children)

        for _ in range(FOOTER_LOOKS):  # the palette empties the footer, which is laid out again after it has gone
            if not isinstance(self.screen, ModalScreen) and all(map(is_drawn, self.screen.query(Footer))):
                break
            await asyncio.sleep(0.05)
        try:
            path = await asyncio.to_thread(_write_picture, self.export_screenshot())
        except OSError as error:
            self.show_error("The picture was not saved", f"{Path.cwd()}: {error.strerror or error}")
            return
        self.notify(f"saved {printable(path)}", timeout=8, markup=False)

    def action_help(self) -> None:
        """Shows the keys and definitions of this screen."""
        from gpt2tui.tui.help import HelpScreen

        self.push_screen(HelpScreen(self.screen))

    def train_preset(self, name: str) -> None:
        """Trains a preset by name, as it is saved."""
        from gpt2tui.preset import files as preset_files

        try:
            loaded = preset_files.load([name])
        except Gpt2TuiError as error:
            self.show_error(f"The preset {name} cannot be trained", str(error))
            return
        self.start_training(loaded)

    def open_preset(self, name: str) -> None:
        """Shows a preset in the form."""
        self._go_and_call("presets", "select_preset", name)

    def act_on_run(self, name: str, what: Literal["attach", "chat", "resume"]) -> None:
        """Shows a run on the Train screen, chats with it, or resumes it, by name."""
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


def _write_picture(svg: str) -> Path:
    folder, stamp = Path.cwd(), f"{datetime.now():%Y-%m-%d-%H%M%S}"
    names = itertools.chain([f"gpt2tui-{stamp}.svg"], (f"gpt2tui-{stamp}-{n}.svg" for n in itertools.count(2)))
    path = next(folder / name for name in names if not (folder / name).exists())
    replace_text(path, svg)
    return path


_PROVIDES: type[Workbench] = WorkbenchApp
"""For the type checker: the app cannot inherit from the Protocol, since their metaclasses conflict."""
