"""Passes what other processes ask of a run to its training. The requests are files: see `run/requests.py`."""

import contextlib
import threading
from collections.abc import Iterator

from gpt2tui.run import requests
from gpt2tui.run.folder import Run
from gpt2tui.system.threads import lower_priority
from gpt2tui.training.controls import Controls

LOOK_SECONDS = 0.5
"""How often requests are looked for."""


@contextlib.contextmanager
def obeying(run: Run, controls: Controls) -> Iterator[None]:
    """Passes what other processes ask of a run, whose lock is held, to `controls`.

    It looks in a thread, so that a slow network file system does not hold up a step, and a long preparation or
    evaluation can be stopped. Where the system starts no more threads, the run cannot be controlled from outside.
    """
    inbox, end = requests.Inbox(run), threading.Event()

    def look() -> None:
        lower_priority()
        while not end.wait(LOOK_SECONDS):
            for request in inbox.take():
                obey(request, controls)

    thread = threading.Thread(target=look, name="requests", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # "can't start new thread"
        yield
        return
    try:
        yield
    finally:
        end.set()
        thread.join()
        inbox.close()


def obey(request: requests.Request, controls: Controls) -> None:
    """Passes a request of another process on."""
    match request:
        case "pause":
            controls.pause()
        case "continue":
            controls.resume()
        case "stop":
            controls.stop()
        case _:
            controls.request(request)
