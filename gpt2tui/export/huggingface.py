"""Export as a folder for transformers and the Hugging Face Hub: weights, tokenizer, generation settings, model card."""

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt2tui import model_files
from gpt2tui.data import tokenizer_files
from gpt2tui.errors import CheckpointError, ResourceError, first_line
from gpt2tui.export import weights
from gpt2tui.export.model_card import model_card
from gpt2tui.export.verification import (
    Checked,
    Dtype,
    Reference,
    Verification,
    logits_of,
    require_same_tokenizer,
    require_tokenizer_in,
)
from gpt2tui.generation import TextModel
from gpt2tui.model.published_config import published_config
from gpt2tui.run.model_lookup import WEIGHTS

RUNTIME = "transformers"


def write(model: TextModel, folder: Path, dtype: Dtype) -> None:
    """Writes the files into an existing folder."""
    network, eot = model.model.config, model.tokenizer.eot
    documents = {
        "config.json": published_config(network, eot, trained_length=model.context_length),
        "generation_config.json": generation_config(model),
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    tokenizer_files.save(model.tokenizer, folder, model.template)
    weights.write(model, folder / WEIGHTS, dtype)
    (folder / "README.md").write_text(model_card(model, dtype), encoding="utf-8")


def generation_config(model: TextModel) -> dict[str, Any]:
    """The model's sampling settings as transformers' generate() reads them."""
    sampling, eot = model.sampling, model.tokenizer.eot
    chosen: dict[str, Any] = {"do_sample": False}
    if sampling.temperature:
        chosen = {
            "do_sample": True,
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
        }
    tokens = {"bos_token_id": eot, "eos_token_id": eot, "pad_token_id": eot}
    return {**tokens, **chosen, "max_new_tokens": sampling.max_length}


def check(model: TextModel, folder: Path, dtype: Dtype, reference: Reference) -> Checked:
    """Reads the folder back with our own reader, and with transformers where it is installed, and runs it.

    Raises CheckpointError when it is not the model.
    """
    weights.require_written(model, folder / WEIGHTS, dtype)
    require_tokenizer_in(folder, model.tokenizer)
    network = model_files.load_model(folder).eval()
    verified = [reference.verify("gpt2tui", logits_of(network), dtype)]
    if importlib.util.find_spec(RUNTIME) is None:
        return Checked(tuple(verified), (RUNTIME,))
    verified.append(_check_in_transformers(model, folder, dtype, reference))
    return Checked(tuple(verified))


def _check_in_transformers(model: TextModel, folder: Path, dtype: Dtype, reference: Reference) -> Verification:
    import transformers

    transformers.utils.logging.disable_progress_bar()
    try:
        network, loading = transformers.GPT2LMHeadModel.from_pretrained(folder, output_loading_info=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        settings = transformers.GenerationConfig.from_pretrained(folder).to_dict()
    except Exception as error:  # the library raises many unrelated kinds
        raise CheckpointError(f"transformers cannot load the exported folder: {first_line(error)}") from error
    if problems := {name: found for name, found in loading.items() if found}:
        raise CheckpointError(f"transformers does not load the exported weights as they are: {problems}")
    if changed := [name for name, value in generation_config(model).items() if settings.get(name) != value]:
        raise CheckpointError(f"transformers reads other generation settings than were written: {', '.join(changed)}")

    def encode(text: str) -> Sequence[int]:
        ids: Sequence[int] = tokenizer(text, verbose=False)["input_ids"]
        return ids

    require_same_tokenizer(RUNTIME, model.tokenizer, tokenizer.get_vocab(), encode)
    network = network.float().eval()

    @torch.inference_mode()
    def run(tokens: Tensor) -> Tensor:
        logits: Tensor = network(tokens[None]).logits[0]  # (T, V)
        return logits

    return reference.verify(f"{RUNTIME} {transformers.__version__}", run, dtype)


def push(folder: Path, repository: str) -> None:
    """Uploads an exported folder to a repository of the Hub, a private one where it is new.

    Raises ResourceError when the Hub refuses it or cannot be reached.
    """
    from huggingface_hub import HfApi

    try:
        hub = HfApi()
        hub.create_repo(repository, private=True, exist_ok=True)
        hub.upload_folder(folder_path=folder, repo_id=repository, commit_message="Export of gpt2tui")
    except Exception as error:  # the Hub's client raises many unrelated kinds
        raise ResourceError(
            f"{folder} was not uploaded to {repository}: {first_line(error) or type(error).__name__}; log in with "
            "`hf auth login`, and check the name and the network"
        ) from error
