"""Requests to the process that trains a run, as files in the run's folder: the door for other processes.

A request is a small file in `requests/`, made whole by a rename. The training takes it, which deletes it, twice a
second, and acts between two steps; its answer is an event. What is there before a training begins was for a process
that is dead, and is removed.
"""

import contextlib
import itertools
import json
import os
import re
import stat
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

from gpt2tui.errors import ResourceError, RunLockedError, UsageError
from gpt2tui.run.events import (
    CheckpointSaved,
    Evaluated,
    Event,
    LearningRateChanged,
    Paused,
    Resumed,
    RunFailed,
    RunFinished,
    RunStarted,
)
from gpt2tui.run.events_file import LONGEST_LINE, parse_line
from gpt2tui.run.folder import Run, is_locked
from gpt2tui.run.state import ACTIVE
from gpt2tui.run.summary import summarize
from gpt2tui.system.files import open_regular
from gpt2tui.system.terminal_text import printable

Request = Literal["pause", "continue", "stop", "checkpoint", "evaluate", "sample"]
FOLDER = "requests"
VERSION = 1
_NAME = re.compile(r"\d{20}-[0-9a-f]{32}\.json")  # the time in nanoseconds, so that names sort in the order of sending
_UNFINISHED = re.compile(r"\.\d{20}-[0-9a-f]{32}\.tmp")
_LARGEST = 4096  # bytes
_MOST_ENTRIES = 1000  # of the folder, at a look


# ---- the side of the training


class Inbox:
    """The requests to the training of this process, which holds the run's lock. Raises nothing."""

    def __init__(self, run: Run) -> None:
        self._folder = run.folder / FOLDER
        self._ignored: set[str] = set()
        self.close()  # what a dead process has left

    def take(self) -> list[Request]:
        """The requests since the last call, in the order of sending. Whatever else is in the folder is ignored."""
        taken = (self._take(name) for name in self._names(_NAME))
        return [request for request in taken if request is not None]

    def close(self) -> None:
        """Removes what was not taken, and the folder."""
        for name in (*self._names(_NAME), *self._names(_UNFINISHED)):
            with contextlib.suppress(OSError):
                (self._folder / name).unlink()
        with contextlib.suppress(OSError):
            self._folder.rmdir()  # not a link, nor a folder with other files

    def _names(self, pattern: re.Pattern[str]) -> list[str]:
        try:
            if not stat.S_ISDIR(os.lstat(self._folder).st_mode):  # a link would lead to files elsewhere
                return []
            with os.scandir(self._folder) as entries:
                names = [entry.name for entry in itertools.islice(entries, _MOST_ENTRIES)]
        except OSError:
            return []
        return sorted(name for name in names if pattern.fullmatch(name) and name not in self._ignored)

    def _take(self, name: str) -> Request | None:
        path = self._folder / name
        request = _read(path)
        try:
            path.unlink()
        except FileNotFoundError:
            return None  # withdrawn meanwhile
        except OSError:
            self._ignored.add(name)
        return request


def _read(path: Path) -> Request | None:
    """The request in a file; None for a link, a folder, a pipe, and for anything else than a request."""
    try:
        with open(open_regular(path), "rb") as file:  # noqa: PTH123 a descriptor
            content = json.loads(file.read(_LARGEST + 1)[:_LARGEST])
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or content.get("v") != VERSION:
        return None
    return next((request for request in get_args(Request) if request == content.get("request")), None)


# ---- the side that asks


class NotTakenError(RunLockedError):
    """A process holds the run, but has not taken the request, which was withdrawn."""


def send(run: Run, request: Request) -> Path:
    """Leaves a request for the process that trains the run; returns its file, which that process will delete.

    Raises UsageError when no process trains the run, ResourceError when the folder cannot be written.
    """
    if not (is_locked(run) or _is_elsewhere(run)):
        raise UsageError(_not_trained(run, request))
    folder = run.folder / FOLDER
    name = f"{time.time_ns():020d}-{uuid.uuid4().hex}"
    unfinished, path = folder / f".{name}.tmp", folder / f"{name}.json"
    try:
        if folder.is_symlink():
            raise ResourceError(f"{printable(folder)} is a link; nothing is written through it")
        folder.mkdir(exist_ok=True)
        unfinished.write_text(json.dumps({"v": VERSION, "request": request, "time": time.time()}), encoding="utf-8")
        unfinished.replace(path)
    except FileNotFoundError:  # the training has removed the folder, at its end
        raise UsageError(_not_trained(run, request)) from None
    except OSError as error:
        raise ResourceError(f"{printable(folder)} cannot be written: {error.strerror or error}") from error
    return path


def _is_elsewhere(run: Run) -> bool:
    """Whether the run has no end and was trained on another machine, whose lock a network file system may not show."""
    return summarize(run).state == "unknown"


