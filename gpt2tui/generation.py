"""A checkpoint, ours or Hugging Face's, as something that continues text: for `sample`, the chat, and training."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from gpt2tui import checkpoint, preset_files
from gpt2tui.data import tokenizers
from gpt2tui.data.tokenizers import IncrementalDecoder, Tokenizer
from gpt2tui.errors import CheckpointError
from gpt2tui.preset import SamplingTable
from gpt2tui.training.precision import choose_device
from model.gpt2 import GPT2
from model.huggingface import from_published
from model.sampling import generate

HUB_TIMEOUT_SECONDS = 10
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")


@dataclass(frozen=True)
class Piece:
    """One token as it is written; `text` is empty while a character is incomplete."""

    token: int
    text: str
    probability: float  # under the model's own distribution, before temperature and truncation


@dataclass(frozen=True)
class Continuation:
    """A finished text and how it was made; times in seconds."""

    prompt: str
    text: str
    tokens: int
    seconds: float
    tokens_per_second: float
    time_to_first_token: float | None


@dataclass(frozen=True)
class TextModel:
    """A model with its tokenizer, ready to write."""

    model: GPT2
    tokenizer: Tokenizer
    source: str
    sampling: SamplingTable = field(default_factory=SamplingTable)

    def stream(self, prompt: str, sampling: SamplingTable) -> Iterator[Piece]:
        """Continues `prompt` token by token until `max_length` tokens or the end of the document.

        An empty prompt starts a new document; one longer than the context keeps its end. The random numbers come
        from a generator of its own, so that writing beside a training does not change the training.
        """
        ids = [int(i) for i in self.tokenizer.encode(prompt)] or [self.tokenizer.eot]
        generator = torch.Generator().manual_seed(sampling.seed)
        decoder = IncrementalDecoder(self.tokenizer)
        for chosen in generate(
            self.model,
            torch.tensor([ids]),
            max_length=sampling.max_length,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            generator=generator,
            stop_token=self.tokenizer.eot,
        ):
            token = int(chosen.token)
            text = "" if token == self.tokenizer.eot else decoder.feed([token])
            yield Piece(token, text, float(chosen.probability))
        if rest := decoder.flush():
            yield Piece(-1, rest, 1.0)

    def write(self, prompt: str, sampling: SamplingTable) -> Continuation:
        """The whole continuation at once, with its times."""
        started = time.perf_counter()
        first, pieces = None, []
        for piece in self.stream(prompt, sampling):
            first = first if first is not None else time.perf_counter() - started
            pieces.append(piece)
        seconds = time.perf_counter() - started
        count = sum(piece.token >= 0 for piece in pieces)
        return Continuation(prompt, "".join(p.text for p in pieces), count, seconds, count / seconds, first)


def load(reference: str, device: str = "auto") -> TextModel:
    """Loads a checkpoint folder, a run (its best checkpoint, else its newest), a Hugging Face GPT-2, or a Hub id.

    Raises CheckpointError when it is missing, damaged, a pickle, or not a GPT-2.
    """
    folder = locate(reference)
    if (folder / checkpoint.MANIFEST).exists():
        checkpoint.verify(folder)
        frozen = folder / "preset.toml"
        sampling = preset_files.check(frozen).preset.sampling
    else:
        sampling = SamplingTable()
    model = load_model(folder).to(choose_device(device)).eval()
    tokenizer = tokenizers.load(folder)
    if tokenizer.vocab_size > model.wte.num_embeddings:
        raise CheckpointError(
            f"{folder}: its tokenizer has {tokenizer.vocab_size} tokens, its model only {model.wte.num_embeddings}"
        )
    return TextModel(model, tokenizer, str(folder), sampling)


def load_model(folder: Path) -> GPT2:
    """The network in a folder of the published layout, on the CPU. Raises CheckpointError."""
    weights = folder / "model.safetensors"
    if not weights.exists():
        pickles = sorted(p.name for p in folder.iterdir() if p.suffix in PICKLES)
        found = f" (only {', '.join(pickles)}; pickled weights can run code and are not opened)" if pickles else ""
        raise CheckpointError(f"{folder} has no model.safetensors{found}")
    try:
        config, state = from_published(checkpoint.load_tensors(weights), checkpoint.read_json(folder / "config.json"))
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} does not hold a GPT-2: {error}") from error
    with torch.device("meta"):
        model = GPT2(config)
    model.load_state_dict(state, assign=True)
    model.requires_grad_(True)
    return model


def locate(reference: str) -> Path:
    """The folder a CHECKPOINT argument means. Raises CheckpointError."""
    from gpt2tui.folders import runs_folder

    path = Path(reference)
    if path.is_file():  # a person points at what looks like the model
        if path.suffix in PICKLES:
            raise CheckpointError(
                f"{path} is a pickle, which can run code when it is opened; gpt2tui reads safetensors only. "
                "Convert it where you trust it: model.save_pretrained(folder) in transformers"
            )
        raise CheckpointError(f"{path} is a file; a checkpoint is a folder")
    for folder in (path, runs_folder() / reference):
        if (folder / checkpoint.MANIFEST).exists() or (folder / "config.json").exists():
            return folder
        if (folder / "checkpoints").is_dir():
            return checkpoint.best(folder / "checkpoints").folder
    if path.is_dir():
        if path.name.startswith("step-"):
            checkpoint.inspect(path)
        load_model(path)  # says what is missing
    if reference.count("/") <= 1 and not reference.startswith((".", "/", "~")) and "\\" not in reference:
        return _download(reference)
    raise CheckpointError(f"there is no checkpoint {reference}: the folder does not exist")


def _download(hub_id: str) -> Path:
    """A model of the Hugging Face Hub, from the local cache when the network is away."""
    import os

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from huggingface_hub import snapshot_download

    wanted = ["config.json", "model.safetensors", "vocab.json", "merges.txt", "tokenizer.json"]
    try:
        return Path(snapshot_download(hub_id, allow_patterns=wanted, etag_timeout=HUB_TIMEOUT_SECONDS))
    except Exception as error:  # the Hub's client raises many unrelated kinds
        raise CheckpointError(
            f"{hub_id} is neither a checkpoint or run here nor a model that could be fetched from the Hugging Face Hub "
            f"({type(error).__name__}); see `gpt2tui runs list`"
        ) from error
