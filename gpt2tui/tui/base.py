"""The base classes of the screens, and the part of the app that they may call."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, cast

from textual.app import App
from textual.events import Event, Resize
from textual.screen import Screen

from gpt2tui.tui.customization import named_bindings
from gpt2tui.tui.session import TrainingSession
from gpt2tui.tui.settings import UserSettings

if TYPE_CHECKING:
    from gpt2tui.preset.files import LoadedPreset
    from gpt2tui.run.folder import Run
    from gpt2tui.tui.widgets.mode_bar import TrainingStatus

Result = TypeVar("Result")


class Workbench(Protocol):
    """What screens, the palette and panels call of the app. They import this, only `start` imports the app."""

    session: TrainingSession
    settings: UserSettings
    preselected: "LoadedPreset | None"
    attached_status: "TrainingStatus | None"

    def start_training(
        self, loaded: "LoadedPreset", resume: "Run | None" = None, overrides: Sequence[str] = ()
    ) -> None:
        """Trains a preset in a new run, or resumes a run with other settings (`overrides`)."""

    def attach_run(self, run: "Run") -> None:
        """Shows a run on the Train screen."""

    def open_chat(self, reference: str | None) -> None:
        """Shows the Chat screen with a CHECKPOINT, or with the live weights (None)."""

    def show_error(self, title: str, message: str) -> None:
        """Opens a dialog with an error message and the path of the log."""

    def action_go(self, mode: str) -> None:
        """Shows a mode."""

    def train_preset(self, name: str) -> None:
        """Trains a preset by name, as it is saved."""

    def open_preset(self, name: str) -> None:
        """Shows a preset in the form."""

    def act_on_run(self, name: str, what: Literal["attach", "chat", "resume"]) -> None:
        """Shows a run on the Train screen, chats with it, or resumes it, by name."""


def workbench_of(app: App[Any]) -> Workbench:
    """A node's `app`, typed as a `Workbench`."""
    return cast("Workbench", app)


class SteadyScreen(Screen[Result]):
    """A screen that handles each resize of the terminal once."""

    async def on_event(self, event: Event) -> None:
        """Drops a Resize to a size that the terminal no longer has.

        Textual's screens post each Resize to themselves again. When the terminal is resized twice at once, the two
        events undo each other's layout and post themselves forever, and no other task runs.
        """
        if not (isinstance(event, Resize) and event.size != self.app.size):
            await super().on_event(event)


class ModeScreen(SteadyScreen[None]):
    """The screen of one of the four modes, or a page over it. keys.toml names its actions `presets.save` and so on."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        cls.BINDINGS = named_bindings(cls.__name__.removesuffix("Screen").lower(), cls.BINDINGS)
        super().__init_subclass__(**arguments)

    @property
    def workbench(self) -> Workbench:
        """The app, typed as a `Workbench`."""
        return workbench_of(self.app)


# ---- torch in short-lived threads


def in_own_thread(work: Callable[[], Result], name: str) -> Result:
    """Calls `work` in a new thread that ends with it; returns its result or raises its exception. For worker threads.

    A thread in which torch has computed keeps a team of OpenMP threads for as long as it lives, and the threads of
    Textual's workers stay alive. With more OpenMP threads than cores, libgomp lets all of them sleep instead of spin
    wherever they wait for each other: a training beside an idle team takes a sixth longer.
    """
    result: Future[Result] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # raised again in the caller
            result.set_exception(error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    thread.join()  # the OpenMP threads end with the thread, not with the result
    return result.result()
