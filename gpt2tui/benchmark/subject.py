"""The subject of a benchmark: a preset with everything decided, and whether it fits this machine."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from gpt2tui.benchmark.generation import lengths
from gpt2tui.benchmark.job import batch_sizes, precision_of
from gpt2tui.data.joined_tokens import FilePart, parts_on_disk
from gpt2tui.data.readiness import ASSUMED_CHAR_VOCAB_SIZE
from gpt2tui.data.token_store import find_prepared
from gpt2tui.device import Precision, choose_device, choose_precision, precision_reason
from gpt2tui.errors import UsageError
from gpt2tui.estimate import approximate_duration, count_memory, estimate
from gpt2tui.model_files import check_quantizer
from gpt2tui.preset.files import LoadedPreset
from gpt2tui.preset.schema import Preset
from gpt2tui.system.device_speed import LIMIT_BYTES_ON_GPU
from gpt2tui.system.device_speed import measure as measure_device
from gpt2tui.system.files import cache_folder
from gpt2tui.system.numbers import byte_size

MOST_BUDGETS = 3  # times --seconds that one step, or one round of generation, may take
LONGEST_ADVISED = 300  # seconds


@dataclass(frozen=True)
class Subject:
    """A preset whose vocabulary, device and precision are decided, as a run would decide them."""

    name: str
    preset: Preset
    device: torch.device
    precision: Precision
    tokens: tuple[FilePart, ...]
    """Where the prepared training tokens lie; random tokens stand for none."""
    facts: dict[str, Any]
    """Its description in the JSON output."""


def resolve(loaded: LoadedPreset) -> Subject:
    """Decides what the preset leaves to the program; uses no network, prepares nothing. Raises ResourceError."""
    preset, t = loaded.preset, loaded.preset.training
    device = choose_device(t.device)
    precision = choose_precision(preset, device)
    prepared = find_prepared(preset, cache_folder())
    vocab_size = prepared.tokenizer.vocab_size if prepared else preset.known_vocab_size or ASSUMED_CHAR_VOCAB_SIZE
    tokens = parts_on_disk(prepared.train) if prepared and len(prepared.train) > t.sequence_length else ()
    decided = preset.with_vocab_size(preset.model.vocab_size or vocab_size)
    decided = decided.with_training(device=str(device), precision=precision)
    facts = {
        "preset": loaded.name,
        "parameters": decided.model.parameter_count(),
        "model": decided.model.model_dump(),
        "lora": decided.lora.model_dump() if decided.lora else None,
        "batch_size": t.batch_size,
        "gradient_accumulation": t.gradient_accumulation,
        "sequence_length": t.sequence_length,
        "tokens_per_step": preset.tokens_per_step,
        "optimizer": preset.optimizer.name,
        "compile": t.compile,
        "activation_checkpointing": t.activation_checkpointing,
        "device": str(device),
        "precision": precision,
        "precision_reason": precision_reason(preset, device),
        "source": preset.data.source,
        "tokens": "prepared" if tokens else "random",
    }
    return Subject(loaded.name, decided, device, precision, tokens, facts)


def reason_to_skip(
    subject: Subject, part: Literal["train", "generate"], candidates: Sequence[str], seconds: float
) -> str | None:
    """Why this part does not fit into free memory or takes much longer than `seconds`; None when it fits.

    Also what the preset needs and is not installed.
    """
    if part == "train" and subject.preset.lora is not None and subject.preset.lora.quantize:
        try:
            check_quantizer()
        except UsageError as error:
            return str(error)
    speed = _speed(subject.device, subject.precision if part == "train" else "fp32")  # generation has fp32 weights
    step = subject.preset.with_training(num_iterations=1, time_budget=0.0)
    costs = estimate(step, vocab_size=subject.preset.model.vocab_size or 0, train_tokens=None, device=speed)
    if part == "train":
        needed, takes, what = sum(_training_bytes(subject, name) for name in candidates), costs.seconds, "one step"
        needed += len(candidates) * LIMIT_BYTES_ON_GPU if subject.device.type == "cuda" else 0
    else:
        # in fp32, and in fp16 beside it
        needed, takes, what = 6 * costs.parameters.total * len(candidates), None, "generating once with each batch size"
        if speed.flops_per_second_achievable:  # a token is read once: a third of the work of training on it
            flops = costs.flops_per_token / 3 * sum(batch_sizes(subject.device)) * sum(lengths(subject.preset))
            takes = flops / speed.flops_per_second_achievable
    if speed.memory_free_bytes is not None and needed > speed.memory_free_bytes:
        them = f" for {len(candidates)} models side by side" if len(candidates) > 1 else ""
        return f"needs about {byte_size(needed)} of memory{them}; {byte_size(speed.memory_free_bytes)} are free"
    if takes is not None and takes > MOST_BUDGETS * seconds:
        least = math.ceil(takes / MOST_BUDGETS)
        hint = f"; --seconds {least} measures it nevertheless" if least <= LONGEST_ADVISED else ""
        return f"{what} would take about {approximate_duration(takes)} here{hint}"
    return None


_speed = functools.cache(measure_device)


def _training_bytes(subject: Subject, candidate: str) -> int:
    """The memory of a candidate's training; all but ours hold all logits, their logarithms and their gradient."""
    preset = subject.preset
    precision = precision_of(candidate, preset)
    memory = count_memory(preset, preset.model, precision, on_host=subject.device.type != "cuda")
    if candidate == "gpt2tui":
        return memory.total
    positions = preset.training.batch_size * preset.training.sequence_length
    return memory.total - memory.loss + 3 * 4 * positions * (preset.model.vocab_size or 0)
