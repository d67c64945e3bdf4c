"""The machine of a benchmark: its description, the load by other programs, and peak memory."""

import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch

from gpt2tui import __version__

BUSY_SHARE = 0.1  # of all cores: when other programs take more, times are not reproducible


def describe(device: torch.device) -> dict[str, Any]:
    """The machine and the versions of packages; None where not known or not installed."""
    on_cuda = device.type == "cuda"
    installed = [distribution.name for distribution in metadata.distributions(name="transformers")]
    return {
        "cpu": _cpu_model(),
        "physical_cores": psutil.cpu_count(logical=False),
        "logical_cores": psutil.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "memory_bytes": psutil.virtual_memory().total,
        "gpu": torch.cuda.get_device_name(device) if on_cuda else None,
        "gpu_memory_bytes": torch.cuda.get_device_properties(device).total_memory if on_cuda else None,
        "platform": platform.platform(),
        "versions": {
            "gpt2tui": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": metadata.version("transformers") if installed else None,
        },
    }


class OtherPrograms:
    """Measures the cores that other programs keep busy, from its creation on."""

    def __init__(self) -> None:
        self._before = self._seconds()

    def cores(self) -> float | None:
        """The mean until now, valid once child processes have ended; None on Windows, which lacks their time."""
        elapsed, others = (now - before for now, before in zip(self._seconds(), self._before, strict=True))
        return None if os.name == "nt" or elapsed <= 0 else max(0.0, others / elapsed)

    def _seconds(self) -> tuple[float, float]:
        """The time, and the seconds all cores together have worked for other programs."""
        everyone, own = psutil.cpu_times(), os.times()
        kinds = ("user", "nice", "system", "irq", "softirq", "steal")
        return own.elapsed, sum(getattr(everyone, kind, 0.0) for kind in kinds) - sum(own[:4])


def busy_note(cores: float | None) -> str | None:
    """A warning when other programs used this many cores; None when they used few."""
    if cores is None or cores <= BUSY_SHARE * (psutil.cpu_count() or 1):
        return None
    return f"other programs were using {cores:.1f} cores: times are unreliable, ratios less so"


def peak_memory(device: torch.device) -> dict[str, int | None]:
    """The most bytes this process has held so far: resident, and as torch's CUDA allocator counts them."""
    on_cuda = device.type == "cuda"
    return {
        "host_bytes": _peak_resident_bytes(),
        "device_allocated_bytes": torch.cuda.max_memory_allocated(device) if on_cuda else None,
        "device_reserved_bytes": torch.cuda.max_memory_reserved(device) if on_cuda else None,
    }


def _peak_resident_bytes() -> int | None:
    # psutil reports the peak on Windows only.
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage's ru_maxrss, which on Linux starts at the peak of the process that started this one.
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE)
        return int(found[1]) * 1024 if found else None
    if platform.system() != "Darwin":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _cpu_model() -> str | None:
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*: (.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    return found[1] if found else platform.processor() or None
