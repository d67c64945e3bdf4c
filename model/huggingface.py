"""Our names and layouts <-> the published GPT-2's, as `transformers` reads and writes them.

The published checkpoints come from TensorFlow code whose linear layers ("Conv1D") hold their weight as
(in, out); ours hold (out, in). Parameter names are the same but for the prefix `transformer.`. The output
weight is the embedding and is not stored twice.
"""

import functools
import re
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from gpt2tui.model.config import GPT2Config
from gpt2tui.model.gpt2 import network_without_weights
from gpt2tui.model.published_config import config_from_published, shortened

PREFIX = "transformer."
OUTPUT_WEIGHT = "lm_head.weight"
_CONV1D = re.compile(r"\.c_(attn|proj|fc)\.weight$")
_MASK = re.compile(r"^h\.\d+\.attn\.(bias|masked_bias)$")  # the causal mask, which older versions stored
_BLOCK = re.compile(r"^h\.(\d+)\.")
_FLOATING_POINT = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
MOST_LISTED = 5


def to_published(state_dict: Mapping[str, Tensor], config: GPT2Config) -> dict[str, Tensor]:
    """`published_views`, contiguous. What need not be transposed shares its memory with `state_dict`."""
    return {name: tensor.contiguous() for name, tensor in published_views(state_dict, config).items()}


def published_views(state_dict: Mapping[str, Tensor], config: GPT2Config) -> dict[str, Tensor]:
    """Our state dict under published names and layouts, nothing copied: absent biases as zeros, no output weight.

    ValueError names parameters that are missing, unexpected or of the wrong shape, a few of each.
    """
    _require_parameters(state_dict, _shapes(config), "the parameters")
    embedding = state_dict["wte.weight"]
    published = {}
    for name, shape in _shapes(config.model_copy(update={"bias": True})).items():
        if name in state_dict:
            tensor = _transposed(name, state_dict[name].detach())
        else:  # transformers would make up a bias that is missing
            tensor = torch.zeros(shape, dtype=embedding.dtype, device=embedding.device)
        published[PREFIX + name] = tensor
    return published


def from_published(
    tensors: Mapping[str, Tensor], config_json: Mapping[str, Any]
) -> tuple[GPT2Config, dict[str, Tensor]]:
    """A published GPT-2 as our configuration and state dict; its keys may lack the prefix `transformer.`.

    fp32, fp16, bf16 and fp64 all become fp32. The stored causal masks and an output weight equal to the embedding
    are left out. Our one dropout rate is `resid_pdrop`. ValueError when config.json is not GPT-2's architecture, and
    when tensors are missing, unexpected, of another type or of the wrong shape, naming a few of each.
    """
    config = config_from_published(config_json)
    found: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        name = key.removeprefix(PREFIX)
        if name in found:
            raise ValueError(f"the tensors hold {_listed([name])} twice, with and without {PREFIX!r} before it")
        if not _MASK.match(name):
            found[name] = tensor
    other = [
        f"{name} is {shortened(tensor.dtype)}" for name, tensor in found.items() if tensor.dtype not in _FLOATING_POINT
    ]
    if other:
        raise ValueError(f"weights must be fp32, fp16, bf16 or fp64; {_listed(other)}")
    # Before anything of that length is made.
    blocks = len({match[1] for name in found if (match := _BLOCK.match(name))})
    if config.n_layer > blocks:
        raise ValueError(f"config.json says n_layer = {config.n_layer}, but there are tensors of {blocks} blocks only")
    output, embedding = found.pop(OUTPUT_WEIGHT, None), found.get("wte.weight")
    if config_json.get("tie_word_embeddings", True) is not True and output is None:
        raise ValueError(f"config.json says tie_word_embeddings = false, but there is no {OUTPUT_WEIGHT}")
    if output is not None and embedding is None:  # some programs store the two under this name
        found["wte.weight"] = output
    if output is not None and embedding is not None and not _equal(output, embedding):
        raise ValueError(f"{OUTPUT_WEIGHT} differs from the embedding {PREFIX}wte.weight: GPT-2 has one for both")

    shapes = _shapes(config.model_copy(update={"bias": True}))
    stored = {name: _transposed_shape(name, shape) for name, shape in shapes.items()}
    _require_parameters(found, stored, "the published tensors")
    ours = _shapes(config)
    nonzero = [name for name in shapes if name not in ours and bool(found[name].any())]
    if nonzero:
        raise ValueError(f'config.json says "bias": false, but these are not zero: {_listed(nonzero)}')
    return config, {name: _transposed(name, found[name]).float().contiguous() for name in ours}


@functools.lru_cache(maxsize=4)  # each checkpoint asks
def _shapes(config: GPT2Config) -> Mapping[str, tuple[int, ...]]:
    """Our parameters, by name. All blocks are alike, so one is laid out."""
    network = network_without_weights(config.model_copy(update={"n_layer": 1})).state_dict()
    shapes: dict[str, tuple[int, ...]] = {}
    for name, parameter in network.items():
        blocks = range(config.n_layer) if name.startswith("h.0.") else range(1)
        shapes |= {name.replace("h.0.", f"h.{i}.", 1): tuple(parameter.shape) for i in blocks}
    return shapes


def _transposed(name: str, tensor: Tensor) -> Tensor:
    return tensor.T if _CONV1D.search(name) else tensor


def _transposed_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[::-1] if _CONV1D.search(name) else shape


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool((a == b).all())


def _require_parameters(tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], what: str) -> None:
    mistakes = []
    if missing := shapes.keys() - tensors.keys():
        mistakes.append(f"missing: {_listed(missing)}")
    if unexpected := tensors.keys() - shapes.keys():
        mistakes.append(f"unexpected: {_listed(unexpected)}")
    misshaped = [
        f"{name} is {tuple(tensors[name].shape)}, not {shape}"
        for name, shape in shapes.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    if misshaped:
        mistakes.append(f"of the wrong shape: {_listed(misshaped)}")
    if mistakes:
        raise ValueError(f"{what} do not fit the configuration; " + "; ".join(mistakes))


def _listed(names: Collection[str]) -> str:
    few = [name if len(name) <= 120 else f"{name[:120]}…" for name in sorted(names)[:MOST_LISTED]]
    more = len(names) - len(few)
    return ", ".join(few) + (f" and {more:,} more" if more else "")
