"""GPT-2 as one ONNX graph, for a prompt and for each token after it.

The graph is written operator by operator, not traced: a dozen operators a block are easier to check than what a
tracer makes of dynamic lengths (torch.export treats the lengths 0 and 1 as constants), and need no package but `onnx`.

Shapes: B sequences, T new tokens, P past tokens, C = n_embd, V = vocab_size, H = n_head, D = C / H.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gpt2tui.model.config import LAYER_NORM_EPSILON, GPT2Config
from gpt2tui.model.gpt2 import GPT2
from gpt2tui.model.huggingface import PREFIX, published_views
from gpt2tui.version import __version__

OPSET = 20  # the first with GELU
IR_VERSION = 9  # of onnx 1.15, which brought that opset
LAYER_NORM = "layer_norm"
"""What the names of all layer norms begin with."""

TOKENS, MASK, POSITIONS, LOGITS = "input_ids", "attention_mask", "position_ids", "logits"


def past_names(layers: int) -> list[str]:
    """The inputs with the keys and values of past tokens, layer by layer."""
    return [f"past_key_values.{layer}.{kind}" for layer in range(layers) for kind in ("key", "value")]


def present_names(layers: int) -> list[str]:
    """The outputs with the keys and values of past and new tokens, in the order of `past_names`."""
    return [name.replace("past_key_values", "present") for name in past_names(layers)]


def build(network: GPT2, metadata: Mapping[str, str]) -> Any:
    """An onnx.ModelProto with these inputs and outputs, each length dynamic, P = 0 included:

    input_ids and position_ids (B, T) int64; attention_mask (B, P + T) int64, 0 for padding, which no token sees;
    past_key_values.N.key and .value (B, H, P, D) -> present.N.key and .value (B, H, P + T, D); logits (B, T, V).
    """
    from onnx import TensorProto, helper

    config, graph = network.config, _Graph()
    weights = published_views(network.state_dict(), config)
    for name, tensor in weights.items():
        if config.bias or not name.endswith(".bias"):
            graph.constant(name, tensor)
    _logits(graph, config, _hidden(graph, config))
    integer, real = TensorProto.INT64, TensorProto.FLOAT
    H, D = config.n_head, config.head_dim

    def past(name: str, length: str) -> Any:
        return helper.make_tensor_value_info(name, real, ["batch", H, length, D])

    made = helper.make_graph(
        graph.nodes,
        "gpt2",
        [
            helper.make_tensor_value_info(TOKENS, integer, ["batch", "sequence"]),
            helper.make_tensor_value_info(MASK, integer, ["batch", "past_and_sequence"]),
            helper.make_tensor_value_info(POSITIONS, integer, ["batch", "sequence"]),
            *(past(name, "past") for name in past_names(config.n_layer)),
        ],
        [
            helper.make_tensor_value_info(LOGITS, real, ["batch", "sequence", config.vocab_size]),
            *(past(name, "past_and_sequence") for name in present_names(config.n_layer)),
        ],
        graph.constants,
    )
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(
        made, opset_imports=[opset], ir_version=IR_VERSION, producer_name="gpt2tui", producer_version=__version__
    )
    helper.set_model_props(model, dict(metadata))
    return model


class _Graph:
    """Nodes and constants in the order in which they are made. A node's first output has the node's name."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: Tensor | npt.NDArray[Any] | np.generic) -> str:
        """Adds a tensor; returns its name."""
        from onnx import numpy_helper

        array = value.numpy() if isinstance(value, Tensor) else np.asarray(value)
        self.constants.append(numpy_helper.from_array(array.copy(order="C"), name))
        return name

    def integers(self, name: str, *values: int) -> str:
        """Adds a vector of int64; returns its name."""
        return self.constant(name, np.array(values, dtype=np.int64))

    def add(self, operator: str, name: str, *inputs: str, outputs: Sequence[str] = (), **attributes: Any) -> str:
        """Adds a node; returns the name of its first output, which is its own unless `outputs` are given."""
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, outputs or [name], name=name, **attributes))
        return outputs[0] if outputs else name


def _hidden(graph: _Graph, config: GPT2Config) -> str:
    """The residual stream after the last layer norm, (B, T, C)."""
    graph.integers("split_heads", 0, 0, config.n_head, config.head_dim)  # 0: as long as it is
    graph.integers("join_heads", 0, 0, config.n_embd)
    graph.constant("scale", np.float32(config.head_dim**-0.5))
    embedded = graph.add("Gather", "wte", f"{PREFIX}wte.weight", TOKENS)  # (B, T, C)
    x = graph.add("Add", "embedded", embedded, graph.add("Gather", "wpe", f"{PREFIX}wpe.weight", POSITIONS))
    mask = _mask(graph)
    for layer in range(config.n_layer):
        block = f"h.{layer}"
        x = graph.add("Add", f"{block}.attn.residual", x, _attention(graph, config, layer, x, mask))
        x = graph.add("Add", f"{block}.mlp.residual", x, _mlp(graph, config, block, x))
    return _layer_norm(graph, config, "ln_f", x)


