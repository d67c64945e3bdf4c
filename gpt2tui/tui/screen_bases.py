"""What the screens of the workbench have in common."""

from typing import TYPE_CHECKING, TypeVar, cast

from textual.events import Event, Resize
from textual.screen import Screen

if TYPE_CHECKING:
    from gpt2tui.tui.app import WorkbenchApp

Result = TypeVar("Result")


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
    def workbench(self) -> "WorkbenchApp":
        """The app, with what is its own."""
        return cast("WorkbenchApp", self.app)
