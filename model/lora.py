"""LoRA (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models"): adapters beside frozen matrices.

A matrix W (out, in) stays as it is, and scale * B A is added to it: A (rank, in) begins random, B (out, rank) as zeros,
so that nothing changes before the first step. The scale is alpha / rank, or alpha / sqrt(rank) (rsLoRA, Kalajdzievski
2023). Files have the names and the configuration of the PEFT library.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from gpt2tui.model.gpt2 import GPT2
from gpt2tui.model.published_config import shortened

PEFT_PREFIX = "base_model.model.transformer."
FACTORS = (".lora_A.weight", ".lora_B.weight")
LORA_MATRICES = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
"""The matrices of a block, each of which may have an adapter."""

# What changes the arithmetic of an adapter in PEFT, with the values under which it is that of this file.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "lora_bias": (False, None),
    "use_dora": (False, None),
    "use_qalora": (False, None),
    "modules_to_save": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "layer_replication": (None,),
    "target_parameters": (None, []),
    "trainable_token_indices": (None, {}, []),
}
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq")  # initialisations that subtract the adapter from its base


class LoRALinear(nn.Module):
    """A frozen linear layer and its adapter."""

    def __init__(self, base: nn.Module, rank: int, scale: float, dropout: float, device: torch.device) -> None:
        """`base` is any layer with in_features and out_features, of fp32 or of quantised numbers."""
        super().__init__()
        self.base = base
        self.scale = scale
        self.lora_dropout = nn.Dropout(dropout)
        n_in, n_out = cast(int, base.in_features), cast(int, base.out_features)
        self.lora_A = nn.Linear(n_in, rank, bias=False, device=device, dtype=torch.float32)
        self.lora_B = nn.Linear(rank, n_out, bias=False, device=device, dtype=torch.float32)
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))  # as PEFT
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        out: Tensor = self.base(x)
        low = self.lora_A(self.lora_dropout(x)).to(out.dtype)
        # Added in place: an output made twice leaves a hole of its size in the heap, in each layer.
        out.flatten(0, -2).addmm_(low.flatten(0, -2), self.lora_B.weight.T.to(out.dtype), alpha=self.scale)
        return out


class Adapter(NamedTuple):
    """The factors of one matrix: its name in the network, A (rank, in) and B (out, rank)."""

    matrix: str
    a: Tensor
    b: Tensor


def scale_of(alpha: float, rank: int, use_rslora: bool) -> float:
    """What the product of an adapter's factors is multiplied by."""
    return alpha / math.sqrt(rank) if use_rslora else alpha / rank


def add_adapters(network: GPT2, *, rank: int, scale: float, dropout: float, targets: Collection[str]) -> None:
    """Freezes the network, and puts an adapter beside each of the `targets`, such as attn.c_attn, of every block.

    The first factors come from the global random generator.
    """
    network.requires_grad_(False)
    for block in network.h:
        for target in targets:
            part, _, name = target.partition(".")
            layers = getattr(block, part)
            setattr(layers, name, LoRALinear(getattr(layers, name), rank, scale, dropout, network.wte.weight.device))


def adapter_tensors(network: GPT2) -> dict[str, Tensor]:
    """The factors of all adapters, under PEFT's names; not copies."""
    return {PEFT_PREFIX + name: p.detach() for name, p in network.named_parameters() if name.endswith(FACTORS)}


def load_adapter_tensors(network: GPT2, tensors: Mapping[str, Tensor]) -> None:
    """Copies what `adapter_tensors` gave into a network with such adapters; ValueError when they do not fit."""
    own = adapter_tensors(network)
    if wrong := sorted(own.keys() ^ tensors.keys()):
        raise ValueError(f"the adapter has other matrices than this preset's [lora]: {', '.join(wrong[:3])}")
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise ValueError(f"{name} is {tuple(tensor.shape)}, not {tuple(own[name].shape)}")
        own[name].copy_(tensor)


def merge(network: GPT2, tensors: Mapping[str, Tensor], scale: float) -> None:
    """Adds scale * B A to each matrix of `network`, which has no adapters itself; in fp32.

    ValueError when the tensors are not those of an adapter of this network.
    """
    parameters = dict(network.named_parameters())
    with torch.no_grad():
        for matrix, a, b in _adapters(tensors):
            weight = parameters.get(f"{matrix}.weight")
            if weight is None or not matrix.startswith("h."):
                raise ValueError(f"the base has no matrix {matrix[:100]}")
            if a.ndim != 2 or (b.shape, weight.shape) != ((weight.size(0), a.size(0)), (b.size(0), a.size(1))):
                raise ValueError(
                    f"the base has another shape than the adapter: {matrix} is {tuple(weight.shape)}, the adapter's "
                    f"factors are {tuple(b.shape)} and {tuple(a.shape)}"
                )
            weight.add_((scale * (b.float() @ a.float())).to(weight.device))


def peft_config(
    *, base: str, rank: int, alpha: float, dropout: float, targets: Collection[str], use_rslora: bool
) -> dict[str, Any]:
    """The adapter_config.json for an adapter of the model `base`, a folder or a Hub id."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": dropout,
        "target_modules": list(targets),
        "fan_in_fan_out": True,  # the published weights are (in, out)
        "bias": "none",
        "use_rslora": use_rslora,
        "modules_to_save": None,
        "inference_mode": True,
        "init_lora_weights": True,
    }


def scale_in(config_json: Mapping[str, Any]) -> float:
    """The scale that an adapter_config.json says; ValueError naming what it says that this file does not compute."""
    wrong = [
        f"{key} is {shortened(config_json[key])}"
        for key, plain in _PLAIN.items()
        if key in config_json and config_json[key] not in plain
    ]
    start = config_json.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
        wrong.append(f"init_lora_weights is {shortened(start)}, which changes the base")
    rank, alpha = config_json.get("r", 8), config_json.get("lora_alpha", 8)
    if type(rank) is not int or rank < 1:
        wrong.append(f"r is {shortened(rank)}")
    if type(alpha) not in (int, float):
        wrong.append(f"lora_alpha is {shortened(alpha)}")
    if wrong:
        raise ValueError("adapter_config.json does not describe a LoRA that can be added: " + "; ".join(wrong))
    return scale_of(alpha, rank, bool(config_json.get("use_rslora")))


def _adapters(tensors: Mapping[str, Tensor]) -> list[Adapter]:
    """The factors by matrix; ValueError when a name is not that of a factor, or a factor has no partner."""
    found = []
    for name, tensor in tensors.items():
        matrix, ending = name.removeprefix(PEFT_PREFIX)[: -len(FACTORS[0])], name[-len(FACTORS[0]) :]
        if not name.startswith(PEFT_PREFIX) or ending not in FACTORS:
            raise ValueError(f"{name[:100]} is not a factor of an adapter of GPT-2's transformer")
        partner = tensors.get(PEFT_PREFIX + matrix + FACTORS[1 - FACTORS.index(ending)])
        if partner is None:
            raise ValueError(f"{name[:100]} is one factor of two, and the other is missing")
        if ending == FACTORS[0]:
            found.append(Adapter(matrix, tensor, partner))
    return found