def _not_trained(run: Run, request: Request) -> str:
    state = summarize(run).state
    known = "" if state in {*ACTIVE, "unknown", "empty"} else f": it is {state}"
    advice = f"; gpt2tui train --resume {run.name} continues it" if state in ("stopped", "failed", "crashed") else ""
    return f"{run.name} is not being trained{known}; there is nothing to {_VERBS.get(request, request)}{advice}"


_VERBS: dict[Request, str] = {"checkpoint": "save"}


def ask(run: Run, request: Request, timeout: float, poll_seconds: float = 0.05) -> str:
    """Sends a request and waits for its answer; returns a sentence with what has happened.

    Raises the errors of `send`; UsageError when the run ends first, and RunLockedError when nothing answers within
    `timeout` seconds, NotTakenError when the request was not even taken.
    """
    known = _Known(run)
    elsewhere = not is_locked(run)  # or `send` refuses
    path = send(run, request)
    deadline = time.monotonic() + timeout
    new: list[Event] = []
    while True:
        ended, taken = not (elsewhere or is_locked(run)), not path.exists()
        new += known.read()
        if (taken or ended) and (answer := _answer(run, request, known, new, ended)):
            path.unlink(missing_ok=True)
            return answer
        if ended:
            path.unlink(missing_ok=True)
            raise UsageError(f"the training of {run.name} has ended before it could {_VERBS.get(request, request)}")
        if time.monotonic() > deadline:
            break
        time.sleep(poll_seconds)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
        raise NotTakenError(
            f"nothing has taken the request within {timeout:g} s: the process that trains {run.name} hangs, is on "
            "another machine and gone, or cannot delete files in its run folder; the request was withdrawn"
        )
    raise RunLockedError(
        f"{run.name} has taken the request, but has not answered within {timeout:g} s: it acts after the step, "
        "evaluation or sample that takes so long; --timeout waits longer"
    )


def _answer(run: Run, request: Request, known: "_Known", new: Sequence[Event], ended: bool) -> str | None:
    """What the request has led to, by the events after it was sent; None as long as it has led to nothing."""
    for event in new:
        match request, event:
            case _, RunFinished() if request == "stop" or ended:
                how = "stopped" if event.reason == "stopped" else "finished"
                saved = "" if known.saved_step is None else f"; its newest checkpoint is of step {known.saved_step:,}"
                return f"{run.name} has {how} after step {event.step:,}{saved}"
            case _, RunFailed():
                raise UsageError(f"{run.name} has failed at step {event.step:,}: {event.message}")
            case "pause", Paused():
                return f"{run.name} is paused after step {event.step:,}"
            case "continue", Resumed():
                return f"{run.name} continues after step {event.step:,}"
            case "checkpoint", CheckpointSaved():
                return f"{run.name} has saved {event.path}"
            case "evaluate", Evaluated():
                loss = f"val loss {event.val_loss:.4f}, {event.bits_per_byte:.4f} bits/byte"
                return f"{run.name} at step {event.step:,}: {loss}"
    if request == "stop" and ended:
        return f"the process that held {run.name} has ended; it had nothing to save"
    if request == "pause" and known.paused:
        return f"{run.name} is paused already, after step {known.step:,}"
    if request == "continue" and known.step is not None and not known.paused:
        return f"{run.name} is not paused: it is at step {known.step:,}"
    if request == "checkpoint" and known.paused and known.step == known.saved_step:
        return f"{run.name} has a checkpoint of step {known.step:,} already"
    return None


class _Known:
    """What the newest events of a run say."""

    _TAIL = 1 << 20  # bytes

    def __init__(self, run: Run) -> None:
        self._path = run.events_file
        self._offset = 0
        self.paused = False
        self.step: int | None = None
        self.saved_step: int | None = None
        with contextlib.suppress(OSError):
            self._offset = max(0, self._path.stat().st_size - self._TAIL)
        self.read()

    def read(self) -> list[Event]:
        """The events since the last call."""
        new = list(self._new_events())
        for event in new:
            self.paused = isinstance(event, Paused) or (self.paused and not isinstance(event, Resumed | RunStarted))
            self.step = getattr(event, "step", self.step)
            if isinstance(event, CheckpointSaved):
                self.saved_step = event.step
            elif isinstance(event, RunStarted):
                self.saved_step = event.step or None  # a resumed run begins with a checkpoint
            elif isinstance(event, LearningRateChanged):
                self.saved_step = None  # it does not contain the change
        return new

    def _new_events(self) -> Iterator[Event]:
        try:
            descriptor = open_regular(self._path)
        except OSError:
            return
        with open(descriptor, "rb") as file:  # noqa: PTH123 a descriptor
            file.seek(self._offset)
            while (line := file.readline(LONGEST_LINE)).endswith(b"\n"):
                self._offset = file.tell()
                if event := parse_line(line):
                    yield event
