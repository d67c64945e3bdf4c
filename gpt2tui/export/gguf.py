"""Export as GGUF, the file of llama.cpp: weights, shape, and tokenizer in one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gpt2tui.data import tokenizer_files
from gpt2tui.errors import CheckpointError, UsageError
from gpt2tui.export.verification import (
    DTYPES,
    Checked,
    Dtype,
    LogitsOf,
    Reference,
    require_same_tensors,
    require_same_tokenizer,
    vocabulary_of,
)
from gpt2tui.generation import TextModel
from gpt2tui.model.config import LAYER_NORM_EPSILON
from gpt2tui.model.huggingface import published_views

ARCHITECTURE = "gpt2"
POSITIONS = "position_embd.weight"
PRE_TOKENIZER = "gpt-2"
"""llama.cpp knows ways to split text by name; this is GPT-2's pattern."""

Array = npt.NDArray[np.float32]


def require_exportable(model: TextModel) -> None:
    """Raises UsageError when the package is missing, or the tokenizer is not one that llama.cpp has."""
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise UsageError(
            "--format gguf needs the package gguf: pip install gguf, or in a checkout run uv run --extra gguf gpt2tui "
            "export ..."
        ) from None
    if why := _why_not(model):
        raise UsageError(f"{model.source} cannot be exported as gguf: {why}; --format huggingface keeps its tokenizer")


def _why_not(model: TextModel) -> str:
    """Why llama.cpp would split text in another way; empty where it would not."""
    if model.tokenizer.name in ("char", "byte"):
        return f"its tokenizer is {model.tokenizer.name}, and llama.cpp has byte-pair encoding but no such tokenizer"
    definition = tokenizer_files.definition(model.tokenizer)
    bpe, split = definition["model"], definition["pre_tokenizer"] or {}
    changes = [name for name in ("ignore_merges", "byte_fallback", "dropout") if bpe.get(name)]
    if bpe.get("type", "BPE") != "BPE" or not bpe["merges"] or changes or definition.get("normalizer"):
        return "its tokenizer is not GPT-2's byte-pair encoding"
    is_gpt2s = split.get("type") == "ByteLevel" and split.get("use_regex", True) and not split.get("add_prefix_space")
    return (
        "" if is_gpt2s else "its tokenizer splits text before merging in another way than GPT-2's, the one in llama.cpp"
    )


def write(model: TextModel, path: Path, dtype: Dtype) -> None:
    """Writes the file: matrices as `dtype`, position embeddings, biases and layer norms in fp32, as llama.cpp does."""
    import gguf

    network = model.model.config
    types = gguf.GGMLQuantizationType
    chosen = {"fp32": types.F32, "fp16": types.F16, "bf16": types.BF16}[dtype]
    file_type = gguf.LlamaFileType
    writer = gguf.GGUFWriter(path, ARCHITECTURE)
    writer.add_context_length(model.context_length)
    writer.add_embedding_length(network.n_embd)
    writer.add_block_count(network.n_layer)
    writer.add_feed_forward_length(4 * network.n_embd)
    writer.add_head_count(network.n_head)
    writer.add_layer_norm_eps(LAYER_NORM_EPSILON)
    writer.add_file_type(
        {"fp32": file_type.ALL_F32, "fp16": file_type.MOSTLY_F16, "bf16": file_type.MOSTLY_BF16}[dtype]
    )
    _add_tokenizer(writer, model)
    for name, array in _arrays(model).items():
        kind = chosen if _is_matrix(name, array) else types.F32
        writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: Any, model: TextModel) -> None:
    import gguf

    definition = tokenizer_files.definition(model.tokenizer)
    added = {token["id"]: token for token in definition.get("added_tokens") or []}
    by_id = {i: text for text, i in vocabulary_of(definition).items()}
    kinds = gguf.TokenType
    tokens, types = [], []
    for i in range(model.vocab_size):  # a token for each row of the embedding
        tokens.append(by_id.get(i, f"[PAD{i}]"))
        if i not in by_id:
            types.append(kinds.UNUSED)
        elif i in model.tokenizer.special or added.get(i, {}).get("special"):
            types.append(kinds.CONTROL)
        else:
            types.append(kinds.USER_DEFINED if i in added else kinds.NORMAL)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in definition["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZER)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(model.tokenizer.eot)
    writer.add_eos_token_id(model.tokenizer.eot)
    writer.add_add_bos_token(False)


def _arrays(model: TextModel) -> dict[str, Array]:
    """The tensors under llama.cpp's names, matrices as (out, in), absent biases as zeros, in fp32.

    llama.cpp wants as many positions as the context has: the embeddings of later ones, never trained, are left out.
    """
    import gguf

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, model.model.config.n_layer)
    arrays = {}
    for published, tensor in published_views(model.model.state_dict(), model.model.config).items():
        name = names.get_name(published, try_suffixes=(".weight", ".bias"))
        assert name is not None, published
        is_conv1d = tensor.dim() == 2 and not published.endswith(("wte.weight", "wpe.weight"))
        arrays[name] = (tensor.T if is_conv1d else tensor).float().contiguous().numpy()
    arrays[POSITIONS] = arrays[POSITIONS][: model.context_length]
    return arrays


