"""Device, precision and compilation of a run, with the reason for each: decided once, before the first step."""

import contextlib
import functools
import importlib.util
import os
import re
import shutil
import time
from dataclasses import dataclass
from typing import Literal

import torch

from gpt2tui.errors import ResourceError, UsageError
from gpt2tui.preset.schema import Preset

Precision = Literal["fp32", "bf16", "fp16"]

# Below this width the casts of autocast usually cost a CPU more than its faster products give back.
NARROWEST_FOR_BF16_ON_CPU = 256

# Compilation takes half a minute to a minute.
ITERATIONS_WORTH_COMPILING = {
    ("cuda", "bf16"): 500,
    ("cuda", "fp16"): 500,
    ("cuda", "fp32"): 500,
    ("cpu", "bf16"): 5_000,
}
TIME_BUDGET_WORTH_COMPILING = 300.0  # seconds


def choose_device(asked: str) -> torch.device:
    """The device of `[training] device`, a CUDA device with its index.

    Raises ResourceError when it is not there, UsageError when that names none.
    """
    if asked == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", _local_rank())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if not re.fullmatch(r"cpu|mps|cuda(:\d{1,3})?", asked):
        raise UsageError(f"{asked!r} is not a device; choose auto, cpu, cuda, cuda:0 or mps")
    kind, _, index = asked.partition(":")
    # Before torch reads it, which keeps the index in 8 bits.
    if kind == "cuda" and int(index or _local_rank()) >= torch.cuda.device_count():
        raise ResourceError(
            f'the device "{asked}" was asked for, but torch {torch.__version__} sees '
            f'{torch.cuda.device_count()} CUDA devices; use device = "auto", or install a torch built for your GPU'
        )
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ResourceError('the device "mps" was asked for, but this machine has no Metal device; use device = "auto"')
    return torch.device(kind, int(index or _local_rank())) if kind == "cuda" else torch.device(kind)


def _local_rank() -> int:
    """Which of its machine's devices a process of torchrun uses; 0 for a process alone."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def device_name(device: torch.device) -> str:
    """A GPU's name, else the type of the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def synchronize(device: torch.device) -> None:
    """Waits until a GPU has finished the work that this thread has queued; returns at once on other devices."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


Mark = float | torch.cuda.Event


def time_mark(device: torch.device) -> Mark:
    """A point in time; on CUDA in the work that this thread has queued, recorded without waiting for the GPU."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def seconds_between(first: Mark, second: Mark) -> float:
    """The seconds from one mark to a later one; on CUDA it waits until the GPU has reached both."""
    if isinstance(first, float) or isinstance(second, float):
        assert isinstance(first, float), "two marks of one device"
        assert isinstance(second, float), "two marks of one device"
        return second - first
    second.synchronize()
    return float(first.elapsed_time(second)) / 1000


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed; the CPU's allocator raises a plain RuntimeError, and so does MPS."""
    words = ("can't allocate memory", "out of memory", "Cannot allocate memory")  # the last from mapping a file
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in words)


@functools.cache
def bf16_is_native(device: torch.device) -> bool:
    """Whether the device multiplies bf16 matrices in hardware, faster than fp32 ones."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        features = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}  # torch >= 2.11
        return any(features.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))
    return False


def choose_precision(preset: Preset, device: torch.device) -> Precision:
    """The number format of matrix products: the preset's, or with "auto" what this device is usually fastest at.

    "auto" is bf16 where the device multiplies it in hardware, on a CPU only from a width of 256 on, else fp32; fp16
    on CUDA devices without bf16. Raises ResourceError for fp16 on a CPU.
    """
    return _precision_and_reason(preset, device)[0]


def precision_reason(preset: Preset, device: torch.device) -> str:
    """Why `choose_precision` decides as it does. Raises ResourceError for fp16 on a CPU."""
    return _precision_and_reason(preset, device)[1]


def _precision_and_reason(preset: Preset, device: torch.device) -> tuple[Precision, str]:
    asked, width = preset.training.precision, preset.model.n_embd
    if asked != "auto":
        if asked == "fp16" and device.type == "cpu":
            raise ResourceError('training.precision = "fp16" needs a GPU; on the CPU choose fp32, bf16 or auto')
        return asked, f"training.precision = {asked}"
    kind = {"cpu": "CPU", "cuda": "GPU"}.get(device.type, device.type)
    if not bf16_is_native(device):
        precision: Precision = "fp16" if device.type == "cuda" else "fp32"
        return precision, f"auto: this {kind} has no bf16 instructions"
    if device.type == "cpu" and width < NARROWEST_FOR_BF16_ON_CPU:
        return "fp32", f"auto: n_embd = {width} is too narrow for a CPU to gain from bf16"
    return "bf16", f"auto: this {kind} multiplies bf16 in hardware"


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[None]:
    """The context for forward passes: weights stay fp32, matrix products run in `precision`."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16 if precision == "bf16" else torch.float16)


@dataclass(frozen=True)
class Compilation:
    """Whether to compile, and why; `note` is the warning when it was asked for or expected but is not possible."""

    wanted: bool
    reason: str
    note: str | None = None


def choose_compilation(preset: Preset, device: torch.device) -> Compilation:
    """Decides `[training] compile`.

    "auto" compiles on CUDA from 500 iterations on, and on a CPU from 5,000 on if products are in bf16: there a
    compiler fuses the casts (6 layers, 384 wide: 681 to 475 ms per step), while in fp32 it gains at most 6 %. A time
    budget must also be long enough.
    """
    asked, steps, budget = preset.training.compile, preset.training.num_iterations, preset.training.time_budget
    precision = choose_precision(preset, device)
    fewest = ITERATIONS_WORTH_COMPILING.get((device.type, precision))
    wanted, reason = asked == "on", f"training.compile = {asked}"
    if asked == "auto" and fewest is None:
        reason = f"auto: on {device.type} in {precision} compiled code is hardly faster"
    elif asked == "auto" and fewest is not None:
        wanted = steps >= fewest
        reason = f"auto: {steps:,} iterations; on {device.type} in {precision} compiling pays from {fewest:,} on"
        if 0 < budget < TIME_BUDGET_WORTH_COMPILING:
            wanted = False
            reason = f"auto: compiling takes up to a minute of the time budget of {budget:g} s"
    if wanted and (missing := _missing_compiler(device)):
        return Compilation(False, missing, f"not compiled: {missing}; training runs the slower eager code")
    return Compilation(wanted, reason)


def _missing_compiler(device: torch.device) -> str | None:
    if device.type == "cpu" and not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        return "no C++ compiler was found (install g++ or clang)"
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    return None
