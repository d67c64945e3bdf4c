"""What the parts of the workbench tell each other. Messages go up by themselves, down by `post_message`."""

from collections.abc import Sequence
from dataclasses import dataclass

from textual.message import Message

from gpt2tui.preset_files import LoadedPreset
from gpt2tui.runs import Run
from gpt2tui.training.events import Event
from gpt2tui.tui.session_state import SessionState


@dataclass
class TrainingBegun(Message):
    """To the Train screen: a training of this process begins; what was shown before goes.

    `resumed` is the run that goes on, None for a new one, whose folder comes with `RunOpened`.
    """

    loaded: LoadedPreset
    resumed: Run | None = None


@dataclass
class RunOpened(Message):
    """To the Train screen: the folder of the training that has begun; its earlier events are in `run.events_file`."""

    run: Run


@dataclass
class PreparationProgress(Message):
    """To the Train screen: how far a stage of the preparation is; `total` is None while it is not known."""

    stage: str
    done: int
    total: int | None
    unit: str


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

    run: Run


@dataclass
class RunsChanged(Message):
    """To the Runs and Chat screens: a run or a checkpoint has come, changed or gone."""
