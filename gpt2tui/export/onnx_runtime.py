"""An exported ONNX graph in onnxruntime: for its verification, and to sample from it."""

import importlib.util
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ValidationError
from torch import Tensor

from gpt2tui.data import tokenizers
from gpt2tui.errors import CheckpointError, UsageError, first_line
from gpt2tui.export.onnx_graph import LOGITS, MASK, POSITIONS, TOKENS, past_names, present_names
from gpt2tui.generation import TextModel
from gpt2tui.model.config import GPT2Config
from gpt2tui.model.gpt2 import network_without_weights
from gpt2tui.model.kv_cache import KVCache
from gpt2tui.preset.schema import SamplingTable

FILE = "model.onnx"
CONFIG, CONTEXT, SAMPLING = "gpt2tui.config", "gpt2tui.context_length", "gpt2tui.sampling"
"""The keys of what a file of ours says about itself, in its metadata."""

KeysAndValues = list[npt.NDArray[np.float32]]
"""One (B, H, P, D) array for each name of `past_names`."""


def metadata_of(model: TextModel) -> dict[str, str]:
    """What an exported graph says about itself: its shape, trained length and sampling settings."""
    return {
        CONFIG: model.model.config.model_dump_json(),
        CONTEXT: str(model.context_length),
        SAMPLING: model.sampling.model_dump_json(),
    }


def require_package(name: str) -> None:
    """Raises UsageError where a package of the extra is missing."""
    if importlib.util.find_spec(name) is None:
        raise UsageError(
            f"ONNX needs the package {name}: pip install 'gpt2tui[onnx]', or in a checkout uv sync --extra onnx"
        )


class OnnxNetwork:
    """A graph with the inputs and outputs of `onnx_graph.build`, made by this program."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        """Raises CheckpointError when it cannot be opened or is another graph, UsageError for an absent device."""
        require_package("onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=[_provider(device)])
        except UsageError:
            raise
        except Exception as error:  # the library raises many unrelated kinds
            raise CheckpointError(f"onnxruntime cannot open {path}: {first_line(error)}") from error
        self.config, self.context_length, self.sampling = self._description(path)
        layers, heads = self.config.n_layer, self.config.n_head
        self._past, self._outputs = past_names(layers), [LOGITS, *present_names(layers)]
        found = {value.name: list(value.shape) for value in self._session.get_inputs()}
        past = [found.get(name, [None] * 4) for name in self._past]
        if (
            found.keys() != {TOKENS, MASK, POSITIONS, *self._past}
            or {value.name for value in self._session.get_outputs()} != {*self._outputs}
            or any([*shape[1:2], *shape[3:]] != [heads, self.config.head_dim] for shape in past)
        ):
            raise CheckpointError(f"{path} is damaged: its inputs and outputs are not those that it describes")

    def _description(self, path: Path) -> tuple[GPT2Config, int, SamplingTable]:
        described = self._session.get_modelmeta().custom_metadata_map
        if CONFIG not in described:
            names = ", ".join(value.name for value in self._session.get_inputs()[:4])
            raise CheckpointError(
                f"{path} was not made by gpt2tui export --format onnx (its inputs are {names}); only such files can be "
                "sampled from"
            )
        try:
            config = GPT2Config.model_validate_json(described[CONFIG])
            context = int(described[CONTEXT])
            sampling = SamplingTable.model_validate_json(described[SAMPLING])
        except (ValidationError, ValueError, KeyError) as error:
            raise CheckpointError(f"{path} is damaged: its metadata is not readable: {first_line(error)}") from error
        if config.vocab_size is None or config.inconsistencies() or not 1 <= context <= config.n_positions:
            raise CheckpointError(f"{path} is damaged: its metadata describes no model")
        return config, context, sampling

    def no_past(self, batch_size: int) -> KeysAndValues:
        """The keys and values of no tokens."""
        shape = (batch_size, self.config.n_head, 0, self.config.head_dim)
        return [np.zeros(shape, dtype=np.float32) for _ in self._past]

    def run(self, tokens: Tensor, past: KeysAndValues, mask: Tensor | None = None) -> tuple[Tensor, KeysAndValues]:
        """Tokens (B, T) after those of `past` -> logits (B, T, V) and the keys and values of all, P + T positions.

        `mask` (B, P + T) int64 is 0 for padding, which has no position.
        """
        length = past[0].shape[2] + tokens.size(1)
        mask = torch.ones(len(tokens), length, dtype=torch.int64) if mask is None else mask
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -tokens.size(1) :]
        inputs = {TOKENS: tokens.numpy(), MASK: mask.numpy(), POSITIONS: positions.numpy()}
        inputs |= dict(zip(self._past, past, strict=True))
        try:
            logits, *present = self._session.run(self._outputs, inputs)
        except Exception as error:
            raise CheckpointError(f"onnxruntime cannot run the graph: {first_line(error)}") from error
        return torch.from_numpy(logits), present


def _provider(device: str) -> str:
    """The execution provider for a --device. Raises UsageError where onnxruntime has none for it."""
    import onnxruntime

    providers = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
    available = onnxruntime.get_available_providers()
    if device == "auto":
        device = "cuda" if providers["cuda"] in available else "cpu"
    if providers.get(device) not in available:
        raise UsageError(f"--device {device}: the onnxruntime that is installed has {', '.join(available)}")
    return providers[device]


class OnnxDecoder:
    """Computes the logits of `generate` in onnxruntime; it has the keys and values, and `cache` counts them."""

    device = torch.device("cpu")

    def __init__(self, network: OnnxNetwork) -> None:
        self.network = network
        self._past: KeysAndValues = []

    def reads(self, texts: int, tokens: int) -> bool:
        """Everything, prompts too."""
        return True

    def logits(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """Tokens (B, T) int64 -> (B, V) fp32, after those in the cache."""
        past = self._past if cache.length else self.network.no_past(len(tokens))
        logits, self._past = self.network.run(tokens, past)
        cache.advance(tokens.size(1))
        return logits[:, -1]


def file_in(reference: str) -> Path | None:
    """The ONNX file that a reference names, by itself or by its folder; None for other models."""
    path = Path(reference).expanduser()
    if path.suffix == ".onnx":
        return path
    return path / FILE if (path / FILE).is_file() and not (path / "config.json").exists() else None


def load(path: Path, device: str = "auto") -> TextModel:
    """An exported graph with the tokenizer beside it, to generate text with; its weights stay in onnxruntime.

    Raises CheckpointError when it is missing, damaged, or not an export of ours.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}")
    network = OnnxNetwork(path, device)
    tokenizer = tokenizers.load(path.parent)
    assert network.config.vocab_size is not None
    if tokenizer.vocab_size > network.config.vocab_size:
        raise CheckpointError(
            f"{path.parent}: its tokenizer has {tokenizer.vocab_size} tokens, its model {network.config.vocab_size}"
        )
    shape = network_without_weights(network.config).eval()
    return TextModel(
        shape,
        tokenizer,
        str(path),
        network.context_length,
        network.sampling,
        decoder=OnnxDecoder(network),
        template=tokenizers.template_in(path.parent),
    )
