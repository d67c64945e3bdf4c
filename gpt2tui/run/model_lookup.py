"""What a CHECKPOINT argument and `model.init_from` mean: a folder, a run, RUN@STEP, a tag; imports no torch."""

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from gpt2tui.errors import CheckpointError, UsageError
from gpt2tui.preset.catalog import available
from gpt2tui.preset.source import portable
from gpt2tui.run import checkpoint
from gpt2tui.run import folder as runs
from gpt2tui.run.checkpoint import Checkpoint
from gpt2tui.system.files import runs_folder
from gpt2tui.system.terminal_text import printable

OWN_FILES = ("trainer.json", "training_state.safetensors")  # a folder with one but no manifest is a damaged checkpoint
WEIGHTS, INDEX, PICKLED_WEIGHTS = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"
ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PUBLISHED = {
    **{name: f"openai-community/{name}" for name in ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")},
    "distilgpt2": "distilbert/distilgpt2",
}
"""Models that the Hub used to have without their owner's name."""


@dataclass(frozen=True)
class ModelFolder:
    """The folder that a reference means, and the checkpoint in it when it is one of ours."""

    folder: Path
    saved: Checkpoint | None
    hub_id: str | None = None

    @property
    def source(self) -> str:
        """The id of the Hub, or the absolute path of the folder, with ~ for the user's home."""
        return self.hub_id or portable(str(self.folder.absolute()))


def find_here(reference: str, *, verified: bool = True) -> ModelFolder | None:
    """The model that a reference means on this machine; None for an id of the Hub that is nothing here.

    A run means its best checkpoint. Without `verified` the digests of its files are not compared, which takes long for
    large ones. Raises CheckpointError when there is no such model, and when a checkpoint is damaged.
    """
    try:
        return _find_here(reference, checkpoint.verify if verified else checkpoint.inspect)
    except (OSError, ValueError) as error:  # too long for a name, a NUL in it
        raise CheckpointError(f"there is no model {printable(reference, 200)}: {error}") from None


def check_reference(reference: str) -> None:
    """Raises CheckpointError when a word means no model, without a look at weights; says nothing of files and ids."""
    path = Path(os.path.expanduser(reference))  # noqa: PTH111
    if path.suffix != ".onnx" and not path.exists():
        find_here(reference, verified=False)


def _find_here(reference: str, check: checkpoint.Check) -> ModelFolder | None:
    path = Path(os.path.expanduser(reference))  # noqa: PTH111 does not raise for an unknown user
    if path.is_file():  # the user named the weights instead of their folder
        raise _is_a_file(path)
    for folder in (path, runs_folder() / reference):
        if found := _model_in(folder, check):
            return found
    if path.is_dir():
        raise CheckpointError(_what_a_folder_is(path) or why_no_weights(path))
    try:
        run, saved = runs.find_with_checkpoint(reference, check)
    except UsageError as error:
        if HUB_ID.fullmatch(reference) is not None and not path.parent.is_dir():
            return None
        raise CheckpointError(_no_model(reference, str(error))) from None
    if saved is None:
        is_newest = reference.endswith(f"@{runs.LATEST}")
        saved = checkpoint.newest(run.checkpoints, check) if is_newest else checkpoint.best(run.checkpoints, check)
    return ModelFolder(saved.folder, saved)


def description_folder_here(reference: str) -> Path | None:
    """Where config.json and the tokenizer of a model are, without a look at its weights; None if it is not here.

    A model of the Hub is looked up in its local cache. Raises CheckpointError as `find_here` does.
    """
    found = find_here(reference, verified=False)
    folder = _cached_hub_folder(reference) if found is None else found.folder
    if folder is not None and is_adapter(folder) and not (folder / "config.json").exists():
        return description_folder_here(base_name(folder))
    return folder


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, of ours or of PEFT, and no whole model."""
    return (folder / ADAPTER_CONFIG).exists() and not (folder / WEIGHTS).exists()


def base_name(adapter: Path) -> str:
    """The model that an adapter of PEFT names as its base. Raises CheckpointError when it names none but itself."""
    name = checkpoint.read_json(adapter / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise CheckpointError(f"{adapter / ADAPTER_CONFIG} does not say which model the adapter belongs to")
    if Path(name).absolute() == adapter.absolute():
        raise CheckpointError(f"{adapter / ADAPTER_CONFIG} says that the adapter belongs to itself")
    return name


def why_no_weights(folder: Path) -> str:
    """What is missing in a folder that holds no model that can be read."""
    if any((folder / name).exists() for name in (WEIGHTS, INDEX, PICKLED_WEIGHTS)):
        return f"{folder} has no config.json, which says the shape of the model"
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if not pickles:
        return f"{folder} has no {WEIGHTS}"
    return (
        f"{folder} has no {WEIGHTS} (only {', '.join(pickles)}; of pickles only {PICKLED_WEIGHTS} is read. Convert it "
        "where you trust it: model.save_pretrained(folder) in transformers)"
    )


def _is_a_file(path: Path) -> CheckpointError:
    if path.suffix in PICKLES and path.name != PICKLED_WEIGHTS:
        return CheckpointError(
            f"{path} is a pickle, which can run code when it is opened; gpt2tui reads safetensors. "
            "Convert it where you trust it: model.save_pretrained(folder) in transformers"
        )
    return CheckpointError(f"{path} is a file; a checkpoint is a folder")


def _model_in(folder: Path, check: checkpoint.Check) -> ModelFolder | None:
    """The model in a folder, which may be a run's; None where there is none."""
    if (folder / checkpoint.MANIFEST).exists() or any((folder / name).exists() for name in OWN_FILES):
        return ModelFolder(folder, check(folder))
    if (folder / "config.json").exists() or is_adapter(folder):
        return ModelFolder(folder, None)
    if (folder / runs.CHECKPOINTS).is_dir():
        best = checkpoint.best(folder / runs.CHECKPOINTS, check)
        return ModelFolder(best.folder, best)
    return None


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


def _no_model(reference: str, no_run: str) -> str:
    """The message for a word that is neither a folder nor a run, and no id of the Hub, whose ids have one slash."""
    if reference.startswith("@"):
        return no_run
    if reference in PUBLISHED:
        return f"{no_run}; for the published model write {PUBLISHED[reference]}"
    if reference in {source.name for source in available()}:
        return f"{reference} is a preset, not a model; train it first: gpt2tui train {reference}"
    if "/" in reference or "\\" in reference:
        return f"there is no checkpoint {reference}: the folder does not exist, and {no_run}"
    if no_run.endswith("?"):  # a run has almost that name
        return no_run
    return f"{no_run}; there is no folder of that name either, and models of the Hub are written owner/name"


def _cached_hub_folder(hub_id: str) -> Path | None:
    """The folder of a model in the Hub's local cache; None where it is not there."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    with contextlib.suppress(HFValidationError, OSError):
        for name in ("config.json", ADAPTER_CONFIG):
            if isinstance(found := try_to_load_from_cache(hub_id, name), str):
                return Path(found).parent
    return None
