"""What to change in a preset whose training does not fit into memory; imports no torch."""

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from gpt2tui.estimate import Estimate, Memory, count_memory
from gpt2tui.preset.schema import LoraTable, Preset
from gpt2tui.system.numbers import byte_size

if TYPE_CHECKING:
    from gpt2tui.device import Precision


def step_memory(preset: Preset, precision: "Precision", *, on_host: bool = True) -> Memory:
    """The memory of a step, without the copy for a checkpoint: where there is no room for it, none is made."""
    without_copy = preset.with_training(checkpoint_frequency=0)
    return count_memory(without_copy, without_copy.model, precision, on_host=on_host)


def advice_for_memory(preset: Preset, precision: "Precision", free: int, *, on_host: bool = True) -> str:
    """What a step takes, and what to change so that it takes at most `free` bytes."""
    memory = step_memory(preset, precision, on_host=on_host)
    by_model = _of_model(memory)
    return (
        f"the model with its gradients and optimizer takes about {byte_size(by_model)}, the activations and logits of "
        f"batch_size = {preset.training.batch_size} take {byte_size(memory.total - by_model)}, of {byte_size(free)}: "
        f"{change_for_memory(preset, precision, free, on_host=on_host)}"
    )


def change_of(preset: Preset, costs: Estimate) -> str:
    """What to change in a preset whose estimate is too large."""
    assert costs.memory_free_bytes is not None
    full = preset.with_vocab_size(costs.parameters.token_embedding // preset.model.n_embd)
    free = costs.memory_free_bytes - costs.memory.libraries
    return change_for_memory(full, costs.precision, free, on_host=costs.memory.process > 0)


def change_for_memory(preset: Preset, precision: "Precision", free: int, *, on_host: bool = True) -> str:
    """What to change so that a step takes at most `free` bytes: the model, or the batch, whichever is too large."""

    def needed(changed: Preset) -> int:
        return step_memory(changed, precision, on_host=on_host).total

    training, memory = preset.training, step_memory(preset, precision, on_host=on_host)
    if _of_model(memory) >= free:
        return f"the model itself is too large; {_smaller_model(preset, free, needed)}"
    sequences = training.batch_size * training.gradient_accumulation
    # If all of it should fit, other programs take the rest, and half the batch is worth a try.
    largest = training.batch_size // 2 if memory.total <= free else training.batch_size - 1
    smaller = (size for size in _divisors(sequences) if size <= largest)
    size = next((size for size in smaller if needed(preset.with_training(batch_size=size)) <= free), None)
    if size is not None:
        return (
            f"choose training.batch_size = {size} and training.gradient_accumulation = {sequences // size}, "
            "which train the same"
        )
    recomputed = preset.with_training(batch_size=1, activation_checkpointing=True)
    if not training.activation_checkpointing and needed(recomputed) <= free:
        return (
            "choose training.activation_checkpointing = true, training.batch_size = 1 and "
            f"training.gradient_accumulation = {sequences}, which train the same in more time"
        )
    lengths = (training.sequence_length >> by for by in range(1, training.sequence_length.bit_length()))
    shorter = (preset.with_training(batch_size=1, sequence_length=length) for length in lengths)
    if (fitting := next((changed for changed in shorter if needed(changed) <= free), None)) is not None:
        return f"lower training.sequence_length to {fitting.training.sequence_length}, with batch_size = 1"
    return _smaller_model(preset, free, needed)


def _of_model(memory: Memory) -> int:
    """The bytes that do not depend on the batch."""
    return memory.weights + memory.weight_copies + memory.gradients + memory.optimizer


def _divisors(number: int) -> Iterator[int]:
    """From the largest on."""
    low = [size for size in range(1, math.isqrt(number) + 1) if number % size == 0]
    yield from (number // size for size in low)
    yield from (size for size in reversed(low) if size * size != number)


def _smaller_model(preset: Preset, free: int, needed: Callable[[Preset], int]) -> str:
    """A change of the optimizer or of the network with which one sequence fits."""
    one = preset.with_training(batch_size=1)
    if one.model.init_from is not None:
        return _less_of_a_given_model(one, free, needed)
    muon = one.model_copy(update={"optimizer": one.optimizer.model_copy(update={"name": "muon"})})
    if needed(muon) <= free < needed(one):
        return 'choose optimizer.name = "muon", which keeps one moment of each matrix instead of two'
    for key, unit in (("n_layer", 1), ("n_embd", preset.model.n_head)):
        for value in range(getattr(preset.model, key) - unit, 0, -unit):
            model = one.model.model_copy(update={key: value})
            if needed(one.model_copy(update={"model": model})) <= free:
                return f"lower model.{key} to {value}, and training.batch_size to 1"
    return "lower model.n_embd, model.n_layer or model.vocab_size"


def _less_of_a_given_model(one: Preset, free: int, needed: Callable[[Preset], int]) -> str:
    """Adapters beside weights whose shape is given; frozen ones have neither gradients nor moments."""
    lora = one.lora or LoraTable()
    ways = (
        ("train adapters alone, with the preset lora or lora.rank=8", lora),
        ('keep the frozen matrices in 4 bits, with lora.quantize = "nf4"', lora.model_copy(update={"quantize": "nf4"})),
    )
    for advice, table in ways:
        if table != one.lora and needed(one.model_copy(update={"lora": table})) <= free:
            return advice if one.training.batch_size == 1 else f"{advice}, and training.batch_size = 1"
    return "start from a smaller model"
