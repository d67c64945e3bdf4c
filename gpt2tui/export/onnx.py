"""Export as ONNX: a folder with the graph, the tokenizer, and what onnxruntime-genai needs to open it."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpt2tui.data import tokenizer_files
from gpt2tui.errors import CheckpointError, first_line
from gpt2tui.export import onnx_graph, onnx_quantization
from gpt2tui.export.onnx_runtime import FILE, OnnxNetwork, metadata_of, require_package
from gpt2tui.export.verification import PROBE, Checked, Dtype, LogitsOf, Reference, Verification, require_tokenizer_in
from gpt2tui.generation import TextModel

EMBEDDED_BYTES = 1_900_000_000
"""Larger weights are put into a file beside the graph: protobuf's limit is 2 GB."""

UNQUANTIZED = "unquantized.onnx"
GENAI, GENAI_CONFIG = "onnxruntime-genai", "genai_config.json"


def require_exportable(model: TextModel) -> None:
    """Raises UsageError when a package is missing."""
    for package in ("onnx", "onnxruntime"):
        require_package(package)


def write(model: TextModel, folder: Path, dtype: Dtype) -> None:
    """Writes the files into an existing folder; beside an int8 graph the unquantised one, which `check` removes."""
    import onnx

    path = folder / (UNQUANTIZED if dtype == "int8" else FILE)
    is_large = sum(parameter.nbytes for parameter in model.model.parameters()) > EMBEDDED_BYTES
    graph = onnx_graph.build(model.model, metadata_of(model))
    onnx.save_model(graph, path, save_as_external_data=is_large, location=f"{path.name}.data")
    del graph
    if dtype == "int8":
        onnx_quantization.quantize(path, folder / FILE, is_large)
    tokenizer_files.save(model.tokenizer, folder, model.template)
    (folder / GENAI_CONFIG).write_text(json.dumps(genai_config(model), indent=2) + "\n", encoding="utf-8")


