"""The speed of a device: measured matrix products and the peak that its maker states. Measuring imports torch."""

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from gpt2tui.system.host_memory import free_bytes
from gpt2tui.system.numbers import counted

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16", "fp16"]

# Dense matrix products with fp32 accumulation, FLOP/s, from NVIDIA's data sheets. Ampere and later run bf16
# and fp16 at one rate; Volta and Turing have no bf16. A card that is not here has no known peak.
_BF16_AND_FP16_PEAKS = {
    r"B200": 2250e12,
    r"H200": 989e12,
    r"H100 80GB HBM3": 989e12,  # the SXM card's name
    r"H100 PCIe": 756e12,
    r"A100-.*|A100 80GB PCIe": 312e12,
    r"L40S": 362e12,
    r"L4": 121e12,
    r"A10G": 70e12,
    r"RTX 4090": 165e12,
    r"RTX 3090": 71e12,
}
_FP16_PEAKS = {r"V100-SXM2-.*": 125e12, r"V100-PCIE-.*": 112e12, r"T4": 65e12}

# The fraction of a GPU's peak that training a GPT reaches: PaLM (2022), table 3, has 21 % for GPT-3, 30 % for
# Megatron-Turing NLG and 46 % for PaLM itself.
TRAINING_FRACTION_OF_PEAK = 0.4

# Of a measured matrix product, what the products of a training step reach; what goes through memory is added by the
# estimate. fp32: processor time of one thread, AVX2 CPU without bf16, other programs running (steps varied by 4 to
# 7 %): the estimate is 0.80 (`test`), 1.04 (`small`) and 0.96 (`default`) times the measured step; 0.95 of that of
# `shakespeare-char`, to which the constants were not fitted. bf16 with AMX: 1.01 with 124 million parameters, 0.97
# with 30 million.
TRAINING_FRACTION_OF_PRODUCT = {"fp32": 0.83, "bf16": 0.19, "fp16": 0.19}

_PRODUCT_SIZES = (256, 512, 1024)  # rows and columns; the last is what the matrices of small GPT-2s have
_LIMIT_SIZE, _LIMIT_SIZE_ON_GPU = 2048, 8192  # a GPU does 2048 cubed in less time than it takes to ask for it
_LONGEST_PRODUCT_SECONDS = 0.5  # a CPU without bf16 instructions takes seconds for the largest
_COPIED_BYTES, _COPIED_BYTES_ON_GPU = 64 * 1024**2, 256 * 1024**2  # more than a cache holds
LIMIT_BYTES_ON_GPU = 2 * _COPIED_BYTES_ON_GPU + 3 * 4 * _LIMIT_SIZE_ON_GPU**2
"""What `measure_limit` takes at most: what is copied and its copy, and three fp32 matrices."""
_MEASURING_SECONDS = 0.1


@dataclass(frozen=True)
class DeviceSpeed:
    """The speed of a device in one precision; None where not known.

    `flops_per_second_achievable` is what training is expected to reach, `peak_flops` what the maker states,
    `memory_free_bytes` what training may take, `memory_bytes_per_second` reading and writing together,
    `process_bytes` what this process has of the device's memory where that is the host's.
    """

    name: str
    precision: Precision
    flops_per_second_achievable: float | None = None
    peak_flops: float | None = None
    memory_free_bytes: int | None = None
    memory_bytes_per_second: float | None = None
    process_bytes: int | None = None


def peak_flops(device_name: str, precision: Precision) -> float | None:
    """The stated peak of a GPU in FLOP/s for dense products, by the name torch reports; None when not known.

    None too for fp32, which depends on whether TF32 is on, and for a slice of a card (MIG).
    """
    name = re.sub(r"^(NVIDIA )?(GeForce |Tesla )?", "", device_name)
    if "MIG" in name.split():
        return None
    peaks = {"bf16": _BF16_AND_FP16_PEAKS, "fp16": _BF16_AND_FP16_PEAKS | _FP16_PEAKS, "fp32": {}}[precision]
    return next((peak for pattern, peak in peaks.items() if re.fullmatch(pattern, name)), None)


def measure(device: "torch.device", precision: Precision) -> DeviceSpeed:
    """The speed of a device: from its stated peak where that is known, else measured in a fraction of a second."""
    import psutil
    import torch

    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        free = torch.cuda.mem_get_info(device)[0]
        peak = peak_flops(name, precision)
        if peak is not None:
            return DeviceSpeed(name, precision, TRAINING_FRACTION_OF_PEAK * peak, peak, free)
        return DeviceSpeed(name, precision, _expected_from_product(device, precision), None, free)
    process_bytes = psutil.Process().memory_info().rss  # before the products, whose memory a training uses again
    return DeviceSpeed(
        name=counted(torch.get_num_threads(), "CPU thread") if device.type == "cpu" else device.type,
        precision=precision,
        flops_per_second_achievable=_expected_from_product(device, precision),
        memory_free_bytes=free_bytes(),
        memory_bytes_per_second=_copy_speed(device) if device.type == "cpu" else None,
        process_bytes=process_bytes,
    )


@dataclass(frozen=True)
class Limit:
    """What nothing on a device can exceed by much: FLOP/s of a large product, bytes a second of a copy."""

    product_flops: float
    copied_bytes: float
    product_size: int
    """The rows and columns of the square matrices."""


def measure_limit(device: "torch.device", precision: Precision) -> Limit:
    """The limit in one precision; takes a quarter of a second, or a few products on a slow device."""
    import torch

    size = _LIMIT_SIZE_ON_GPU if device.type == "cuda" else _LIMIT_SIZE
    # Random numbers: a GPU multiplies ones faster, because fewer of its bits change.
    a = torch.randn(size, size, dtype=_dtype(precision), device=device)
    return Limit(2 * size**3 / _product_seconds(a), _copy_speed(device), size)


def _expected_from_product(device: "torch.device", precision: Precision) -> float:
    """FLOP/s expected of training, from products of square matrices."""
    import torch

    rate = 0.0
    for size in _PRODUCT_SIZES:
        seconds = _product_seconds(torch.ones(size, size, dtype=_dtype(precision), device=device))
        rate = max(rate, 2 * size**3 / seconds)
        if 8 * seconds > _LONGEST_PRODUCT_SECONDS:  # which the next size would take
            break
    return TRAINING_FRACTION_OF_PRODUCT[precision] * rate


def _dtype(precision: Precision) -> "torch.dtype":
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def _product_seconds(a: "torch.Tensor") -> float:
    return _fastest_seconds(lambda: (a @ a)[0, 0].item())  # reading a number waits for the device


def _copy_speed(device: "torch.device") -> float:
    """Bytes read and written per second."""
    import torch

    copied = _COPIED_BYTES_ON_GPU if device.type == "cuda" else _COPIED_BYTES
    source = torch.ones(copied // 4, device=device)
    target = torch.empty_like(source)
    return 2 * copied / _fastest_seconds(lambda: target.copy_(source)[0].item())


def _fastest_seconds(work: Callable[[], object]) -> float:
    """The shortest repetition within _MEASURING_SECONDS: other programs only make a repetition longer."""
    work()  # the first one also allocates, and starts threads
    fastest, started = math.inf, time.perf_counter()
    while time.perf_counter() - started < _MEASURING_SECONDS:
        before = time.perf_counter()
        work()
        fastest = min(fastest, time.perf_counter() - before)
    return fastest
