"""Reads the network of a model: of our checkpoints, folders in Hugging Face's GPT-2 form, and models of the Hub."""

import contextlib
import hashlib
import importlib.util
import math
import os
import pickle
import re
import warnings
from pathlib import Path

import torch
from torch import Tensor

from gpt2tui.errors import CheckpointError, PresetError, UsageError, first_line
from gpt2tui.model.cpu import tune_for_cpu
from gpt2tui.model.gpt2 import GPT2, network_without_weights
from gpt2tui.model.huggingface import from_published
from gpt2tui.model.lora import merge, scale_in
from gpt2tui.model.nf4 import round_matrices
from gpt2tui.preset import files as preset_files
from gpt2tui.run import checkpoint
from gpt2tui.run import folder as runs
from gpt2tui.run.checkpoint import Origin
from gpt2tui.run.model_lookup import (
    ADAPTER,
    ADAPTER_CONFIG,
    INDEX,
    PICKLED_WEIGHTS,
    WEIGHTS,
    ModelFolder,
    base_name,
    find_here,
    is_adapter,
    why_no_weights,
)
from gpt2tui.system.files import runs_folder, sha256

HUB_TIMEOUT_SECONDS = 10


def find(reference: str) -> ModelFolder:
    """What a CHECKPOINT argument means: a folder, a run (its best checkpoint), RUN@STEP, or a model of the Hub.

    A model of the Hub is downloaded unless it is in the local cache. Raises CheckpointError when there is no such
    model, and when a checkpoint is damaged.
    """
    return find_here(reference) or ModelFolder(_download(reference), None, reference)


def load_model(folder: Path) -> GPT2:
    """The network in a folder of the published layout, on the CPU; an adapter is added to its base.

    Raises CheckpointError, also where a weight is NaN or infinite: such a model would write random text.
    """
    model = _load_merged(folder) if is_adapter(folder) else _load_full(folder)
    for name, weight in model.named_parameters():
        # The sum is the cheaper test, and can overflow where no weight is infinite.
        if not (math.isfinite(weight.detach().sum().item()) or weight.isfinite().all()):
            raise CheckpointError(f"{folder}: {name} holds NaN or infinite numbers; the model cannot be used")
    return model


def check_quantizer() -> None:
    """Raises UsageError when bitsandbytes, which quantises for QLoRA, is not installed."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UsageError(
            "lora.quantize needs the package bitsandbytes, which is not installed: python -m pip install "
            "'gpt2tui[qlora]', or in a checkout uv sync --extra qlora"
        )


def base_of(folder: Path) -> ModelFolder:
    """The model that an adapter in a folder belongs to.

    Raises CheckpointError when it is not here, and when its weights are not those that the adapter was trained with.
    """
    if not (folder / checkpoint.MANIFEST).exists():  # PEFT records no digest
        return _find_base(folder, Origin(base_name(folder), ""))
    origin = checkpoint.inspect(folder).origin
    assert origin is not None, "a manifest of an adapter has an origin"
    base = _find_base(folder, origin)
    if (digest := weights_sha256(base.folder)) != origin.sha256:
        raise CheckpointError(
            f"{folder} is an adapter of {origin}, whose weights have changed since: their SHA-256 was "
            f"{origin.sha256[:16]}… and is {digest[:16]}…; restore those with which it was trained"
        )
    return base


def description_folder(folder: Path) -> Path:
    """Where config.json and the tokenizer of a model are: in its folder, or with an adapter of PEFT in its base's."""
    return base_of(folder).folder if is_adapter(folder) and not (folder / "config.json").exists() else folder


def _find_base(adapter: Path, origin: Origin) -> ModelFolder:
    """The model by its place, else the checkpoint by its run and step."""
    try:
        return find(origin.source)
    except CheckpointError as error:
        for run in runs.all_runs():
            with contextlib.suppress(CheckpointError):
                if origin.step is not None and run.info().get("run_id") == origin.run_id:
                    saved = checkpoint.at(run.checkpoints, origin.step)
                    return ModelFolder(saved.folder, saved)
        raise CheckpointError(
            f"{adapter} is an adapter, and the model that it belongs to, {origin}, was not found ({error}); put it "
            "back where it was"
        ) from error


def _load_merged(folder: Path) -> GPT2:
    network = load_model(base_of(folder).folder)
    if _is_quantized(folder):
        check_quantizer()
        round_matrices(network)
    tensors = checkpoint.load_tensors(folder / ADAPTER)
    try:
        merge(network, tensors, scale_in(checkpoint.read_json(folder / ADAPTER_CONFIG)))
    except ValueError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    return network


