"""Finds a model by its reference, and reads its network: our checkpoints, and folders in Hugging Face's GPT-2 form."""

import contextlib
import hashlib
import importlib.util
import os
import pickle
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gpt2tui.errors import CheckpointError, PresetError, UsageError, first_line
from gpt2tui.model.cpu import tune_for_cpu
from gpt2tui.model.gpt2 import GPT2
from gpt2tui.model.huggingface import from_published
from gpt2tui.model.lora import merge, scale_in
from gpt2tui.model.nf4 import round_matrices
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.source import portable
from gpt2tui.run import checkpoint
from gpt2tui.run import folder as runs
from gpt2tui.run.checkpoint import Checkpoint, Origin
from gpt2tui.system.files import runs_folder, sha256

HUB_TIMEOUT_SECONDS = 10
OWN_FILES = ("trainer.json", "training_state.safetensors")  # a folder with one but no manifest is a damaged checkpoint
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PUBLISHED = {
    **{name: f"openai-community/{name}" for name in ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")},
    "distilgpt2": "distilbert/distilgpt2",
}
"""Models that the Hub used to have without their owner's name."""
WEIGHTS, INDEX, PICKLED_WEIGHTS = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"


@dataclass(frozen=True)
class ModelFolder:
    """The folder that a reference means, and the verified checkpoint in it when it is one of ours."""

    folder: Path
    saved: Checkpoint | None
    hub_id: str | None = None

    @property
    def source(self) -> str:
        """The id of the Hub, or the absolute path of the folder, with ~ for the user's home."""
        return self.hub_id or portable(str(self.folder.absolute()))


def find(reference: str) -> ModelFolder:
    """What a CHECKPOINT argument means: a folder, a run (its best checkpoint), RUN@STEP, or a model of the Hub.

    A model of the Hub is downloaded unless it is in the local cache. Raises CheckpointError when there is no such
    model, and when a checkpoint is damaged.
    """
    path = Path(os.path.expanduser(reference))  # noqa: PTH111 does not raise for an unknown user
    if path.is_file():  # the user named the weights instead of their folder
        if path.suffix in PICKLES and path.name != PICKLED_WEIGHTS:
            raise CheckpointError(
                f"{path} is a pickle, which can run code when it is opened; gpt2tui reads safetensors. "
                "Convert it where you trust it: model.save_pretrained(folder) in transformers"
            )
        raise CheckpointError(f"{path} is a file; a checkpoint is a folder")
    for folder in (path, runs_folder() / reference):
        if found := _model_in(folder):
            return found
    if path.is_dir():
        if meant := _what_a_folder_is(path):
            raise CheckpointError(meant)
        load_model(path)  # raises an error that says what is missing
    is_hub_id = HUB_ID.fullmatch(reference) is not None and not path.parent.is_dir()
    try:
        run, saved = runs.find_with_checkpoint(reference)
    except UsageError as error:
        if not is_hub_id:
            raise CheckpointError(_no_checkpoint(reference, str(error))) from None
        return ModelFolder(_download(reference), None, reference)
    if saved is None:
        is_newest = reference.endswith(f"@{runs.LATEST}")
        saved = checkpoint.newest(run.checkpoints) if is_newest else checkpoint.best(run.checkpoints)
    return ModelFolder(saved.folder, saved)


def _what_a_folder_is(path: Path) -> str | None:
    """What to name instead of the folder of all runs or of a run's checkpoints; None for other folders."""
    if path.name == runs.CHECKPOINTS and (path.parent / "run.json").is_file():
        return (
            f"{path} holds the checkpoints of a run; name the run, {path.parent}, for its best one, or one of the "
            f"folders in {path}"
        )
    found = sorted(path.glob("*/run.json"))
    if found:
        newest = found[-1].parent
        return f"{path} holds {len(found)} runs; name one of them, such as {newest}, or latest for the one begun last"
    return None


def _no_checkpoint(reference: str, no_run: str) -> str:
    """The message for a word that is neither a folder nor a run, and no id of the Hub, whose ids have one slash."""
    if reference.startswith("@"):
        return no_run
    if reference in PUBLISHED:
        return f"{no_run}; for the published model write {PUBLISHED[reference]}"
    if reference in {source.name for source in preset_files.available()}:
        return f"{reference} is a preset, not a model; train it first: gpt2tui train {reference}"
    if "/" in reference or "\\" in reference:
        return f"there is no checkpoint {reference}: the folder does not exist, and {no_run}"
    return f"{no_run}; there is no folder of that name either, and models of the Hub are written owner/name"


def load_model(folder: Path) -> GPT2:
    """The network in a folder of the published layout, on the CPU; an adapter is added to its base.

    Raises CheckpointError.
    """
    return _load_merged(folder) if is_adapter(folder) else _load_full(folder)


def check_quantizer() -> None:
    """Raises UsageError when bitsandbytes, which quantises for QLoRA, is not installed."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UsageError(
            "lora.quantize needs the package bitsandbytes, which is not installed: python -m pip install "
            "'gpt2tui[qlora]', or in a checkout uv sync --extra qlora"
        )


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, of ours or of PEFT, and no whole model."""
    return (folder / ADAPTER_CONFIG).exists() and not (folder / WEIGHTS).exists()


def base_of(folder: Path) -> ModelFolder:
    """The model that an adapter in a folder belongs to.

    Raises CheckpointError when it is not here, and when its weights are not those that the adapter was trained with.
    """
    if not (folder / checkpoint.MANIFEST).exists():  # PEFT records no digest
        name = checkpoint.read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
        if not isinstance(name, str) or not name:
            raise CheckpointError(f"{folder / ADAPTER_CONFIG} does not say which model the adapter belongs to")
        return _find_base(folder, Origin(name, ""))
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
    with torch.device("meta"):
        model = tune_for_cpu(GPT2(config))
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


def _model_in(folder: Path) -> ModelFolder | None:
    """The model in a folder, which may be a run's; None where there is none."""
    if (folder / checkpoint.MANIFEST).exists() or any((folder / name).exists() for name in OWN_FILES):
        return ModelFolder(folder, checkpoint.verify(folder))
    if (folder / "config.json").exists() or is_adapter(folder):
        return ModelFolder(folder, None)
    if (folder / runs.CHECKPOINTS).is_dir():
        best = checkpoint.best(folder / runs.CHECKPOINTS)
        return ModelFolder(best.folder, best)
    return None


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
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES)
    found = (
        f" (only {', '.join(pickles)}; of pickles only {PICKLED_WEIGHTS} is read. Convert it where you trust it: "
        "model.save_pretrained(folder) in transformers)"
        if pickles
        else ""
    )
    raise CheckpointError(f"{folder} has no {WEIGHTS}{found}")


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
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{path} holds more than tensors, or is damaged, and is not read: a pickle can run code "
            f"({first_line(error)[:200]}). Convert it where you trust it: model.save_pretrained(folder) in transformers"
        ) from error
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()
    ):
        raise CheckpointError(f"{path} does not hold named tensors")
    return tensors


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
