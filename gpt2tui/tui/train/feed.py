"""Where the Train screen gets its runs from: this process's training by messages, another process's run by its file."""

import asyncio
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
from gpt2tui.run.events import Event, RunFailed, RunFinished, RunStarted
from gpt2tui.run.events_file import follow_events
from gpt2tui.run.folder import Run, is_of_this_machine
from gpt2tui.run.state import RunState, state_at_end
from gpt2tui.system.host_memory import total_bytes
from gpt2tui.tui.history import RunHistory
from gpt2tui.tui.history_file import PREVIEW_SECONDS, history_of, is_long, preview_of, read_into
from gpt2tui.tui.train.view import DisplayedRun

ELSEWHERE = "trained by another process"


@dataclass(frozen=True)
class Lock:
    """Whether a process holds the lock of a run, None until it is known, and whether the run is one of this machine."""

    held: bool | None = None
    of_this_machine: bool = True


class RunSource:
    """The training of this process, a run of another process if one is attached, and which of the two is on show.

    The coroutines read files in threads; everything else returns at once.
    """

    def __init__(self) -> None:
        self.view = DisplayedRun()
        """The run on show."""
        self.live: DisplayedRun | None = None
        """The training of this process, or the last one that has ended."""
        self.lock: Lock = Lock()
        """Of the attached run."""
        self._tail = EventTail()
        self._events_before_history: list[Event] | None = None
        self._loading = False
        self._earlier_ending: RunFinished | RunFailed | None = None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show."""
        return self.view.run is None and self.view is not self.live

    @property
    def note(self) -> str:
        """Who trains the run on show, empty where it is this process."""
        if not self.view.attached or self.lock.held is None:
            return ""
        return ELSEWHERE if self.lock.held else "not training"

    @property
    def locked(self) -> bool:
        """Whether another process may train the run on show."""
        return self.view.attached and self.lock.held is not False

    @property
    def attached_state(self) -> RunState | None:
        """The state of the attached run, None when a training of this process is on show."""
        view, lock = self.view, self.lock
        if not view.attached:
            return None
        if self._loading or lock.held is None:
            return "loading"
        started, ending = view.history.started, view.history.ending
        if lock.held and (started is None or (ending is not None and ending is self._earlier_ending)):
            return "preparing"  # its process has not begun with this training yet
        if ending is not None:
            return state_at_end(ending)
        if lock.held:
            preset = view.preset
            return view.history.progress.state(preset.training.eval_frequency if preset else 0)
        if started is None:
            return "empty"
        return "crashed" if lock.of_this_machine else "unknown"

    # ---- the training of this process

    def begin(self, loaded: LoadedPreset, resumed: Run | None) -> None:
        """Shows a training that begins; a resumed one keeps its events back until `add_facts` has read its history."""
        self._tail.end()
        self.view = self.live = DisplayedRun(run=resumed, waiting="preparing")
        self.live.set_facts(loaded.preset, None)
        self._events_before_history = [] if resumed else None

    def receive(self, events: Sequence[Event], run: Run | None) -> Sequence[Event]:
        """Takes events of this process's training; returns those to add to `live` now."""
        if self.live is None:
            self.view = self.live = DisplayedRun(run=run)
        if any(isinstance(event, RunStarted) for event in events):
            self.live.waiting = "waiting for the first step"
        if self._events_before_history is not None:
            self._events_before_history.extend(events)
            return ()
        return events

    async def add_facts(self, view: DisplayedRun, started: RunStarted) -> bool:
        """Adds what is not in the events, and for a resumed run its history; returns whether it added a history."""
        run = view.run
        if run is None:
            return False
        facts = await asyncio.to_thread(run_facts, run, started.device)
        view.set_facts(facts.preset or view.preset, facts.train_bytes)
        view.memory_total_bytes = facts.memory_total_bytes
        if self._events_before_history is None or view is not self.live:
            return False
        earlier = await asyncio.to_thread(read_history_before, run, time_in_file(started))
        view.history, view.log = earlier.history, earlier.log
        view.set_facts(view.preset, view.train_bytes)
        events, self._events_before_history = self._events_before_history, None
        view.add(events)
        return True

    # ---- a run of another process

    def attach(self, run: Run, loaded: Callable[[], object]) -> Callable[[], None]:
        """Shows a run from its file; returns the function that the reading thread runs, which calls `loaded`."""
        self.lock, self._loading, self._earlier_ending = Lock(), True, None
        self.view = DisplayedRun(attached=True, run=run, waiting="loading")
        return self._tail.begin(run, loaded)

    def drain(self) -> tuple[bool, Sequence[Event]]:
        """What was read since the last call: whether the run's earlier events were, and its new events."""
        loaded, events = self._tail.drain()
        if not self.view.attached:
            return False, ()
        if loaded is not None:
            if self.lock.held and loaded.complete:
                loaded.log_line("watch", ELSEWHERE)
            self.view, self._loading = loaded, not loaded.complete
            self._earlier_ending = loaded.history.ending
        return loaded is not None, events

    async def check_lock(self) -> bool:
        """Updates `lock`; returns whether it has changed."""
        view = self.view
        if not view.attached or view.run is None:
            return False
        lock = await asyncio.to_thread(read_lock, view.run)
        if self.view.run != view.run or lock == self.lock:
            return False
        if lock.held and not self._loading:
            self.view.log_line("watch", ELSEWHERE)  # the run may have been read meanwhile, which is another view
        self.lock = lock
        return True

    def detach(self) -> bool:
        """Shows the training of this process again; returns whether there is one."""
        if not self.view.attached or self.live is None:
            return False
        self._tail.end()
        self.view = self.live
        return True

    def end(self) -> None:
        """Ends the reading thread."""
        self._tail.end()


