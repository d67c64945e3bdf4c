"""Work for torch that leaves nothing behind which would slow a training down."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


def in_own_thread(work: Callable[[], Result], name: str) -> Result:
    """Does the work in a thread that ends with it, and waits; returns or raises what it does. For worker threads.

    A thread in which torch has computed keeps a team of OpenMP threads for as long as it lives, and the threads of
    Textual's workers live on. With more of them than cores libgomp lets all of them sleep, instead of spin, wherever
    they wait for each other: a training beside an idle team takes a sixth longer.
    """
    result: Future[Result] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # it is the caller's
            result.set_exception(error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    thread.join()  # not only until there is a result: the team is gone when the thread is
    return result.result()
