"""What a preset costs: parameters, tokens, memory, FLOPs, time; computed without torch.

C is the width n_embd, L the layers n_layer, V the vocabulary, B the micro-batch, T the sequence length.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from gpt2tui.model.config import GPT2Config
from gpt2tui.preset.schema import Preset
from gpt2tui.system.device_speed import DeviceSpeed, Precision
from gpt2tui.system.numbers import byte_size, compact, counted, exact_percent

CHINCHILLA_TOKENS_PER_PARAMETER = 20  # Hoffmann et al. 2022, table 3: about 20 at every size

# AdamW reads weight, gradient and two moments and writes three of them: seven numbers of 4 bytes.
UPDATE_BYTES_PER_PARAMETER = 28

# How often the numbers that are kept for the backward pass, and the logits in fp32, go through memory in a step:
# layer norms, GELU, softmax, their gradients, casts. Fitted with TRAINING_FRACTION_OF_PRODUCT, see there.
PASSES_OVER_ACTIVATIONS = 20

# CHUNK_LOGITS, CPU_CHUNK_LOGITS and COMPILED_LOGITS of model/loss.py, which imports torch.
LOSS_CHUNK_LOGITS, LOSS_CHUNK_LOGITS_ON_CPU, COMPILED_LOGITS = 2**28, 2**25, 2**30
NEWTON_SCHULZ_STEPS = 5  # of torch.optim.Muon

# 4 bits a number, 8 for the scale of 64 and 32 for that of 256 scales (QLoRA, Dettmers et al. 2023, section 3).
NF4_BYTES = 1 / 2 + 1 / 64 + 4 / (64 * 256)

LIBRARY_BYTES = 50_000_000  # what the first steps load beyond torch: optimizers, threads' stacks
COMPILER_BYTES = 120_000_000  # torch's compiler
QUANTIZER_BYTES = 45_000_000  # bitsandbytes and what it imports
# A heap is left with holes where matrices were made whole from NF4 and freed between activations that stay: this part
# of their fp32 bytes, fitted to 124M (0.79) and 355M (0.85) of random weights at 1,024 tokens a step, and not more than
# the activations.
NF4_HOLES = 0.8


@dataclass(frozen=True)
class Parameters:
    """The trainable parameters of each part; the tied embedding, which is also the head, counts once."""

    token_embedding: int
    position_embedding: int
    attention: int
    mlp: int
    layer_norms: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(dataclasses.astuple(self))


@dataclass(frozen=True)
class Memory:
    """Bytes on one device by kind, at the start of a backward pass, when they are most.

    `checkpoint`, `process` and `libraries` are in the memory of the host, and 0 for a GPU. `process` is what this
    process has taken already, `libraries` what it loads for the first steps.
    """

    weights: int
    weight_copies: int
    gradients: int
    optimizer: int
    activations: int
    temporaries: int
    loss: int
    checkpoint: int
    process: int
    libraries: int
    loading: int = 0
    """What reading the weights needs beyond all this, where they are quantised: then they are there in fp32."""

    @property
    def total(self) -> int:
        """All kinds together: on a CPU the largest resident size of the process."""
        return sum(dataclasses.astuple(self))

    @property
    def still_needed(self) -> int:
        """Bytes that must be free for the run: all but what this process has taken already."""
        return self.total - self.process


@dataclass(frozen=True)
class Estimate:
    """The cost of a run; None where what it depends on is not known. `seconds` are of training steps only.

    With a time budget, `steps` and what follows from them (tokens, epochs, FLOPs) are those that fit into it, or an
    upper bound, `steps_are_a_bound`, while the speed of the device is not known. `seconds` are a bound where the
    budget ends the run, or may end it.
    """

    parameters: Parameters
    trained_parameters: int
    """All of them, or those of the adapters, which are not among `parameters`."""
    steps: int
    steps_are_a_bound: bool
    tokens_per_step: int
    tokens: int
    tokens_per_parameter: float
    epochs: float | None
    precision: Precision
    memory: Memory
    memory_free_bytes: int | None
    flops_per_token: float
    flops: float
    device: str | None
    seconds: float | None
    seconds_are_a_bound: bool

    @property
    def bounds(self) -> list[str]:
        """The names of the numbers that are upper bounds: the true ones are at most these."""
        of_steps = ("steps", "tokens", "tokens_per_parameter", "epochs", "flops") if self.steps_are_a_bound else ()
        return [*of_steps, *(["seconds"] if self.seconds_are_a_bound else [])]

    @property
    def is_too_large(self) -> bool:
        """Whether it takes more memory than is free."""
        return self.memory_free_bytes is not None and self.memory.still_needed > self.memory_free_bytes

    @property
    def memory_available_bytes(self) -> int | None:
        """Bytes that this process can have in all: those that are free and those that it has taken already."""
        return None if self.memory_free_bytes is None else self.memory_free_bytes + self.memory.process


def estimate(
    preset: Preset,
    *,
    vocab_size: int,
    train_tokens: int | None,
    device: DeviceSpeed | None,
    world_size: int = 1,
) -> Estimate:
    """The cost of a preset's run with this vocabulary, on `world_size` such devices.

    `train_tokens` is the size of the training split in tokens, None when not known. With precision "auto" it is the
    one in which the device was measured, else fp32.
    """
    config = preset.model.model_copy(update={"vocab_size": vocab_size})
    parts = count_parameters(config)
    asked = preset.training.precision
    precision = asked if asked != "auto" else device.precision if device else "fp32"
    per_token = flops_per_token(preset.with_vocab_size(vocab_size))
    flops_per_step = per_token * preset.tokens_per_step + muon_flops(preset, precision)
    trained = adapter_parameters(preset, config) or parts.total
    step_seconds = _step_seconds(preset, config, flops_per_step, device, world_size, precision)
    steps = _steps(preset, step_seconds)
    tokens = steps * preset.tokens_per_step
    return Estimate(
        parameters=parts,
        trained_parameters=trained,
        steps=steps,
        steps_are_a_bound=bool(preset.training.time_budget) and step_seconds is None,
        tokens_per_step=preset.tokens_per_step,
        tokens=tokens,
        tokens_per_parameter=tokens / parts.total,
        epochs=tokens / train_tokens if train_tokens else None,
        precision=precision,
        memory=count_memory(
            preset,
            config,
            precision,
            on_host=device is None or device.process_bytes is not None,
            process_bytes=(device.process_bytes if device else None) or 0,
        ),
        memory_free_bytes=device.memory_free_bytes if device else None,
        flops_per_token=per_token,
        flops=steps * flops_per_step,
        device=device.name if device else None,
        seconds=_seconds(preset, step_seconds),
        seconds_are_a_bound=_budget_ends(preset, step_seconds),
    )


def count_parameters(config: GPT2Config) -> Parameters:
    """The parameters by part; they add up to parameter_count. Raises ValueError without vocab_size."""
    if config.vocab_size is None:
        raise ValueError("vocab_size is not known yet: it comes from the tokenizer")
    C, L, bias = config.n_embd, config.n_layer, int(config.bias)
    return Parameters(
        token_embedding=config.vocab_size * C,
        position_embedding=config.n_positions * C,
        attention=L * (4 * C * C + bias * 4 * C),
        mlp=L * (8 * C * C + bias * 5 * C),
        layer_norms=(2 * L + 1) * (C + bias * C),
    )


def adapter_parameters(preset: Preset, config: GPT2Config) -> int:
    """The parameters of the adapters of [lora], rank * (in + out) for each matrix; 0 without."""
    if preset.lora is None:
        return 0
    C = config.n_embd
    widths = {"attn.c_attn": C + 3 * C, "attn.c_proj": C + C, "mlp.c_fc": C + 4 * C, "mlp.c_proj": 4 * C + C}
    return config.n_layer * preset.lora.rank * sum(widths[target] for target in preset.lora.targets)


def flops_per_token(preset: Preset) -> float:
    """FLOPs of training on one token, forward and backward: 6 N + 12 L C T (PaLM 2022, appendix B).

    A third of the first term is for the gradients of weights. Frozen ones have none, but each of the n numbers of
    adapters costs 6 FLOPs too: 4 N + 6 n + 12 L C T.

    N is every parameter that multiplies an activation: the blocks, the last layer norm and the head, which is
    the token embedding; the position embedding is only added. The second term is attention's two products,
    in full as in that paper although half of each is masked. Raises ValueError while vocab_size is not known.
    """
    parts = count_parameters(preset.model)
    N = parts.total - parts.position_embedding
    adapters = adapter_parameters(preset, preset.model)
    for_weights = 4 * N + 6 * adapters if adapters else 6 * N
    return for_weights + 12 * preset.model.n_layer * preset.model.n_embd * preset.training.sequence_length


def muon_flops(preset: Preset, precision: Precision) -> float:
    """FLOPs of Muon's orthogonalisations in one step; 0 with AdamW, whose update is bound by memory instead.

    A Newton-Schulz iteration on an (m, n) matrix, m <= n, is products of 2 m m n, 2 m m m and 2 m m n FLOPs (Jordan et
    al. 2024). A block has four square matrices, qkv being three, and two of (C, 4C). In fp32 those two are iterated
    through their Gram matrix: two products of 2 m m n in all, and besides 4 of 2 m m m a step, less 3 at the ends.
    """
    if preset.optimizer.name != "muon":
        return 0.0
    steps, cube = NEWTON_SCHULZ_STEPS, 2 * preset.model.n_embd**3
    square = steps * 3 * cube
    wide = (2 * 4 + 4 * steps - 3) * cube if precision == "fp32" else steps * (2 * 4 + 1) * cube
    return float(preset.model.n_layer * (4 * square + 2 * wide))


def count_memory(
    preset: Preset, config: GPT2Config, precision: Precision, *, on_host: bool = True, process_bytes: int = 0
) -> Memory:
    """Bytes on one device under autocast: weights, gradients and moments are fp32, products in the precision.

    AdamW keeps two moments, 8 bytes per parameter; Muon one, of 4 bytes, for the 12 C C numbers of a block's
    matrices. With [lora] only the adapters have gradients and moments. In fp16 and bf16 autocast keeps a cast copy of
    every matrix until the backward pass used it. A checkpoint is written from a copy of what is trained and its
    moments. With lora.quantize the matrices of the blocks are NF4, one at a time is whole, and on the host all weights
    are in fp32 while they are read, and the heap gets holes. `on_host`: whether the device's memory is that of the
    host, in which there are that copy, unless no checkpoint is saved while training, the process itself of
    `process_bytes`, and the libraries that it still loads.
    """
    parts, size = count_parameters(config), 4 if precision == "fp32" else 2
    by_muon = 12 * config.n_layer * config.n_embd**2 if preset.optimizer.name == "muon" else 0
    C, in_blocks = config.n_embd, 12 * config.n_layer * config.n_embd**2
    nf4 = in_blocks if preset.lora is not None and preset.lora.quantize else 0
    matrices = parts.token_embedding + in_blocks - nf4
    adapters = adapter_parameters(preset, config)
    trained = adapters or parts.total
    moments = 8 * (trained - by_muon) + 4 * by_muon
    B, T = preset.training.batch_size, preset.training.sequence_length
    activations = activation_bytes(
        config, B, T, size, on_cpu=on_host, checkpointed=preset.training.activation_checkpointing
    )
    memory = Memory(
        weights=4 * (parts.total - nf4 + adapters) + round(nf4 * NF4_BYTES),
        weight_copies=0 if precision == "fp32" else size * matrices,
        gradients=4 * trained,
        optimizer=moments,
        activations=activations,
        temporaries=temporary_bytes(config, B, T, size, on_cpu=on_host)
        + (4 * C * C * (4 if size == 4 else 4 + size) if nf4 else 0)
        + (min(activations, round(4 * nf4 * NF4_HOLES)) if on_host else 0),
        loss=loss_bytes(
            config,
            parts.token_embedding // config.n_embd,
            B * T,
            size,
            on_cpu=on_host,
            is_frozen=bool(adapters),
            is_eager=preset.training.compile == "off",
        ),
        checkpoint=4 * trained + moments if on_host and preset.training.checkpoint_frequency else 0,
        process=process_bytes,
        libraries=LIBRARY_BYTES + QUANTIZER_BYTES * bool(nf4) + COMPILER_BYTES * (preset.training.compile == "on")
        if process_bytes
        else 0,
    )
    beyond = 4 * parts.total + memory.process - memory.total if nf4 and on_host else 0
    return dataclasses.replace(memory, loading=max(0, beyond))


def activation_bytes(
    config: GPT2Config,
    batch_size: int,
    sequence_length: int,
    size: int,
    *,
    on_cpu: bool = True,
    checkpointed: bool = False,
) -> int:
    """Bytes kept for the backward pass, numbers in products having `size` bytes.

    The count of Korthikanti et al. 2022, section 4.1, a token and layer: the inputs of qkv (C), q, k, v (3C),
    the inputs of the output projection (C), of the MLP (C), of GELU (4C) and of what follows it (4C): 14 C
    numbers in the precision; the inputs of the two layer norms, 2 C in fp32. Of the attention matrix only one fp32
    number a head is kept (Dao et al. 2022, FlashAttention). Behind the blocks: the last layer norm's input and output,
    in fp32.

    Dropout on a GPU keeps a mask of one byte a number, 2 C a layer and C behind the embedding. A CPU keeps the factors
    themselves, and has no attention with dropout that does without the matrix: q, k and v in fp32, the softmax, the
    factors and their product are kept, three matrices of T x T fp32 numbers a head.

    With activation checkpointing one block at a time has all of this, and the others only their inputs, in fp32.
    """
    C, T = config.n_embd, sequence_length
    tokens = batch_size * T
    per_layer, outside = 14 * C * size + 2 * C * 4 + 4 * config.n_head, 2 * C * 4
    if config.dropout and on_cpu:
        per_layer += 2 * C * size + 3 * C * (4 - size) - 4 * config.n_head + 3 * config.n_head * T * 4
        outside += C * 4
    elif config.dropout:
        per_layer += 2 * C
        outside += C
    of_blocks = per_layer + (config.n_layer - 1) * C * 4 if checkpointed else config.n_layer * per_layer
    return tokens * (of_blocks + outside)


def recomputed_flops_per_token(preset: Preset) -> float:
    """FLOPs of activation checkpointing beyond those of `flops_per_token`: the forward pass of the blocks once more.

    But for the last product of each, of 4 C C weights, which no gradient needs.
    """
    if not preset.training.activation_checkpointing:
        return 0.0
    parts, L, C = count_parameters(preset.model), preset.model.n_layer, preset.model.n_embd
    return float(2 * (parts.attention + parts.mlp - 4 * L * C * C) + 4 * L * C * preset.training.sequence_length)


def temporary_bytes(
    config: GPT2Config, batch_size: int, sequence_length: int, size: int, *, on_cpu: bool = True
) -> int:
    """Bytes that the backward pass of one block takes besides: gradients of what it is going through.

    In the MLP the gradients of GELU's output and input, 4C each, and three of width C; on a CPU with dropout also those
    of three attention matrices, for which a heap that keeps freed blocks of other sizes has no room.
    """
    per_token = 11 * config.n_embd * size
    if config.dropout and on_cpu:
        per_token += 3 * config.n_head * sequence_length * 4
    return batch_size * sequence_length * per_token


def loss_bytes(
    config: GPT2Config,
    vocab_size: int,
    tokens: int,
    size: int,
    *,
    on_cpu: bool = True,
    is_frozen: bool = False,
    is_eager: bool = False,
) -> int:
    """Bytes of the loss: one chunk of logits, which its gradient overwrites, and the head's gradient.

    In half precision the chunk also exists in fp32 while its softmax is taken. The head's gradient is made
    with the loss, before the backward pass makes the one that counts under gradients; a head that is frozen has none.
    Compiled code on a GPU holds all logits and their gradient, unless they are too many, without an fp32 copy: the
    larger of the two counts, unless the run is eager in any case.
    """
    chunk = LOSS_CHUNK_LOGITS_ON_CPU if on_cpu else LOSS_CHUNK_LOGITS
    rows = math.ceil(tokens / math.ceil(tokens / max(1, chunk // vocab_size)))  # chunks of one size
    head = 0 if is_frozen else 4 * vocab_size * config.n_embd
    in_chunks = rows * vocab_size * (4 if size == 4 else size + 4)
    at_once = 0 if on_cpu or is_eager or tokens * vocab_size > COMPILED_LOGITS else 2 * size * tokens * vocab_size
    return max(in_chunks, at_once) + head


def as_dict(estimate: Estimate) -> dict[str, Any]:
    """The estimate for JSON, totals included; None where not known."""
    described = dataclasses.asdict(estimate)
    described["parameters"]["total"] = estimate.parameters.total
    described["memory"]["total"] = estimate.memory.total
    described["bounds"] = estimate.bounds
    return described


def report_lines(estimate: Estimate) -> list[str]:
    """The estimate as lines of text."""
    parameters, memory = estimate.parameters, estimate.memory
    chinchilla = CHINCHILLA_TOKENS_PER_PARAMETER
    most = "at most " if estimate.steps_are_a_bound else ""
    return [
        f"parameters  {parameters.total:,}: {_by_kind(dataclasses.asdict(parameters), compact)}",
        *(
            []
            if estimate.trained_parameters == parameters.total
            else [f"adapters    {estimate.trained_parameters:,} parameters, the only ones that are trained"]
        ),
        f"tokens      {estimate.tokens_per_step:,} per step, {most}{compact(estimate.tokens)} in all, "
        f"{most}{estimate.tokens_per_parameter:.3g} per parameter (Chinchilla's optimum is about {chinchilla})",
        "data        " + _epochs(estimate.epochs, most),
        f"memory      {memory_text(estimate)}: {_by_kind(dataclasses.asdict(memory), byte_size)}",
        f"compute     {most}{estimate.flops:.3g} FLOPs in {estimate.precision}, "
        f"{estimate.flops_per_token:.3g} of them per token",
        "time        " + _time(estimate),
    ]


def _step_seconds(
    preset: Preset, config: GPT2Config, flops: float, device: DeviceSpeed | None, world_size: int, precision: Precision
) -> float | None:
    """Products at the device's speed and, where the speed of its memory was measured, what passes through that.

    The ranks share products and activations; the update of the weights is made by each.
    """
    if device is None or not device.flops_per_second_achievable:
        return None
    flops += recomputed_flops_per_token(preset.with_vocab_size(config.vocab_size or 0)) * preset.tokens_per_step
    seconds = flops / device.flops_per_second_achievable / world_size
    if device.memory_bytes_per_second:
        B, T, V = preset.training.batch_size, preset.training.sequence_length, config.vocab_size or 0
        kept = activation_bytes(config, B, T, 4 if precision == "fp32" else 2) + 4 * B * T * V
        passing = PASSES_OVER_ACTIVATIONS * kept * preset.training.gradient_accumulation / world_size
        passing += UPDATE_BYTES_PER_PARAMETER * (adapter_parameters(preset, config) or count_parameters(config).total)
        seconds += passing / device.memory_bytes_per_second
    return seconds


def _steps(preset: Preset, step_seconds: float | None) -> int:
    """The steps that fit into the time budget, at least one after the warm-up; all of them where none is known."""
    most, budget = preset.training.num_iterations, preset.training.time_budget
    if not budget or step_seconds is None:
        return most
    return min(most, max(int(budget / step_seconds), preset.schedule.warmup_iterations + 1))


def _seconds(preset: Preset, step_seconds: float | None) -> float | None:
    """What all steps take, or the time budget that ends them."""
    if _budget_ends(preset, step_seconds):
        return preset.training.time_budget
    return None if step_seconds is None else preset.training.num_iterations * step_seconds


def _budget_ends(preset: Preset, step_seconds: float | None) -> bool:
    """Whether the time budget ends the run, or may end it because the speed is not known."""
    budget = preset.training.time_budget
    return bool(budget) and (step_seconds is None or preset.training.num_iterations * step_seconds > budget)


def memory_text(estimate: Estimate) -> str:
    """`2.51 GB of 8.35 GB`: what the process will have, of what it can have where that is known."""
    available = estimate.memory_available_bytes
    return byte_size(estimate.memory.total) + ("" if available is None else f" of {byte_size(available)}")


def _by_kind(kinds: dict[str, int], shown: Any) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {shown(value)}" for name, value in kinds.items() if value)


def _epochs(epochs: float | None, most: str = "") -> str:
    if epochs is None:
        return "the size of the corpus is not known yet"
    if epochs <= 1:
        return f"{most}{exact_percent(epochs)} of the corpus is read, no part of it twice"
    return f"the corpus is read {most}{counted(epochs, 'time')}"


def _time(estimate: Estimate) -> str:
    if estimate.seconds is None:
        return "not known: the speed of the device is not" + (f" ({estimate.device})" if estimate.device else "")
    about = "at most" if estimate.seconds_are_a_bound else "about"
    where = f" on {estimate.device}" if estimate.device else ""
    duration = approximate_duration(estimate.seconds)
    if estimate.seconds_are_a_bound:
        return f"{about} {duration}{where}, from the preparation to the last evaluation"
    return f"{about} {duration} of training steps{where}; evaluations and samples come on top"


def approximate_duration(seconds: float) -> str:
    """A time in its two largest units, such as `2 h 5 min`."""
    if seconds < 90:
        return f"{max(1, math.ceil(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    if days < 2 * 365:
        return f"{days:,} days {hours} h"
    return f"{days / 365.25:,.0f} years"