def _mask(graph: _Graph) -> str:
    """What is added to the scores: 0 where a token may look, else the lowest number; (B, 1, T, P + T).

    Minus infinity would make the row of a padding token before the text, which may look nowhere, NaN.
    """
    from onnx import TensorProto

    zero, one = (graph.constant(name, np.int64(value)) for name, value in (("zero", 0), ("one", 1)))
    new = graph.add("Squeeze", "new", graph.add("Shape", "new_shape", TOKENS, start=1, end=2))  # T
    past = graph.add("Squeeze", "past", graph.add("Shape", "past_shape", past_names(1)[0], start=2, end=3))  # P
    total = graph.add("Add", "total", past, new)
    columns = graph.add("Range", "columns", zero, total, one)  # (P + T,)
    rows = graph.add("Range", "rows", past, total, one)  # (T,)
    below = graph.add("Unsqueeze", "rows_below", rows, graph.integers("last_axis", 1))  # (T, 1)
    causal = graph.add("LessOrEqual", "causal", columns, below)  # (T, P + T)
    is_text = graph.add("Cast", "is_text", MASK, to=TensorProto.BOOL)  # (B, P + T)
    broadcast = graph.add("Unsqueeze", "is_text_4d", is_text, graph.integers("middle_axes", 1, 2))  # (B, 1, 1, P + T)
    seen = graph.add("And", "seen", causal, broadcast)
    allowed, hidden = graph.constant("allowed", np.float32(0)), graph.constant("hidden", np.finfo(np.float32).min)
    return graph.add("Where", "mask", seen, allowed, hidden)


def _attention(graph: _Graph, config: GPT2Config, layer: int, x: str, mask: str) -> str:
    """(B, T, C) -> (B, T, C)."""
    block = f"h.{layer}.attn"
    qkv = _linear(graph, config, f"{block}.c_attn", _layer_norm(graph, config, f"h.{layer}.ln_1", x))
    parts = [f"{block}.{part}" for part in ("q", "k", "v")]
    graph.add("Split", f"{block}.split", qkv, outputs=parts, axis=-1, num_outputs=3)  # (B, T, C) each
    q, k, v = (_heads(graph, part) for part in parts)
    present = present_names(config.n_layer)[2 * layer : 2 * layer + 2]
    for new, past, together in zip((k, v), past_names(config.n_layer)[2 * layer :], present, strict=False):
        graph.add("Concat", together, past, new, axis=2)  # (B, H, P + T, D)
    keys = graph.add("Transpose", f"{block}.keys", present[0], perm=[0, 1, 3, 2])  # (B, H, D, P + T)
    scaled = graph.add("Mul", f"{block}.scaled", q, "scale")
    scores = graph.add("Add", f"{block}.masked", graph.add("MatMul", f"{block}.scores", scaled, keys), mask)
    shares = graph.add("Softmax", f"{block}.softmax", scores, axis=-1)  # (B, H, T, P + T)
    y = graph.add("MatMul", f"{block}.y", shares, present[1])  # (B, H, T, D)
    y = graph.add("Transpose", f"{block}.y_by_token", y, perm=[0, 2, 1, 3])
    y = graph.add("Reshape", f"{block}.y_joined", y, "join_heads")  # (B, T, C)
    return _linear(graph, config, f"{block}.c_proj", y)


def _heads(graph: _Graph, x: str) -> str:
    """(B, T, C) -> (B, H, T, D)."""
    split = graph.add("Reshape", f"{x}.by_head", x, "split_heads")  # (B, T, H, D)
    return graph.add("Transpose", f"{x}.heads", split, perm=[0, 2, 1, 3])


def _mlp(graph: _Graph, config: GPT2Config, block: str, x: str) -> str:
    """(B, T, C) -> (B, T, C)."""
    wide = _linear(graph, config, f"{block}.mlp.c_fc", _layer_norm(graph, config, f"{block}.ln_2", x))  # (B, T, 4C)
    wide = graph.add("Gelu", f"{block}.mlp.gelu", wide, approximate="tanh")
    return _linear(graph, config, f"{block}.mlp.c_proj", wide)


def _layer_norm(graph: _Graph, config: GPT2Config, name: str, x: str) -> str:
    weights = [f"{PREFIX}{name}.{kind}" for kind in ("weight", "bias")[: 1 + config.bias]]
    return graph.add("LayerNormalization", f"{LAYER_NORM}.{name}", x, *weights, axis=-1, epsilon=LAYER_NORM_EPSILON)


def _linear(graph: _Graph, config: GPT2Config, name: str, x: str) -> str:
    """x W + b, W as it is published, (in, out)."""
    y = graph.add("MatMul", name, x, f"{PREFIX}{name}.weight")
    return graph.add("Add", f"{name}.biased", y, f"{PREFIX}{name}.bias") if config.bias else y


def _logits(graph: _Graph, config: GPT2Config, hidden: str) -> None:
    """(B, T, C) -> (B, T, V). Gemm reads the embedding transposed where it lies; MatMul would need a second one."""
    flat = graph.add("Reshape", "flat", hidden, graph.integers("flat_shape", -1, config.n_embd))  # (B T, C)
    flat = graph.add("Gemm", "flat_logits", flat, f"{PREFIX}wte.weight", transB=1)  # (B T, V)
    batch = graph.add("Shape", "batch_and_length", TOKENS)
    vocabulary = graph.integers("vocabulary", config.vocab_size or 0)
    shape = graph.add("Concat", "logits_shape", batch, vocabulary, axis=0)
    graph.add("Reshape", LOGITS, flat, shape)
