"""What has been read of the runs, and what is to be read next, so that reading never takes much of a core."""

import time
from collections.abc import Sequence
from pathlib import Path

from gpt2tui.tui.run_contents import RunContents
from gpt2tui.tui.run_listing import RunRow

REST = 10  # after work of t seconds, the same work rests for REST * t: reading never takes more than a tenth of a core
MOST_CONTENTS = 24


class RunLibrary:
    """The rows of all runs, and the contents of those that were shown last."""

    def __init__(self) -> None:
        self.rows: list[RunRow] = []
        self._contents: dict[Path, RunContents] = {}
        self._list_rests_until = 0.0
        self._run_rests_until: dict[Path, float] = {}

    @property
    def list_is_due(self) -> bool:
        """Whether the folder may be read again."""
        return time.monotonic() >= self._list_rests_until

    def take_rows(self, rows: list[RunRow], seconds: float) -> None:
        """All runs as they are now; reading them took so many seconds."""
        self.rows = rows
        self._list_rests_until = time.monotonic() + REST * seconds

    def take_contents(self, folder: Path, contents: RunContents, seconds: float) -> None:
        """A run as it is now; reading it took so many seconds."""
        self._contents.pop(folder, None)
        self._contents[folder] = contents
        self._run_rests_until[folder] = time.monotonic() + REST * seconds
        while len(self._contents) > MOST_CONTENTS:
            oldest = next(iter(self._contents))
            del self._contents[oldest]

    def contents(self, row: RunRow) -> RunContents | None:
        """What was read of a run, None while nothing was."""
        return self._contents.get(row.run.folder)

    def next_to_read(self, wanted: Sequence[RunRow]) -> RunRow | None:
        """The first of the runs that is not read, or has changed since and has rested."""
        now = time.monotonic()
        for row in wanted:
            known = self.contents(row)
            if known is None:
                return row
            if known.summary != row.summary and now >= self._run_rests_until.get(row.run.folder, 0.0):
                return row
        return None
