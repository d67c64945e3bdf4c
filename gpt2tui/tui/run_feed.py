"""What the Train screen is told of runs: of this process's training by messages, of another's by its file."""

import asyncio
from collections.abc import Callable, Sequence

from gpt2tui.preset.files import LoadedPreset
from gpt2tui.run import folder as runs
from gpt2tui.run.events import Event, RunStarted
from gpt2tui.run.folder import Run
from gpt2tui.tui.run_facts import beginning, earlier_view, run_facts
from gpt2tui.tui.run_follower import RunFollower
from gpt2tui.tui.run_view import RunView


class RunFeed:
    """Keeps the training of this process and perhaps a run of another one, and which of them is on show.

    The coroutines read files in threads; everything else answers at once.
    """

    def __init__(self) -> None:
        self.view = RunView()
        """What is on show."""
        self.live: RunView | None = None
        """The training of this process, the last one after its end."""
        self.locked = True
        """Whether the attached run is held by a process."""
        self._follower = RunFollower()
        self._told_before_history: list[Event] | None = None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show."""
        return self.view.run is None and self.view is not self.live

    @property
    def note(self) -> str:
        """That nothing here controls the run on show, or nothing."""
        if not self.view.attached:
            return ""
        return "attached, controls off" if self.locked else "not training"

    # ---- the training of this process

    def begin(self, loaded: LoadedPreset, resumed: Run | None) -> None:
        """Shows a training that begins; one that goes on waits for its history until `learn` has read it."""
        self._follower.end()
        self.view = self.live = RunView(run=resumed, waiting="preparing")
        self.live.know(loaded.preset, None)
        self._told_before_history = [] if resumed else None

    def receive(self, events: Sequence[Event], run: Run | None) -> Sequence[Event]:
        """Takes events of this process's training; returns those that are to be added to `live` now."""
        if self.live is None:
            self.view = self.live = RunView(run=run)
        if any(isinstance(event, RunStarted) for event in events):
            self.live.waiting = "waiting for the first step"
        if self._told_before_history is not None:
            self._told_before_history.extend(events)
            return ()
        return events

    async def learn(self, view: RunView, started: RunStarted) -> bool:
        """Adds what is not in the events, and for a resumed run what was before; whether that was so."""
        run = view.run
        if run is None:
            return False
        facts = await asyncio.to_thread(run_facts, run, started.device)
        view.know(facts.preset or view.preset, facts.train_bytes)
        view.memory_total_bytes = facts.memory_total_bytes
        if self._told_before_history is None or view is not self.live:
            return False
        earlier = await asyncio.to_thread(earlier_view, run, beginning(started))
        view.history, view.log = earlier.history, earlier.log
        view.know(view.preset, view.train_bytes)
        told, self._told_before_history = self._told_before_history, None
        view.add(told)
        return True

    # ---- a run of another process

    def attach(self, run: Run) -> Callable[[], None]:
        """Shows a run from its file; returns the body of the thread that follows it."""
        self.locked = True
        self.view = RunView(attached=True, run=run, waiting="reading its events")
        return self._follower.begin(run)

    def drain(self) -> tuple[bool, Sequence[Event]]:
        """What the file has told since the last time: whether the run was found, and its new events."""
        found, events = self._follower.drain()
        if not self.view.attached:
            return False, ()
        if found is not None:
            found.say("watch", "its events.jsonl; controls off")
            self.view = found
        return found is not None, events

    async def look_at_lock(self) -> bool:
        """Whether the attached run is held by a process now or no longer, other than before."""
        view = self.view
        if not view.attached or view.run is None:
            return False
        locked = await asyncio.to_thread(runs.is_locked, view.run)
        if view is not self.view or locked == self.locked:
            return False
        self.locked = locked
        return True

    def detach(self) -> bool:
        """Shows the training of this process again, where there is one."""
        if not self.view.attached or self.live is None:
            return False
        self._follower.end()
        self.view = self.live
        return True

    def end(self) -> None:
        """Lets the thread that follows a file end."""
        self._follower.end()