def genai_config(model: TextModel) -> dict[str, Any]:
    """What onnxruntime-genai reads: the names and sizes in the graph, and the model's sampling settings."""
    config, eot, sampling = model.model.config, model.tokenizer.eot, model.sampling
    decoder = {
        "filename": FILE,
        "session_options": {"provider_options": []},
        "head_size": config.head_dim,
        "hidden_size": config.n_embd,
        "num_attention_heads": config.n_head,
        "num_key_value_heads": config.n_head,
        "num_hidden_layers": config.n_layer,
        "inputs": {
            **{name: name for name in (onnx_graph.TOKENS, onnx_graph.MASK, onnx_graph.POSITIONS)},
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": onnx_graph.LOGITS,
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
    }
    search = {
        "do_sample": sampling.temperature > 0,
        "temperature": sampling.temperature or 1.0,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "max_length": model.context_length,
        "past_present_share_buffer": False,
    }
    described = {
        "type": "decoder",  # its "gpt2" has keys and values in one tensor
        "bos_token_id": eot,
        "eos_token_id": eot,
        "pad_token_id": eot,
        "context_length": model.context_length,
        "vocab_size": model.vocab_size,
        "decoder": decoder,
    }
    return {"model": described, "search": search}


def check(model: TextModel, folder: Path, dtype: Dtype, reference: Reference) -> Checked:
    """Runs the graph in onnxruntime, and in onnxruntime-genai where it is installed.

    Of an int8 graph the unquantised one is checked first. Raises CheckpointError when it is not the model.
    """
    require_tokenizer_in(folder, model.tokenizer)
    quantization = None
    if dtype == "int8":
        unquantized = folder / UNQUANTIZED
        verify(OnnxNetwork(unquantized), reference, "fp32")
        for path in (unquantized, folder / f"{UNQUANTIZED}.data"):
            path.unlink(missing_ok=True)
    network = OnnxNetwork(folder / FILE)
    verified = [verify(network, reference, dtype)]
    if dtype == "int8":
        quantization = onnx_quantization.measure_loss(model, logits_of(network))
    del network
    if importlib.util.find_spec("onnxruntime_genai") is None:
        return Checked(tuple(verified), (GENAI,), quantization=quantization)
    genai, notes = _check_in_genai(model, folder, dtype, reference)
    return Checked((*verified, genai), notes=notes, quantization=quantization)


def logits_of(network: OnnxNetwork) -> LogitsOf:
    """The logits of a graph. Tokens that continue those of the last call by one are read after its keys and values.

    Then only the last row of the logits is returned.
    """
    known, past = torch.empty(0, dtype=torch.int64), network.no_past(1)

    def run(tokens: Tensor) -> Tensor:
        nonlocal known, past
        continues = len(known) > 0 and torch.equal(tokens[:-1], known)
        new = tokens[-1:] if continues else tokens
        logits, past = network.run(new[None], past if continues else network.no_past(1))
        known = tokens
        return logits[0]

    return run


def verify(network: OnnxNetwork, reference: Reference, dtype: Dtype) -> Verification:
    """One text, the greedy continuation token by token, and two texts of different lengths with padding."""
    import onnxruntime

    runtime = f"onnxruntime {onnxruntime.__version__}"
    verified = reference.verify(runtime, logits_of(network), dtype)
    largest = max(_padded(network, reference, runtime, dtype, left) for left in (True, False))
    return replace(verified, difference=max(verified.difference, largest), padded_batches=True)


def _padded(network: OnnxNetwork, reference: Reference, runtime: str, dtype: Dtype, left: bool) -> float:
    """The largest difference in a batch with padding on one side, and in the tokens after it."""
    longest = len(reference.tokens) - 1
    if longest < 1:
        return 0.0
    lengths = (longest, (longest + 1) // 2)
    texts = [slice(longest - n, longest) if left else slice(0, n) for n in lengths]
    tokens, mask = torch.zeros(2, longest, dtype=torch.int64), torch.zeros(2, longest + 1, dtype=torch.int64)
    mask[:, -1] = 1
    for row, (n, text) in enumerate(zip(lengths, texts, strict=True)):
        tokens[row, text], mask[row, text] = reference.tokens[:n], 1
    logits, past = network.run(tokens, network.no_past(2), mask[:, :-1])
    after, _ = network.run(reference.tokens[list(lengths)][:, None], past, mask)
    return max(
        reference.difference(runtime, torch.cat((logits[row, text], after[row])), reference.logits[: n + 1], dtype)
        for row, (n, text) in enumerate(zip(lengths, texts, strict=True))
    )


def _check_in_genai(
    model: TextModel, folder: Path, dtype: Dtype, reference: Reference
) -> tuple[Verification, tuple[str, ...]]:
    """The greedy continuation in onnxruntime-genai, and a note where its tokenizer is not the model's."""
    import onnxruntime_genai as genai

    try:
        opened = genai.Model(str(folder))
        settings = genai.GeneratorParams(opened)
        settings.set_search_options(do_sample=False, max_length=model.context_length)
        generator: Any = None
        known = torch.empty(0, dtype=torch.int64)

        def run(tokens: Tensor) -> Tensor:
            nonlocal generator, known
            continues = generator is not None and torch.equal(tokens[:-1], known)
            generator = generator if continues else genai.Generator(opened, settings)
            generator.append_tokens((tokens[-1:] if continues else tokens).numpy().astype(np.int32)[None])
            known = tokens
            return torch.from_numpy(generator.get_logits()).float().reshape(-1, model.vocab_size)

        verified = reference.verify_steps(f"{GENAI} {genai.__version__}", run, dtype)
    except CheckpointError:
        raise
    except Exception as error:  # the library raises bare Exceptions
        raise CheckpointError(f"{GENAI} cannot run the exported folder: {first_line(error)}") from error
    try:
        ids = [int(i) for i in genai.Tokenizer(opened).encode(PROBE)]
    except Exception:
        ids = []
    if ids == model.tokenizer.encode(PROBE):
        return verified, ()
    return verified, (
        f"{GENAI} runs the model but does not split text as its tokenizer, {model.tokenizer.name}, does: give it "
        "tokens, not text",
    )
