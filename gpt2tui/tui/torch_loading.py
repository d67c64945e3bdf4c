"""torch, brought into a process that has a screen."""

import gc
import sys
from importlib import import_module


def load_torch() -> None:
    """Imports torch, and everything that came with it leaves the garbage collector's sight.

    It is some hundred thousand objects that stay until the end. Each full collection would look at all of them and
    hold up the screen, a fifth of a second at a time. Once only: what is garbage at that moment stays too.
    """
    if "torch" not in sys.modules:
        import_module("torch")
        gc.freeze()
