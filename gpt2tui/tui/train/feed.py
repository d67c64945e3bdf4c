"""What the Train screen is emitted of runs: of this process's training by messages, of another's by its file."""

import asyncio
import itertools
import platform
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from gpt2tui.errors import Gpt2TuiError
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.files import LoadedPreset
from gpt2tui.preset.schema import Preset
from gpt2tui.run import folder as runs
from gpt2tui.run.events import Event, RunStarted
from gpt2tui.run.events_file import follow_events, read_events
from gpt2tui.run.folder import Run
from gpt2tui.tui.history import RunHistory
from gpt2tui.tui.train.view import DisplayedRun


class RunSource:
    """Keeps the training of this process and perhaps a run of another one, and which of them is on show.

    The coroutines read files in threads; everything else answers at once.
    """

    def __init__(self) -> None:
        self.view = DisplayedRun()
        """What is on show."""
        self.live: DisplayedRun | None = None
        """The training of this process, the last one after its end."""
        self.locked = True
        """Whether the attached run is held by a process."""
        self._follower = EventTail()
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
        self.view = self.live = DisplayedRun(run=resumed, waiting="preparing")
        self.live.know(loaded.preset, None)
        self._told_before_history = [] if resumed else None

    def receive(self, events: Sequence[Event], run: Run | None) -> Sequence[Event]:
        """Takes events of this process's training; returns those that are to be added to `live` now."""
        if self.live is None:
            self.view = self.live = DisplayedRun(run=run)
        if any(isinstance(event, RunStarted) for event in events):
            self.live.waiting = "waiting for the first step"
        if self._told_before_history is not None:
            self._told_before_history.extend(events)
            return ()
        return events

    async def learn(self, view: DisplayedRun, started: RunStarted) -> bool:
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
        emitted, self._told_before_history = self._told_before_history, None
        view.add(emitted)
        return True

    # ---- a run of another process

    def attach(self, run: Run) -> Callable[[], None]:
        """Shows a run from its file; returns the body of the thread that follows it."""
        self.locked = True
        self.view = DisplayedRun(attached=True, run=run, waiting="reading its events")
        return self._follower.begin(run)

    def drain(self) -> tuple[bool, Sequence[Event]]:
        """What the file has emitted since the last time: whether the run was found, and its new events."""
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


# ---- a run of another process, read from its file in a thread as it grows


class EventTail:
    """Follows one run at a time. All but the thread's body is for the screen's thread."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._queue: deque[DisplayedRun | Event] = deque()

    def begin(self, run: Run) -> Callable[[], None]:
        """Leaves what was followed before; returns the body of the thread that is to follow this run."""
        self.end()
        self._stop, self._queue = threading.Event(), deque()
        return partial(_follow, run, self._stop, self._queue)

    def end(self) -> None:
        """Lets the thread come to its end."""
        self._stop.set()

    def drain(self) -> tuple[DisplayedRun | None, list[Event]]:
        """What the thread has emitted since the last time: once the run as it was found, then its new events."""
        emitted = [self._queue.popleft() for _ in range(len(self._queue))]
        found = next((item for item in emitted if isinstance(item, DisplayedRun)), None)
        return found, [item for item in emitted if isinstance(item, Event)]


def _follow(run: Run, stop: threading.Event, emitted: deque[DisplayedRun | Event]) -> None:
    for item in follow_run(run, stop):
        if stop.is_set():
            return
        emitted.append(item)


# ---- what a run's folder and this machine say about a run, beside its events. Reads files: not for the screen's thread


@dataclass(frozen=True)
class RunFacts:
    """None is what is not known."""

    preset: Preset | None = None
    train_bytes: int | None = None
    memory_total_bytes: int | None = None


def run_facts(run: Run, device: str) -> RunFacts:
    """The frozen preset, the size of the training text, and the memory of the device of that name, if it is here."""
    try:
        preset = preset_files.check(run.preset_file).preset
    except (Gpt2TuiError, OSError):
        preset = None
    try:
        info = run.info()
    except (Gpt2TuiError, OSError):
        info = {}
    data = info.get("data")
    train_bytes = data.get("train_bytes") if isinstance(data, dict) else None
    here = info.get("host") in (None, platform.node())
    return RunFacts(
        preset,
        train_bytes if isinstance(train_bytes, int) else None,
        _memory_total(device) if here else None,
    )


def earlier_view(run: Run, before: float) -> DisplayedRun:
    """What the run's file tells of the time before `before`, when a process went on with it."""
    view = DisplayedRun(run=run)
    if run.events_file.exists():
        view.add(event for event in read_events(run.events_file) if event.time < before)
    return view


def follow_run(run: Run, stop: threading.Event) -> Iterator[DisplayedRun | Event]:
    """The run as its file has it now, all at once, then each event as it is written, until `stop` is set."""
    view = DisplayedRun(attached=True, run=run, waiting="no events yet")
    there = 0
    if run.events_file.exists():
        now = threading.Event()
        now.set()
        for event in follow_events(run.events_file, now):
            if stop.is_set():
                return
            view.add((event,))
            there += 1
    yield view
    yield from itertools.islice(follow_events(run.events_file, stop), there, None)


def read_history(run: Run) -> RunHistory:
    """The curves of a run. Raises OSError when they cannot be read."""
    return RunHistory.of(read_events(run.events_file))


def beginning(event: RunStarted) -> float:
    """The time of an event as its file has it."""
    return round(event.time, 3)


def _memory_total(device: str) -> int | None:
    if device in ("cpu", "mps"):
        import psutil

        return psutil.virtual_memory().total
    torch = sys.modules.get("torch")  # there when this process trains; a look is not worth loading it
    if torch is None or not torch.cuda.is_available():
        return None
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        if properties.name == device:
            return int(properties.total_memory)
    return None
