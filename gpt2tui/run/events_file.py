"""`events.jsonl`: every event of a run, one JSON object per line, written as it happens.

The file only grows, so that readers can follow it by offset. A line cut off by a kill or a full disk stays; the next
event starts on a new line, and readers skip the incomplete one.
"""

import os
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from gpt2tui.errors import ResourceError
from gpt2tui.run.events import Event, RunFailed, RunStarted, Warned, parse
from gpt2tui.system.files import open_regular, without_home
from gpt2tui.system.terminal_text import Report, report_on_stderr

_CHUNK = 1 << 20
_NO_STEP = re.compile(rb'"event": "(?!step")')
LONGEST_LINE = 1 << 24  # bytes; what is longer is not an event, and is read in pieces that are skipped


class JsonLines:
    """A subscriber that appends each event to a file, unbuffered: a killed process loses none that was handled.

    Raises ResourceError when the file cannot be opened, or is a link, a folder or a pipe: a run folder from elsewhere
    must not lead to writes outside of it. A later failure (disk full, quota) is reported once; its event is
    then missing from the file, and the next event tries again.
    """

    def __init__(self, path: Path, report: Report = report_on_stderr) -> None:
        self._path = path
        try:
            self._file = FileIO(open_regular(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), "ab")
            self._torn = not _ends_with_newline(self._file.fileno())
        except OSError as error:
            raise ResourceError(
                f"{path} cannot be written: {error.strerror or error}; every event of a run goes there, so mend it or "
                "move it away"
            ) from error
        self._report = report
        self._reported = False

    def handle(self, event: Event) -> None:
        """Append the event's line; messages name files below the user's home folder as ~/..."""
        if isinstance(event, Warned | RunFailed):
            event = replace(event, message=without_home(event.message))
        line = event.as_json().encode("ascii") + b"\n"
        try:
            self._write(b"\n" + line if self._torn else line)
            self._torn = False
        except OSError as error:
            self._torn = True
            if not self._reported:
                self._report(
                    f"{self._path}: {error.strerror}; events are missing from it until it can be written again"
                )
            self._reported = True

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, data: bytes) -> None:
        # A nearly full disk writes a part of the line before it fails.
        while data:
            data = data[self._file.write(data) :]


def read_events(path: Path) -> Iterator[Event]:
    """The events in the file as one history, in which repeated steps replace earlier ones.

    When a run crashes after step M and resumes from a checkpoint at step N < M, the file contains the steps N+1..M
    twice. A `run_started` with step N therefore removes every earlier event of a step after N. Lines that are
    incomplete, foreign or of another version are skipped. Reads the file twice, in constant memory. Raises OSError when
    it cannot be read.
    """
    with open_events(path) as file:
        restarts = [event.step for event in _events(file) if isinstance(event, RunStarted)]
        end = file.tell()
        file.seek(0)
        # The last step that counts of the events before the first start, after it, after the second...
        last_steps: list[float] = [float("inf")]
        for step in reversed(restarts):
            last_steps.append(min(step, last_steps[-1]))
        last_step = last_steps.pop()
        for event in _events(file, end):
            if isinstance(event, RunStarted):
                last_step = last_steps.pop()
            if getattr(event, "step", 0) <= last_step:
                yield event


def lines_but_steps(path: Path) -> Iterator[bytes]:
    """The lines in the file, of steps in a row only the last whole one: a million take a second. Raises OSError."""
    with open_events(path) as file:
        while block := file.read(_CHUNK):
            block += file.readline(LONGEST_LINE)
            done = 0
            for found in _NO_STEP.finditer(block):
                if found.start() < done:
                    continue
                begin = block.rfind(b"\n", done, found.start()) + 1 or done
                yield from _last_step(block, done, begin)
                done = block.find(b"\n", found.end()) + 1 or len(block)
                yield block[begin:done]
            yield from _last_step(block, done, len(block))


def _last_step(block: bytes, begin: int, end: int) -> Iterator[bytes]:
    """The last whole line of a step in that part of the block, if there is one."""
    at = end
    while (at := block.rfind(b'"event": "step"', begin, at)) >= 0:
        line = block[block.rfind(b"\n", begin, at) + 1 or begin : block.find(b"\n", at, end) + 1 or end]
        if line.rstrip(b"\r\n").endswith(b"}"):
            yield line
            return


def follow_events(path: Path, stop: threading.Event, poll_seconds: float = 0.25, start: int = 0) -> Iterator[Event]:
    """The events in the file from the offset `start` on, then each new one as it is written, until `stop` is set.

    In the order of the file: steps repeat after a `run_started` with an earlier step (see `read_events`). Waits for a
    file that does not exist yet. After `stop`, the rest of the file is still read.
    """
    while not path.exists():
        if stop.wait(poll_seconds):
            return
    with open_events(path) as file:
        file.seek(start)
        rest = b""
        while True:
            last = stop.is_set()
            while chunk := file.read(_CHUNK):
                *lines, rest = (rest + chunk).split(b"\n")
                yield from filter(None, map(parse_line, lines))
                rest = rest if len(rest) <= LONGEST_LINE else b""
            if last:
                return
            stop.wait(poll_seconds)


def _events(file: BinaryIO, end: int | None = None) -> Iterator[Event]:
    """The events of the lines that begin before the offset `end`."""
    while (end is None or file.tell() < end) and (line := file.readline(LONGEST_LINE)):
        if event := parse_line(line):
            yield event


def parse_line(line: bytes) -> Event | None:
    """The event of a line of the file, None for any other line."""
    # A crash of the machine can leave NUL bytes where the end of the file was not yet on disk.
    event = parse(line.strip(b"\0\r\n").decode("utf-8", errors="replace"))
    return event if event and isinstance(getattr(event, "step", 0), int) else None


def open_events(path: Path) -> BinaryIO:
    """The file to read from, which must be a regular one. Raises OSError."""
    return open(open_regular(path), "rb")  # noqa: PTH123 a descriptor


def _ends_with_newline(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    os.lseek(descriptor, max(size - 1, 0), os.SEEK_SET)  # appending is not affected
    return not size or os.read(descriptor, 1) == b"\n"
