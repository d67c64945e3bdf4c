"""The memory this process can have: how much there is, freed blocks kept for the next step, torch imported once."""

import contextlib
import ctypes  # psutil reads how much memory there is; how the C library keeps it is set by the library itself
import gc
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

# Of <malloc.h>; glibc's manual, "Malloc Tunable Parameters".
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8

# Of cgroups(7): the groups of this process, and where they are mounted.
GROUPS = Path("/proc/self/cgroup")
MOUNTED = Path("/sys/fs/cgroup")


def free_bytes() -> int:
    """The bytes of memory that this process can still get, on the machine, in its container and by its own limit."""
    import psutil

    return max(0, min([psutil.virtual_memory().available, *(limit - used for limit, used in _limits())]))


def total_bytes() -> int:
    """The bytes of memory that this process can have at most."""
    import psutil

    return int(min([psutil.virtual_memory().total, *(limit for limit, _ in _limits())]))


def _limits() -> Iterator[tuple[int, int]]:
    """The limits below the machine's memory that hold for this process, each with the bytes used of it."""
    with contextlib.suppress(OSError, ValueError):
        for line in GROUPS.read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if not controllers:
                yield from _limits_of(MOUNTED, group, "memory.max", "memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                names = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
                yield from _limits_of(MOUNTED / "memory", group, *names)
    if sys.platform != "win32":
        import resource

        import psutil

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            yield limit, psutil.Process().memory_info().vms


def _limits_of(mounted: Path, group: str, limit: str, usage: str, cache: str) -> Iterator[tuple[int, int]]:
    """The limits of a control group and of those it is in; the cache of files counts as free.

    Inside a container the path may be the host's, of which only the root is there: the container itself.
    """
    folder = mounted / group.lstrip("/")
    for place in (folder, *folder.parents):
        with contextlib.suppress(OSError, ValueError):  # "max" is no limit; the root of all groups has no such file
            most, used = int((place / limit).read_text()), int((place / usage).read_text())
            counters = dict(line.split() for line in (place / "memory.stat").read_text().splitlines())
            yield most, used - int(counters.get(cache, 0))
        if place == mounted:
            return


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


@contextlib.contextmanager
def exempt_from_collection() -> Iterator[None]:
    """For imports, whose objects stay: no garbage collection looks at them, neither inside nor later.

    Those of torch are some hundred thousand, and each full collection would hold up the screen for a fifth of a
    second. Garbage that exists at the end is never collected.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def load_torch() -> None:
    """Imports torch, the first time, as `exempt_from_collection` says."""
    if "torch" not in sys.modules:
        with exempt_from_collection():
            import_module("torch")
