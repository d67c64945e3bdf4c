"""The messages between the app and its screens. They bubble up by themselves and go down by `post_message`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.message import Message

from gpt2tui.run.events import Event
from gpt2tui.system.numbers import byte_size, compact, percent
from gpt2tui.tui.session import SessionState

if TYPE_CHECKING:
    from gpt2tui.data.store_building import StageProgress
    from gpt2tui.preset.files import LoadedPreset
    from gpt2tui.run.folder import Run


@dataclass
class TrainingBegun(Message):
    """To the Train screen: a training of this process begins and replaces what was shown.

    `resumed` is the run that is resumed, None for a new run, whose folder comes with `RunOpened`.
    """

    loaded: "LoadedPreset"
    resumed: "Run | None" = None


@dataclass
class RunOpened(Message):
    """To the Train screen: the run folder of the training that has begun; earlier events are in `run.events_file`."""

    run: "Run"


@dataclass
class PreparationAdvanced(Message):
    """To the Train screen: the progress of a stage of the preparation."""

    progress: "StageProgress"

    @property
    def amount_done(self) -> str:
        """`34% of 10.5 MB`; without a known total, the amount alone."""
        done, total = self.progress.done, self.progress.total
        return f"{percent(min(1.0, done / total))} of {self._amount(total)}" if total else self._amount(done)

    def _amount(self, count: int) -> str:
        unit = self.progress.unit
        return byte_size(count) if unit == "bytes" else f"{compact(count)} {unit}"


@dataclass
class TrainingEvents(Message):
    """To the Train screen, a few times a second: the events of the training thread since the last message."""

    events: Sequence[Event]


@dataclass
class SessionChanged(Message):
    """To the Train screen and the screen in front: the state of this process's training has changed."""

    state: SessionState


@dataclass
class RunAttached(Message):
    """To the Train screen: show this run of another process from its events file, live."""

    run: "Run"


@dataclass
class RunsChanged(Message):
    """To the Runs and Chat screens: a run or a checkpoint was added, changed or removed."""
