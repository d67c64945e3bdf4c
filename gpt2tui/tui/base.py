"""What the screens of the workbench have in common, and what they ask of the app."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, cast

from textual.app import App
from textual.events import Event, Resize
from textual.screen import Screen

from gpt2tui.tui.session import TrainingSession
from gpt2tui.tui.settings import UserSettings

if TYPE_CHECKING:
    from gpt2tui.preset.files import LoadedPreset
    from gpt2tui.run.folder import Run
    from gpt2tui.tui.widgets.mode_bar import TrainingStatus

Result = TypeVar("Result")


class Workbench(Protocol):
    """What screens, the palette and panels ask of the app. They import this; only the start imports the app."""

    session: TrainingSession
    settings: UserSettings
    preselected: "LoadedPreset | None"
    attached_status: "TrainingStatus | None"

    def start_training(self, loaded: "LoadedPreset", resume: "Run | None" = None) -> None:
        """Trains a preset in a new run, or resumes a run."""

    def attach_run(self, run: "Run") -> None:
        """Shows a run on the Train screen."""

    def open_chat(self, reference: str | None) -> None:
        """Shows the Chat screen with a CHECKPOINT, or with the live weights (None)."""

    def show_error(self, title: str, message: str) -> None:
        """A dialog with what happened and where the log is."""

    def action_go(self, mode: str) -> None:
        """Shows a mode."""

    def train_preset(self, name: str) -> None:
        """Trains a preset by name as it is on disk."""

    def open_preset(self, name: str) -> None:
        """Shows a preset in the form."""

    def act_on_run(self, name: str, what: Literal["attach", "chat", "resume"]) -> None:
        """Shows, talks to or resumes a run by name."""


def workbench_of(app: App[Any]) -> Workbench:
    """The app a node runs in, as a `Workbench`: Textual's own type of it knows nothing of ours."""
    return cast("Workbench", app)


class SteadyScreen(Screen[Result]):
    """A screen that comes to rest, however often the terminal is resized."""

    async def on_event(self, event: Event) -> None:
        """Drops news of a size that the terminal no longer has.

        Textual's screens tell themselves of each new size once more. Has the terminal had another one meanwhile, both
        are on their way, each undoes the other's layout and sends itself again, and no other task runs any more.
        """
        if not (isinstance(event, Resize) and event.size != self.app.size):
            await super().on_event(event)


class ModeScreen(SteadyScreen[None]):
    """The screen of one of the four modes."""

    @property
    def workbench(self) -> Workbench:
        """The app, with what is its own."""
        return workbench_of(self.app)


# ---- work for torch that leaves nothing behind which would slow a training down


def in_own_thread(work: Callable[[], Result], name: str) -> Result:
    """Does the work in a thread that ends with it, and waits; returns or raises what it does. For worker threads.

    A thread in which torch has computed keeps a team of OpenMP threads for as long as it lives, and the threads of
    Textual's workers live on. With more of them than cores libgomp lets all of them sleep, instead of spin, wherever
    they wait for each other: a training beside an idle team takes a sixth longer.
    """
    result: Future[Result] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # it is the caller's
            result.set_exception(error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    thread.join()  # not only until there is a result: the team is gone when the thread is
    return result.result()
