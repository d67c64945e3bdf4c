"""What can be done with the run on show, and what the mode bar says of one that another process trains."""

from dataclasses import dataclass

from gpt2tui.run.events import RunFailed, RunFinished
from gpt2tui.tui.run_view import RunView
from gpt2tui.tui.session import ACTIVE, SessionState
from gpt2tui.tui.widgets.mode_bar import TrainingStatus

TRAINING: frozenset[SessionState] = frozenset({"running", "pausing", "paused"})
_OF_A_RUN = ("log_y", "smooth", "compare", "plot", "travel", "filter", "other_pane")


@dataclass(frozen=True)
class RunControl:
    """Which actions of the Train screen act; equal as long as none of them has come, gone or changed.

    `state` is that of this process's training. `attached`: the run on show is another process's, which still holds it
    where it is `locked`. `resumable`: it has a checkpoint and has not done all its steps.
    """

    state: SessionState
    shown: bool
    attached: bool
    locked: bool
    resumable: bool

    @classmethod
    def of(cls, view: RunView, state: SessionState, shown: bool, locked: bool) -> "RunControl":
        """For the run on show; `shown` is false while there is none."""
        ending = view.history.ending
        done = isinstance(ending, RunFinished) and ending.reason == "done"
        resumable = view.run is not None and view.history.checkpoint is not None and not done
        return cls(state, shown, view.attached, locked, resumable)

    @property
    def can_go_on(self) -> bool:
        """Whether the run on show has ended early and can be resumed here."""
        return self.state not in ACTIVE and self.resumable and not (self.attached and self.locked)

    def acts(self, action: str) -> bool | None:
        """Whether an action acts now; None when its key is shown dimmed. True for those that are none of a run's."""
        if action in ("pause", "stop", "request") and (self.attached or self.state not in TRAINING):
            if action == "stop" and self.state == "preparing" and not self.attached:
                return True
            # Controls are shown dimmed while the run on show trains but cannot be controlled, and else not at all.
            trains = self.locked if self.attached else self.state in ACTIVE
            return None if self.shown and trains and not (action == "pause" and self.can_go_on) else False
        if action == "pause":
            return self.state == "running"
        if action in ("resume", "learning_rate"):
            return self.state in ("pausing", "paused") and not self.attached
        if action == "go_on":
            return self.can_go_on
        return self.shown if action in _OF_A_RUN else True


def attached_status(view: RunView, locked: bool) -> TrainingStatus | None:
    """Where another process's run is; None for a run of this one. `locked`: some process still holds it."""
    if not view.attached or view.run is None:
        return None
    progress, ending = view.history.progress, view.history.ending
    state: SessionState = "running" if locked else "failed"
    if isinstance(ending, RunFinished):
        state = "finished"
    elif isinstance(ending, RunFailed):
        state = "failed"
    elif progress.paused and locked:
        state = "paused"
    return TrainingStatus(state, view.run.name, progress.step, progress.num_iterations, progress.seconds_left)