def _is_quantized(adapter: Path) -> bool:
    """Whether an adapter was trained beside an NF4 base. PEFT's files do not say it, our presets do."""
    if not (adapter / checkpoint.MANIFEST).exists():
        return False
    try:
        lora = preset_files.load_frozen(adapter / "preset.toml").lora
    except PresetError as error:
        raise CheckpointError(f"{adapter / 'preset.toml'}: {error}") from error
    return lora is not None and lora.quantize is not None


def _load_full(folder: Path) -> GPT2:
    tensors = _tensors(folder)
    try:
        config, state = from_published(tensors, checkpoint.read_json(folder / "config.json"))
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} does not hold a GPT-2: {error}") from error
    model = tune_for_cpu(network_without_weights(config))
    model.load_state_dict(state, assign=True)
    model.requires_grad_(True)
    return model


def weights_sha256(folder: Path) -> str:
    """The SHA-256 of the weights of a model: of their file, or of the digests of their files in the order of names."""
    if not (folder / WEIGHTS).exists() and (folder / INDEX).exists():
        digests = [sha256(folder / name) for name in _parts(folder / INDEX)]
        return hashlib.sha256("".join(digests).encode()).hexdigest()
    names = (WEIGHTS, ADAPTER, PICKLED_WEIGHTS)
    return sha256(folder / next((name for name in names if (folder / name).exists()), WEIGHTS))


def _tensors(folder: Path) -> dict[str, Tensor]:
    """The named tensors of a model's weights, of safetensors files where there are some."""
    if (folder / WEIGHTS).exists():
        return checkpoint.load_tensors(folder / WEIGHTS)
    if (folder / INDEX).exists():
        tensors: dict[str, Tensor] = {}
        for name in _parts(folder / INDEX):
            tensors |= checkpoint.load_tensors(folder / name)
        return tensors
    if (folder / PICKLED_WEIGHTS).exists():
        return _unpickled(folder / PICKLED_WEIGHTS)
    raise CheckpointError(why_no_weights(folder))


def _parts(index: Path) -> list[str]:
    """The names of the safetensors files of a model whose `index` lists them."""
    try:
        names = sorted(set(checkpoint.read_json(index)["weight_map"].values()))
    except (KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} does not say in which files the weights are: {error!r}") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{index} names {name!r}, which is not a safetensors file beside it")
        if not (index.parent / name).exists():
            raise CheckpointError(f"{index.parent} has not all parts of the weights: {name} is missing")
    return names


def _unpickled(path: Path) -> dict[str, Tensor]:
    """The named tensors of a pickle, read by torch's unpickler that makes tensors and plain containers only."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of the protocol, which is not what is wrong
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} holds more than tensors, or is damaged, and is not read: a pickle can run code"
            f"{_refused_by_torch(error)}. Convert it where you trust it: model.save_pretrained(folder) in transformers"
        ) from error
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()
    ):
        raise CheckpointError(f"{path} does not hold named tensors")
    return tensors


def _refused_by_torch(error: Exception) -> str:
    """What torch found in a pickle; not its advice to read it nevertheless, which runs the code."""
    found = re.search(r"Unsupported \w+: .*?(?= was not an allowed|\.\s|\n|$)", str(error))
    return f" ({found[0][:200]})" if found else ""


def _download(hub_id: str) -> Path:
    """Downloads a model from the Hugging Face Hub; without a network, takes it from the local cache."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from huggingface_hub import snapshot_download

    from gpt2tui.data.hub import hub_is_reachable

    weights = [WEIGHTS, INDEX, "model-*-of-*.safetensors"]
    tokenizer = ["tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "added_tokens.json"]
    # Left to itself the Hub's client repeats requests that are not answered for minutes.
    reachable = hub_is_reachable()

    def download(*patterns: str) -> Path:
        return Path(
            snapshot_download(
                hub_id,
                allow_patterns=["config.json", *tokenizer, *patterns],
                etag_timeout=HUB_TIMEOUT_SECONDS,
                local_files_only=not reachable,
            )
        )

    try:
        folder = download(*weights)
        has_safetensors = (folder / WEIGHTS).exists() or (folder / INDEX).exists()
        return folder if has_safetensors or not reachable else download(PICKLED_WEIGHTS)
    except Exception as error:  # the Hub's client raises many unrelated kinds
        if reachable:
            hub = (
                f"the Hugging Face Hub gives no model of that name ({first_line(error)[:200] or type(error).__name__})"
            )
        else:
            hub = "the Hugging Face Hub, where a model may have that name, cannot be reached, and its cache has none"
        raise CheckpointError(
            f"there is no run {hub_id} in {runs_folder()} (`gpt2tui runs list` shows them) and no folder of that name; "
            + hub
        ) from error
