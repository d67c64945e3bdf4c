"""Threads that work beside a training."""

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


def lower_priority(niceness: int = 10) -> None:
    """Gives this thread a lower priority than the training; only Linux has priorities of single threads."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)


def in_background(work: Callable[[], Result], name: str) -> Future[Result]:
    """The result of `work`, called in a daemon thread, which nothing waits for when the program or its caller ends.

    For calls into libraries that cannot be interrupted. Without a thread to be had, `work` is called here.
    """
    result: Future[Result] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # raised again by `result`
            result.set_exception(error)

    try:
        threading.Thread(target=run, name=name, daemon=True).start()
    except RuntimeError:  # "can't start new thread"
        run()
    return result
