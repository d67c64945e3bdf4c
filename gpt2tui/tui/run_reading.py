"""Reading runs in threads that belong to a screen: never two lists, or two runs, at once."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from textual.message import Message
from textual.screen import Screen
from textual.worker import Worker

from gpt2tui.tui.run_contents import RunContents, read_contents
from gpt2tui.tui.run_library import RunLibrary
from gpt2tui.tui.run_listing import RunListing, RunRow


@dataclass
class Listed(Message):
    """The runs folder has been read."""

    rows: list[RunRow]
    seconds: float


@dataclass
class ContentsRead(Message):
    """A run has been read."""

    folder: Path
    contents: RunContents
    seconds: float


class RunReader:
    """Posts `Listed` and `ContentsRead` to its screen, which gives them back to `take` and what failed to `give_up`."""

    def __init__(self, screen: Screen[Any]) -> None:
        self.library = RunLibrary()
        self.listing = RunListing()
        self._screen = screen
        self._busy: set[str] = set()

    @property
    def busy(self) -> bool:
        """Whether something is being read."""
        return bool(self._busy)

    def list_runs(self, here: Path | None) -> None:
        """Reads the folder; `here` is the run that this process trains."""
        self._start("listing", partial(self._list, here))

    def read_first_of(self, wanted: Sequence[RunRow]) -> None:
        """Reads the first of the runs that has to be read."""
        row = self.library.next_to_read(wanted)
        if row is not None:
            self._start("reading", partial(self._read, row))

    def take(self, message: Listed | ContentsRead) -> None:
        """Keeps what was read."""
        if isinstance(message, Listed):
            self._busy.discard("listing")
            self.library.take_rows(message.rows, message.seconds)
        else:
            self._busy.discard("reading")
            self.library.take_contents(message.folder, message.contents, message.seconds)

    def give_up(self, worker: Worker[Any]) -> None:
        """A thread has ended on an error; the next one may try."""
        self._busy.discard(worker.group)

    def _start(self, group: str, work: Callable[[], None]) -> None:
        if group not in self._busy and self._screen.is_attached:
            self._busy.add(group)
            self._screen.run_worker(work, thread=True, group=group, exit_on_error=False)

    def _list(self, here: Path | None) -> None:
        started = time.monotonic()
        rows = self.listing.read(here)
        self._screen.post_message(Listed(rows, time.monotonic() - started))

    def _read(self, row: RunRow) -> None:
        started = time.monotonic()
        contents = read_contents(row)
        self._screen.post_message(ContentsRead(row.run.folder, contents, time.monotonic() - started))
