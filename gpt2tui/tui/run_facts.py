"""What a run's folder and this machine say about a run, beside its events. Reads files: not for the screen's thread."""

import itertools
import platform
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from gpt2tui.errors import Gpt2TuiError
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.schema import Preset
from gpt2tui.run.events import Event, RunStarted
from gpt2tui.run.events_file import follow, read_events
from gpt2tui.run.folder import Run
from gpt2tui.tui.history import RunHistory
from gpt2tui.tui.run_view import RunView


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


def earlier_view(run: Run, before: float) -> RunView:
    """What the run's file tells of the time before `before`, when a process went on with it."""
    view = RunView(run=run)
    if run.events_file.exists():
        view.add(event for event in read_events(run.events_file) if event.time < before)
    return view


def follow_run(run: Run, stop: threading.Event) -> Iterator[RunView | Event]:
    """The run as its file has it now, all at once, then each event as it is written, until `stop` is set."""
    view = RunView(attached=True, run=run, waiting="no events yet")
    there = 0
    if run.events_file.exists():
        now = threading.Event()
        now.set()
        for event in follow(run.events_file, now):
            if stop.is_set():
                return
            view.add((event,))
            there += 1
    yield view
    yield from itertools.islice(follow(run.events_file, stop), there, None)


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
