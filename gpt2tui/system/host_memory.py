"""The memory of this process: freed blocks are kept for the next training step, and torch is imported once."""

import contextlib
import ctypes  # psutil reads how much memory there is; how the C library keeps it is set by the library itself
import gc
import sys
from importlib import import_module

# Of <malloc.h>; glibc's manual, "Malloc Tunable Parameters".
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> None:
    """Makes glibc allocate large blocks from one heap and keep freed ones. Call before there are threads.

    By default it maps each block above 32 MB and unmaps it when it is freed, so that every training step on the CPU
    pays for a hundred thousand page faults: a sixth of its time with 50,257 tokens. A thread's own
    heap has no room for such blocks, hence the one heap. Other C libraries stay as they are.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def give_back_freed_memory() -> None:
    """Returns freed memory to the system, for the end of a training in a process that continues."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


# ---- importing torch


def load_torch() -> None:
    """Imports torch and exempts its objects from garbage collection.

    They are some hundred thousand, and each full collection would look at all of them and hold up the screen for a
    fifth of a second. Does nothing the second time: garbage that exists at that moment is never collected.
    """
    if "torch" not in sys.modules:
        import_module("torch")
        gc.freeze()
