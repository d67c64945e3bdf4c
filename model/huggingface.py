"""Our names and layouts <-> the published GPT-2's, as `transformers` reads and writes them.

The published checkpoints come from TensorFlow code whose linear layers ("Conv1D") hold their weight as
(in, out); ours hold (out, in). Parameter names are the same but for the prefix `transformer.`. The output
weight is the embedding and is not stored twice.
"""

import math
import re
import reprlib
from collections.abc import Collection, Mapping
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from gpt2tui.model.config import INITIAL_STD, LAYER_NORM_EPSILON, GPT2Config
from gpt2tui.model.gpt2 import GPT2

PREFIX = "transformer."
OUTPUT_WEIGHT = "lm_head.weight"
TRAINED_LENGTH = "trained_sequence_length"
_CONV1D = re.compile(r"\.c_(attn|proj|fc)\.weight$")
_MASK = re.compile(r"^h\.\d+\.attn\.(bias|masked_bias)$")  # the causal mask, which older versions stored
_BLOCK = re.compile(r"^h\.(\d+)\.")
_FLOATING_POINT = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
MOST_LISTED = 5

# What makes it GPT-2, where transformers has a choice.
_ARCHITECTURE: dict[str, tuple[Any, ...]] = {
    "model_type": ("gpt2",),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "tie_word_embeddings": (True,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "reorder_and_upcast_attn": (False,),
    "add_cross_attention": (False,),
}


def published_config(config: GPT2Config, eos_token_id: int | None, trained_length: int | None = None) -> dict[str, Any]:
    """What config.json says; `eos_token_id` is the tokenizer's <|endoftext|>, None when it has none.

    `bias` and `trained_sequence_length` are keys of ours, which transformers keeps and does not read. Without the first
    a model that has no biases would come back with biases of zero. The second is the length of the training sequences:
    the embeddings of the positions after it were never trained.
    """
    trained = {} if trained_length is None else {TRAINED_LENGTH: trained_length}
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocab_size,
        "n_positions": config.n_positions,
        "n_ctx": config.n_positions,
        **trained,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "n_inner": None,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": LAYER_NORM_EPSILON,
        "initializer_range": INITIAL_STD,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "scale_attn_weights": True,
        "tie_word_embeddings": True,
        "use_cache": True,
        "bos_token_id": eos_token_id,
        "eos_token_id": eos_token_id,
        "bias": config.bias,
    }


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
        f"{name} is {_short(tensor.dtype)}" for name, tensor in found.items() if tensor.dtype not in _FLOATING_POINT
    ]
    if other:
        raise ValueError(f"weights must be fp32, fp16, bf16 or fp64; {_listed(other)}")
    # Before anything of that length is made.
    blocks = len({match[1] for name in found if (match := _BLOCK.match(name))})
    if config.n_layer > blocks:
        raise ValueError(f"config.json says n_layer = {config.n_layer}, but there are tensors of {blocks} blocks only")
    output, embedding = found.pop(OUTPUT_WEIGHT, None), found.get("wte.weight")
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


def config_from_published(config_json: Mapping[str, Any]) -> GPT2Config:
    """The configuration in a published config.json; ValueError naming every key by which it is not GPT-2."""
    wrong = [
        f"{key} is {_short(config_json[key])}, GPT-2 has {gpt2s[0]!r}"
        for key, gpt2s in _ARCHITECTURE.items()
        if key in config_json and config_json[key] not in gpt2s
    ]
    epsilon = config_json.get("layer_norm_epsilon", LAYER_NORM_EPSILON)
    if not (isinstance(epsilon, float) and math.isclose(epsilon, LAYER_NORM_EPSILON, rel_tol=1e-6)):
        wrong.append(f"layer_norm_epsilon is {_short(epsilon)}, GPT-2 has {LAYER_NORM_EPSILON!r}")
    try:
        config = GPT2Config(  # absent keys mean what they mean in transformers
            vocab_size=config_json.get("vocab_size", 50257),
            n_positions=config_json.get("n_positions", 1024),
            n_embd=config_json.get("n_embd", 768),
            n_layer=config_json.get("n_layer", 12),
            n_head=config_json.get("n_head", 12),
            dropout=config_json.get("resid_pdrop", 0.1),
            bias=config_json.get("bias", True),
        )
    except ValidationError as error:
        published = {"dropout": "resid_pdrop"}
        wrong += [
            f"{published.get(str(e['loc'][0]), e['loc'][0])} is {_short(e['input'])}: {e['msg']}"
            for e in error.errors()
        ]
    else:
        wrong += [f"{found.key}: {found.message}" for found in config.inconsistencies()]
        if config_json.get("n_inner") not in (None, 4 * config.n_embd):
            wrong.append(f"n_inner is {_short(config_json['n_inner'])}, GPT-2 has 4 * n_embd = {4 * config.n_embd}")
    if wrong:
        raise ValueError("config.json does not describe a GPT-2: " + "; ".join(wrong))
    return config


def trained_length(config_json: Mapping[str, Any]) -> int | None:
    """How many positions a published config.json says were trained; None where it does not say.

    ValueError when that is not a number of positions that the model has.
    """
    length, n_positions = config_json.get(TRAINED_LENGTH), config_json.get("n_positions", 1024)
    if length is None or (type(length) is int and 1 <= length <= n_positions):
        return length
    raise ValueError(f"{TRAINED_LENGTH} is {_short(length)}, not a number from 1 to n_positions = {n_positions}")


def _shapes(config: GPT2Config) -> dict[str, tuple[int, ...]]:
    """Our parameters, by name. All blocks are alike, so one is laid out."""
    with torch.device("meta"):
        network = GPT2(config.model_copy(update={"n_layer": 1})).state_dict()
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


def _short(value: object) -> str:
    return reprlib.repr(value).removeprefix("torch.")