def _is_matrix(name: str, array: Array) -> bool:
    return array.ndim == 2 and name != POSITIONS


def check(model: TextModel, path: Path, dtype: Dtype, reference: Reference) -> Checked:
    """Reads the file back with GGUFReader and runs it in numpy. Raises CheckpointError when it is not the model."""
    import gguf

    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    arrays = {t.name: gguf.quants.dequantize(np.asarray(t.data), t.tensor_type) for t in reader.tensors}
    rounded = DTYPES[dtype]
    expected = {}
    for name, array in _arrays(model).items():
        tensor = torch.from_numpy(array)
        expected[name] = tensor.to(rounded).float() if _is_matrix(name, array) else tensor
    require_same_tensors(expected, {name: torch.from_numpy(array.copy()) for name, array in arrays.items()})
    if fields["gpt2.context_length"] != len(arrays[POSITIONS]):
        raise CheckpointError("the exported file has another number of position embeddings than its context")
    _check_tokenizer(model, fields)
    verified = reference.verify("numpy", network_of(fields, arrays), dtype)
    return Checked((verified,), ("llama.cpp",))


def _check_tokenizer(model: TextModel, fields: Mapping[str, Any]) -> None:
    """Compares the tokenizer that the file describes, as the `tokenizers` library runs it."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokens = fields["tokenizer.ggml.tokens"]
    vocabulary = {token: i for i, token in enumerate(tokens) if token != f"[PAD{i}]"}
    merges = [tuple(pair.split(" ")) for pair in fields["tokenizer.ggml.merges"]]
    try:
        described = Tokenizer(models.BPE(vocabulary, merges))
    except Exception as error:  # the library raises bare Exceptions
        raise CheckpointError(f"the merges in the exported file do not fit its tokens: {error}") from error
    described.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    is_same_end = fields["tokenizer.ggml.eos_token_id"] == model.tokenizer.eot
    if not is_same_end or fields["tokenizer.ggml.pre"] != PRE_TOKENIZER or len(tokens) != model.vocab_size:
        raise CheckpointError("the exported file describes another tokenizer than the model's")
    require_same_tokenizer("tokenizers", model.tokenizer, vocabulary, lambda text: described.encode(text).ids)


def network_of(fields: Mapping[str, Any], arrays: Mapping[str, Array]) -> LogitsOf:
    """GPT-2 in numpy, of a file's fields and arrays alone."""
    n_head, epsilon = fields["gpt2.attention.head_count"], fields["gpt2.attention.layer_norm_epsilon"]

    def norm(x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        normal = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + np.float32(epsilon))
        scaled: Array = normal * arrays[f"{name}.weight"] + arrays[f"{name}.bias"]
        return scaled

    def linear(x: Array, name: str) -> Array:
        return x @ arrays[f"{name}.weight"].T + arrays[f"{name}.bias"]

    def attention(x: Array, block: str) -> Array:
        T, C = x.shape
        qkv = linear(x, f"{block}.attn_qkv").reshape(T, 3, n_head, C // n_head)
        q, k, v = qkv.transpose(1, 2, 0, 3)  # (H, T, D) each
        scores = q @ k.transpose(0, 2, 1) / np.float32(np.sqrt(C // n_head))  # (H, T, T)
        scores = np.where(np.tri(T, dtype=bool), scores, np.float32(-np.inf))
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        return linear((shares @ v).transpose(1, 0, 2).reshape(T, C), f"{block}.attn_output")

    def run(tokens: Tensor) -> Tensor:
        x = arrays["token_embd.weight"][tokens.numpy()] + arrays[POSITIONS][: len(tokens)]  # (T, C)
        for layer in range(fields["gpt2.block_count"]):
            block = f"blk.{layer}"
            x = x + attention(norm(x, f"{block}.attn_norm"), block)
            x = x + linear(_gelu(linear(norm(x, f"{block}.ffn_norm"), f"{block}.ffn_up")), f"{block}.ffn_down")
        return torch.from_numpy(norm(x, "output_norm") @ arrays["token_embd.weight"].T)  # (T, V)

    return run


def _gelu(x: Array) -> Array:
    inner = np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x**3)
    out: Array = np.float32(0.5) * x * (1 + np.tanh(inner))
    return out
