"""What the parts of the workbench tell each other. Messages go up by themselves, down by `post_message`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.message import Message

from gpt2tui.run.events import Event
from gpt2tui.system.numbers import byte_size, compact
from gpt2tui.tui.session import SessionState

if TYPE_CHECKING:
    from gpt2tui.preset.files import LoadedPreset
    from gpt2tui.run.folder import Run


@dataclass
class TrainingBegun(Message):
    """To the Train screen: a training of this process begins; what was shown before goes.

    `resumed` is the run that goes on, None for a new one, whose folder comes with `RunOpened`.
    """

    loaded: "LoadedPreset"
    resumed: "Run | None" = None


@dataclass
class RunOpened(Message):
    """To the Train screen: the folder of the training that has begun; its earlier events are in `run.events_file`."""

    run: "Run"


@dataclass
class PreparationProgress(Message):
    """To the Train screen: how far a stage of the preparation is; `total` is None while it is not known."""

    stage: str
    done: int
    total: int | None
    unit: str

    @property
    def how_far(self) -> str:
        """`34 % of 10.5 MB`, or what is done while the total is not known."""
        if not self.total:
            return self._amount(self.done)
        return f"{min(1.0, self.done / self.total):.0%} of {self._amount(self.total)}"

    def _amount(self, count: int) -> str:
        return byte_size(count) if self.unit in ("B", "byte", "bytes") else f"{compact(count)} {self.unit}"


@dataclass
class TrainingEvents(Message):
    """To the Train screen, a few times a second: what the training thread has told since the last time."""

    events: Sequence[Event]


@dataclass
class SessionChanged(Message):
    """To the Train screen and the screen in front: the training of this process is in another state."""

    state: SessionState


@dataclass
class RunAttached(Message):
    """To the Train screen: show this run of another process from its events, live; it cannot be controlled."""

    run: "Run"


@dataclass
class RunsChanged(Message):
    """To the Runs and Chat screens: a run or a checkpoint has come, changed or gone."""
