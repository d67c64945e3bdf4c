"""Threads that work beside a training."""

import contextlib
import os
import sys
import threading


def lower_priority(niceness: int = 10) -> None:
    """Gives this thread a lower priority than the training; only Linux has priorities of single threads."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
