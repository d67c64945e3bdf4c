"""Holds back Python's full garbage collections while someone uses the workbench.

A full collection looks at every object of the program: no key is read and nothing is drawn for 0.1 to 0.3 s, and
opening a screen used to set off one or two. Here they wait until nobody has pressed a key for a moment. Young objects
are collected as always.
"""

import gc
import sys
import time

IDLE_SECONDS = 2.0
CHECK_SECONDS = 1.0
DUE = 10
"""Collections of the middle generation after which Python itself looks at everything."""
OVERDUE = 40
"""After so many it is done even if someone types."""


class IdleCollector:
    """Full collections while nothing is pressed; `check` is to be called every CHECK_SECONDS."""

    def __init__(self) -> None:
        self._thresholds = gc.get_threshold()
        self._used = time.monotonic()

    def begin(self) -> None:
        """Full collections happen in `check` only from here on."""
        gc.set_threshold(*self._thresholds[:2], sys.maxsize >> 32)

    def end(self) -> None:
        """Python decides again."""
        gc.set_threshold(*self._thresholds)

    def used(self) -> None:
        """To be called at each key press and mouse event."""
        self._used = time.monotonic()

    def check(self) -> None:
        """Collects everything if that is due and nobody has pressed anything for IDLE_SECONDS."""
        idle = time.monotonic() - self._used >= IDLE_SECONDS
        if gc.get_count()[2] >= (DUE if idle else OVERDUE):
            gc.collect()
