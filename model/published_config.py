"""The published GPT-2's config.json <-> our configuration. Imports no torch."""

import math
import reprlib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from gpt2tui.model.config import INITIAL_STD, LAYER_NORM_EPSILON, GPT2Config

TRAINED_LENGTH = "trained_sequence_length"

# What makes it GPT-2, where transformers has a choice.
_ARCHITECTURE: dict[str, tuple[Any, ...]] = {
    "model_type": ("gpt2",),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
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


def config_from_published(config_json: Mapping[str, Any]) -> GPT2Config:
    """The configuration in a published config.json; ValueError naming every key by which it is not GPT-2.

    Whether embeddings that are not tied are equal, the weights say: see `from_published`.
    """
    if config_json.get("quantization_config") is not None:
        raise ValueError(
            f"the model is quantised already (quantization_config is {shortened(config_json['quantization_config'])}); "
            "use the model that it was made from, in fp32, fp16 or bf16"
        )
    wrong = [
        f"{key} is {shortened(config_json[key])}, GPT-2 has {gpt2s[0]!r}"
        for key, gpt2s in _ARCHITECTURE.items()
        if key in config_json and config_json[key] not in gpt2s
    ]
    epsilon = config_json.get("layer_norm_epsilon", LAYER_NORM_EPSILON)
    if not (isinstance(epsilon, float) and math.isclose(epsilon, LAYER_NORM_EPSILON, rel_tol=1e-6)):
        wrong.append(f"layer_norm_epsilon is {shortened(epsilon)}, GPT-2 has {LAYER_NORM_EPSILON!r}")
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
            f"{published.get(str(e['loc'][0]), e['loc'][0])} is {shortened(e['input'])}: {e['msg']}"
            for e in error.errors()
        ]
    else:
        wrong += [f"{found.key}: {found.message}" for found in config.inconsistencies()]
        if config_json.get("n_inner") not in (None, 4 * config.n_embd):
            wrong.append(f"n_inner is {shortened(config_json['n_inner'])}, GPT-2 has 4 * n_embd = {4 * config.n_embd}")
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
    raise ValueError(f"{TRAINED_LENGTH} is {shortened(length)}, not a number from 1 to n_positions = {n_positions}")


def shortened(value: object) -> str:
    """A value from a file for a message, of bounded length."""
    return reprlib.repr(value).removeprefix("torch.")