# ---- reading the events of another process's run in a thread


class EventTail:
    """Follows the events of one run at a time. Its methods are for the screen's thread."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._queue: deque[DisplayedRun | Event] = deque()

    def begin(self, run: Run, loaded: Callable[[], object]) -> Callable[[], None]:
        """Stops following the run before; returns the function that the reading thread runs.

        It calls `loaded` when it has read the run or a preview of it.
        """
        self.end()
        self._stop, self._queue = threading.Event(), deque()
        return partial(_follow, run, self._stop, self._queue, loaded)

    def end(self) -> None:
        """Ends the thread."""
        self._stop.set()

    def drain(self) -> tuple[DisplayedRun | None, list[Event]]:
        """What the thread has read since the last call: the run with its earlier events, and then new events."""
        items = [self._queue.popleft() for _ in range(len(self._queue))]
        loaded = next((item for item in reversed(items) if isinstance(item, DisplayedRun)), None)
        return loaded, [item for item in items if isinstance(item, Event)]


def _follow(run: Run, stop: threading.Event, queue: deque[DisplayedRun | Event], loaded: Callable[[], object]) -> None:
    for item in follow_run(run, stop):
        if stop.is_set():
            return
        queue.append(item)
        if isinstance(item, DisplayedRun):
            loaded()


# ---- what is not in the events. Reads files: not for the screen's thread


@dataclass(frozen=True)
class RunFacts:
    """What the run's folder and this machine know of a run; None where it is not known."""

    preset: Preset | None = None
    train_bytes: int | None = None
    memory_total_bytes: int | None = None


def run_facts(run: Run, device: str) -> RunFacts:
    """The frozen preset, the bytes of the training text, and the memory of the device if the run was made here."""
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
    here = is_of_this_machine(info)
    return RunFacts(
        preset,
        train_bytes if isinstance(train_bytes, int) else None,
        _memory_total(device) if here else None,
    )


def read_lock(run: Run) -> Lock:
    """The lock of a run as it is now."""
    try:
        return Lock(runs.is_locked(run), is_of_this_machine(run.info()))
    except (Gpt2TuiError, OSError):
        return Lock(held=False)


def read_history_before(run: Run, before: float) -> DisplayedRun:
    """The run up to the time `before`, when it was resumed."""
    view = DisplayedRun(run=run)
    if run.events_file.exists():
        read_into(view.history, run.events_file, lambda event: view.add((event,)), before=before)
    return view


def follow_run(run: Run, stop: threading.Event) -> Iterator[DisplayedRun | Event]:
    """The run with all events that its file has now, then each new event, until `stop` is set.

    Of a long run a preview comes first, which is not `complete`.
    """
    view = DisplayedRun(attached=True, run=run, waiting="no events yet")
    start = 0
    if run.events_file.exists():
        if is_long(run.events_file):
            preview = preview_of(run.events_file)
            yield DisplayedRun(attached=True, run=run, history=preview, complete=False)
            stop.wait(PREVIEW_SECONDS)
        start = read_into(view.history, run.events_file, lambda event: view.add((event,)), stop.is_set)
    if stop.is_set():
        return
    yield view
    yield from follow_events(run.events_file, stop, start=start)


def read_history(run: Run) -> RunHistory:
    """The curves of a run. Raises OSError when its file cannot be read."""
    return history_of(run.events_file)


def time_in_file(event: RunStarted) -> float:
    """The time of an event as it is rounded in the file."""
    return round(event.time, 3)


def _memory_total(device: str) -> int | None:
    if device in ("cpu", "mps"):
        return total_bytes()
    torch = sys.modules.get("torch")  # loaded where this process trains; not worth loading for this
    if torch is None or not torch.cuda.is_available():
        return None
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        if properties.name == device:
            return int(properties.total_memory)
    return None
