"""Reads the history of a run from its events file: the steps of a long one by columns, which takes a tenth of the time.

A preview of a long one, from some of its steps, comes first. Not for the screen's thread.
"""

import functools
import math
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from gpt2tui.run.events import VERSION, Event, RunStarted, Step
from gpt2tui.run.events_file import LONGEST_LINE, open_events, parse_line, read_events
from gpt2tui.tui.history import RunHistory

if TYPE_CHECKING:
    import numpy as np
    import pyarrow

LONG = 8 << 20
"""Files from this size on are long."""
_BLOCK = 4 << 20
_TAIL = 512 << 10  # read event by event: more than the steps of which averages and shares are taken
_PREVIEW_STEPS = 1000
PREVIEW_SECONDS = 0.5
"""How long reading waits for the screen to draw a preview, which takes twice as long while a thread reads."""
_OTHER = re.compile(rb'"event": "(?!step")')
_STEP = b'"event": "step"'
_STARTED = b'"event": "run_started"'
_INTEGERS = ("v", "step", "tokens_seen")
_NUMBERS = (
    "time", "train_loss", "learning_rate", "grad_norm", "tokens_per_second", "device_memory_bytes",
    "device_memory_reserved_bytes", "host_memory_bytes",
)  # fmt: skip


def is_long(path: Path) -> bool:
    """Whether the file has so many events that it is worth a preview. Raises OSError."""
    return path.stat().st_size >= LONG


def history_of(path: Path, grad_clip: float | None = None, stopped: Callable[[], bool] = lambda: False) -> RunHistory:
    """The history in a file; an empty one where there is none. Raises OSError when it cannot be read.

    A part of a long one once `stopped` says so.
    """
    if not path.exists():
        return RunHistory(grad_clip)
    if not is_long(path):
        return RunHistory.of(read_events(path), grad_clip)
    history = RunHistory(grad_clip)
    read_into(history, path, history.add, stopped)
    return history


def preview_of(path: Path, grad_clip: float | None = None) -> RunHistory:
    """The history by the first event and some of the steps, evenly over a long file. Raises OSError.

    A second screen that opens the run soon after gets the same steps without reading them again.
    """
    status = path.stat()
    return RunHistory.of(_events_spread_over(path, status.st_ino, status.st_size >> 20), grad_clip)


@functools.lru_cache(maxsize=4)
def _events_spread_over(path: Path, inode: int, mebibytes: int) -> list[Event]:
    """Events of a file, which `inode` and its size in whole `mebibytes` identify: a MiB more changes little."""
    found: list[Event] = []
    with open_events(path) as file:
        size = os.fstat(file.fileno()).st_size
        if first := parse_line(file.readline(LONGEST_LINE)):
            found.append(first)
        for number in range(1, _PREVIEW_STEPS + 1):
            file.seek(max(0, size - (1 << 16)) * number // _PREVIEW_STEPS)
            file.readline(LONGEST_LINE)  # the rest of a line
            step = parse_line(line) if _STEP in (line := file.readline(LONGEST_LINE)) else None
            while step and len(found) > 1 and getattr(found[-1], "step", 0) >= getattr(step, "step", 0):
                found.pop()  # repeated since by a resumed run
            if step:
                found.append(step)
    return found


def read_into(
    history: RunHistory,
    path: Path,
    add: Callable[[Event], object],
    stopped: Callable[[], bool] = lambda: False,
    before: float = math.inf,
) -> int:
    """Reads a file into a history; returns the offset behind the last whole line, from which to follow it.

    `add` gets all events but most of the steps, and adds them to the history. Stops at a start of the run at the time
    `before` or later. Raises OSError.
    """
    with open_events(path) as file:
        end = os.fstat(file.fileno()).st_size
        for block in _blocks(file, max(0, end - _TAIL)):
            if stopped():
                break
            for piece in _between_starts(block):
                first = parse_line(piece[: piece.find(b"\n")])
                if isinstance(first, RunStarted) and first.time >= before:
                    return file.tell()
                _add_piece(history, piece, add)
        while not stopped() and (line := file.readline(LONGEST_LINE)):
            if not line.endswith(b"\n") and len(line) < LONGEST_LINE:
                return file.tell() - len(line)  # it is still being written
            event = parse_line(line)
            if isinstance(event, RunStarted) and event.time >= before:
                break
            if event:
                add(event)
        return file.tell()


def _blocks(file: BinaryIO, end: int) -> Iterator[bytes]:
    """Whole lines, about _BLOCK bytes at a time, up to the offset `end`; the file is then behind the last of them."""
    while (room := end - file.tell()) > 0:
        yield file.read(min(_BLOCK, room)) + file.readline(LONGEST_LINE)


def _between_starts(block: bytes) -> Iterator[bytes]:
    """The block in pieces that begin with a start of the run: what comes after it may replace what was before."""
    begin = 0
    for found in re.finditer(_STARTED, block):
        at = block.rfind(b"\n", 0, found.start()) + 1
        if at > begin:
            yield block[begin:at]
        begin = at
    yield block[begin:]


def _add_piece(history: RunHistory, piece: bytes, add: Callable[[Event], object]) -> None:
    others = [event for line in _lines_with(_OTHER, piece) if (event := parse_line(line))]
    if others and isinstance(others[0], RunStarted):
        add(others.pop(0))
    at = piece.rfind(_STEP)
    if at >= 0:
        begin, end = piece.rfind(b"\n", 0, at) + 1, piece.find(b"\n", at) + 1 or len(piece)
        columns = step_columns(piece[:begin])
        if columns is None:
            for line in piece[:begin].splitlines():
                if _STEP in line and isinstance(event := parse_line(line), Step):
                    add(event)
        else:
            history.add_steps(columns)
        if isinstance(last := parse_line(piece[begin:end]), Step):
            add(last)
    for event in others:
        add(event)


def _lines_with(pattern: re.Pattern[bytes], piece: bytes) -> Iterator[bytes]:
    end = -1
    for found in pattern.finditer(piece):
        if found.start() > end:
            end = piece.find(b"\n", found.start())
            end = len(piece) if end < 0 else end
            yield piece[piece.rfind(b"\n", 0, found.start()) + 1 : end]


def step_columns(lines: bytes) -> "dict[str, np.ndarray[Any, Any]] | None":
    """The numbers of the step events in some lines, by field, unknown ones NaN; None where a line is no event."""
    import pyarrow as pa
    from pyarrow import compute, json

    kinds = [("event", pa.string()), *((name, pa.int64()) for name in _INTEGERS)]
    schema = pa.schema([*kinds, *((name, pa.float64()) for name in _NUMBERS)])
    try:
        table: pyarrow.Table = json.read_json(
            pa.BufferReader(lines),
            json.ReadOptions(use_threads=False, block_size=max(len(lines), 1)),
            json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )
    except pa.ArrowInvalid:
        return None
    complete = compute.and_(compute.equal(table["event"], "step"), compute.equal(table["v"], VERSION))
    for name in _INTEGERS:
        complete = compute.and_(complete, compute.is_valid(table[name]))
    steps = table.filter(complete)
    return {name: steps[name].to_numpy() for name in (*_INTEGERS, *_NUMBERS)}
