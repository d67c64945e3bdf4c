"""What several ranks cost: the share of each in a step, and what they send to each other; computed without torch."""

from dataclasses import dataclass

from gpt2tui.estimate import Estimate
from gpt2tui.preset.schema import Preset
from gpt2tui.system.numbers import byte_size, counted


@dataclass(frozen=True)
class RankCosts:
    """What each of several ranks has to do in a step, and sends to the others."""

    ranks: int
    micro_batches: int
    """Of a step, on each rank."""
    tokens: int
    """Of a step, on each rank."""
    gradient_bytes: float
    """Sent by each rank in a step, in a ring: the gradients twice, but for its own share."""
    muon_bytes: float
    """Sent by each rank in a step: the updates that it has orthogonalised, to all others."""

    @property
    def traffic_bytes(self) -> float:
        """All that a rank sends in a step."""
        return self.gradient_bytes + self.muon_bytes


def rank_costs(preset: Preset, costs: Estimate, ranks: int) -> RankCosts:
    """The share of each of several ranks, which must divide the micro-batches of a step (`launch.check_ranks`).

    An all-reduce in a ring sends every number of the gradient 2 (n - 1) / n times from each rank (Patarasuk and Yuan
    2009, section 3).
    """
    others = (ranks - 1) / ranks
    by_muon = 12 * preset.model.n_layer * preset.model.n_embd**2 if preset.optimizer.name == "muon" else 0
    return RankCosts(
        ranks,
        preset.training.gradient_accumulation // ranks,
        preset.tokens_per_step // ranks,
        gradient_bytes=2 * others * 4 * costs.trained_parameters,
        muon_bytes=others * (4 if costs.precision == "fp32" else 2) * by_muon,
    )


def rank_lines(costs: RankCosts) -> list[str]:
    """The share of each rank as lines of text."""
    parts = [f"gradients {byte_size(int(costs.gradient_bytes))}"]
    if costs.muon_bytes:
        parts.append(f"Muon's updates {byte_size(int(costs.muon_bytes))}")
    return [
        f"ranks       {costs.ranks}, each with all weights, gradients and moments: the memory above is that of each; "
        f"{counted(costs.micro_batches, 'micro-batch', 'micro-batches')} of {costs.tokens:,} tokens in a step",
        f"traffic     {byte_size(int(costs.traffic_bytes))} sent by each rank in a step: {', '.join(parts)}",
    ]
