"""How this process holds memory: a training wants at each step what it gave back at the one before."""

import contextlib
import ctypes  # psutil reads how much memory there is; how the C library keeps it is set by the library itself
import gc
import sys
from importlib import import_module

# Of <malloc.h>; glibc's manual, "Malloc Tunable Parameters".
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> None:
    """Large blocks come from one heap, which keeps what is freed. To be called before there are threads.

    glibc gets each block above 32 MB from the system and gives it back when it is freed, so that every step of a
    training on the CPU pays for a hundred thousand page faults: a sixth of its time with 50,257 tokens. A thread's own
    heap has no room for such blocks, hence the one heap. Other C libraries stay as they are.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def give_back_freed_memory() -> None:
    """Once, to the system: for the end of a training in a process that goes on."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


# ---- torch, brought into a process that has a screen


def load_torch() -> None:
    """Imports torch, and everything that came with it leaves the garbage collector's sight.

    It is some hundred thousand objects that stay until the end. Each full collection would look at all of them and
    hold up the screen, a fifth of a second at a time. Once only: what is garbage at that moment stays too.
    """
    if "torch" not in sys.modules:
        import_module("torch")
        gc.freeze()
