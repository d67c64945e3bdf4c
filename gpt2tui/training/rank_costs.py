"""What several ranks cost: the share of each in a step, and what they send to each other; computed without torch."""

import dataclasses
from dataclasses import dataclass

from gpt2tui.estimate import Estimate, Memory
from gpt2tui.preset.schema import Preset
from gpt2tui.system.numbers import byte_size, counted


@dataclass(frozen=True)
class RankCosts:
    """What each of several ranks has to do in a step, and sends to the others."""

    ranks: int
    strategy: str
    micro_batches: int
    """Of a step, on each rank."""
    tokens: int
    """Of a step, on each rank."""
    memory: Memory
    """Of each rank."""
    weight_bytes: float
    """Sent by each rank in a step with fsdp: its share of the weights, each time that a block is gathered."""
    gradient_bytes: float
    """Sent by each rank in a step, in a ring: with ddp the gradients twice, with fsdp once, but for its own share."""
    muon_bytes: float
    """Sent by each rank in a step: the updates that it has orthogonalised, to all others; with fsdp also its share of
    each update before that."""

    @property
    def traffic_bytes(self) -> float:
        """All that a rank sends in a step."""
        return self.weight_bytes + self.gradient_bytes + self.muon_bytes


def rank_costs(preset: Preset, costs: Estimate, ranks: int) -> RankCosts:
    """The share of each of several ranks, which must divide the micro-batches of a step (`launch.check_ranks`).

    An all-reduce in a ring sends every number 2 (n - 1) / n times from each rank (Patarasuk and Yuan 2009, section 3);
    an all-gather and a reduce-scatter are half of it each.
    """
    others = (ranks - 1) / ranks
    micro_batches = preset.training.gradient_accumulation // ranks
    by_muon = 12 * preset.model.n_layer * preset.model.n_embd**2 if preset.optimizer.name == "muon" else 0
    updates = others * (4 if costs.precision == "fp32" else 2) * by_muon
    gradients, weights = 2 * others * 4 * costs.trained_parameters, 0.0
    if preset.is_sharded:
        gathered = 2 if preset.distributed is not None and preset.distributed.reshard_after_forward else 1
        weights = gathered * micro_batches * others * 4 * costs.parameters.total
        gradients /= 2
        updates += others * 4 * by_muon
    memory = sharded_memory(costs.memory, preset, costs.parameters.token_embedding, ranks)
    tokens = preset.tokens_per_step // ranks
    strategy = "fsdp" if preset.is_sharded else "ddp"
    return RankCosts(ranks, strategy, micro_batches, tokens, memory, weights, gradients, updates)


def sharded_memory(memory: Memory, preset: Preset, token_embedding: int, ranks: int) -> Memory:
    """The memory of each rank: with fsdp a share of weights, gradients and moments, and what is gathered besides.

    Gathered are the embeddings, which are whole from the forward pass to the end of the backward pass, and two blocks,
    of which one is fetched while the other computes; their gradients are whole until they are divided.
    """
    if not preset.is_sharded or ranks == 1:
        return memory
    C = preset.model.n_embd
    gathered = 4 * (token_embedding + preset.model.n_positions * C + 2 * 12 * C * C)
    return dataclasses.replace(
        memory,
        weights=min(memory.weights, -(-memory.weights // ranks) + gathered),
        gradients=min(memory.gradients, -(-memory.gradients // ranks) + gathered),
        optimizer=-(-memory.optimizer // ranks),
    )


def rank_lines(costs: RankCosts) -> list[str]:
    """The share of each rank as lines of text."""
    sent = {"weights": costs.weight_bytes, "gradients": costs.gradient_bytes, "Muon's updates": costs.muon_bytes}
    parts = ", ".join(f"{name} {byte_size(int(size))}" for name, size in sent.items() if size)
    kinds = dataclasses.asdict(costs.memory)
    memory = ", ".join(f"{name.replace('_', ' ')} {byte_size(size)}" for name, size in kinds.items() if size)
    return [
        f"ranks       {costs.ranks} ({costs.strategy}), each with "
        f"{counted(costs.micro_batches, 'micro-batch', 'micro-batches')} of a step, {costs.tokens:,} tokens",
        f"            memory of each {byte_size(costs.memory.total)}: {memory}",
        f"traffic     {byte_size(int(costs.traffic_bytes))} sent by each rank in a step: {parts or 'nothing'}",
    ]
