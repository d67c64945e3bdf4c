"""What a preset gets from the weights that it starts from: shape, tokenizer, template. Looks on this machine only."""

import functools
from pathlib import Path
from typing import Any

from gpt2tui.errors import CheckpointError, Mistake, Place
from gpt2tui.model.published_config import config_from_published
from gpt2tui.preset.layers import Layer, SourcedValue, merge, without_left_out
from gpt2tui.preset.schema import EXAMPLE_COLUMNS
from gpt2tui.preset.template import Template, template_in
from gpt2tui.system.files import read_json
from gpt2tui.system.terminal_text import printable, printable_value

INIT_FROM = ("model", "init_from")
SHAPE = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "bias")
_TOKENIZERS = ("gpt2", "bpe", "char", "byte")


def with_starting_weights(layer: Layer, folder: Path | None = None) -> tuple[Layer, list[Mistake]]:
    """The settings with what they leave out of shape and tokenizer, and a mistake for each that says another value.

    Prompts and answers without a template get that of the model.

    `folder` is what `model.init_from` means, where that is known; a model that is not on this machine fills in nothing.
    """
    reference = layer.get(INIT_FROM)
    if reference is None or not isinstance(reference.value, str):
        return layer, []
    name = printable(reference.value, 200)
    try:
        folder = folder or local_folder(reference.value)
        if folder is None:
            return layer, []
        found, template = values_in(folder), _template_values(folder)
    except CheckpointError as error:
        return layer, [Mistake(str(error), "model.init_from", reference.value, place=reference.place)]
    mistakes = []
    for dotted, value in found.items():
        given = layer.get(tuple(dotted.split(".")))
        if given is not None and given.value != value:
            message = f"{printable_value(given.value)} is not that of {name}, which has {printable_value(value)}"
            mistakes.append(Mistake(message, dotted, given.value, suggestion="leave it out", place=given.place))
    if any((sourced := layer.get(("data", name))) and sourced.value for name in EXAMPLE_COLUMNS):
        found |= template  # of text there is none
    place = Place(f"model.init_from = {name}")
    theirs = {tuple(dotted.split(".")): SourcedValue(value, place) for dotted, value in found.items()}
    return merge(theirs, without_left_out(layer)), mistakes


def local_folder(reference: str) -> Path | None:
    """A folder with the configuration of the model that a reference means; None for one of the Hub that is not here.

    Raises CheckpointError with the nearest names when there is no such model, and when a checkpoint is damaged.
    """
    from gpt2tui.run.model_lookup import description_folder_here  # the first paint of the workbench needs no runs

    return description_folder_here(reference)


def values_in(folder: Path) -> dict[str, Any]:
    """The settings that a model determines, by dotted key. Raises CheckpointError when it is not a GPT-2."""
    path = folder / "config.json"
    try:
        config = config_from_published(read_json(path))
    except ValueError as error:
        raise CheckpointError(f"{printable(path)}: {error}") from error
    values: dict[str, Any] = {f"model.{name}": getattr(config, name) for name in SHAPE}
    if kind := _tokenizer_kind(folder):
        values["data.tokenizer"] = kind
    return values


def _template_values(folder: Path) -> dict[str, Any]:
    """The template that a model has learned, for a preset that names none; another may be named."""
    template = template_in(folder)
    return {} if template is None or template == Template() else {"data.template": template.text}


def _tokenizer_kind(folder: Path) -> str | None:
    """The kind of a model's tokenizer; None without one. What is neither ours nor GPT-2's counts as byte pairs."""
    for name in ("gpt2tui_tokenizer.json", "tokenizer.json", "vocab.json"):
        path = folder / name
        if path.is_file():
            return _kind_in(path, path.stat().st_mtime_ns)
    return None


@functools.lru_cache(maxsize=64)
def _kind_in(path: Path, modified: int) -> str:
    """The kind in a tokenizer's file, which was modified at that time, in nanoseconds."""
    try:
        content = read_json(path)
        if path.name == "gpt2tui_tokenizer.json":
            return content["kind"] if content["kind"] in _TOKENIZERS else "bpe"
        vocabulary = content if path.name == "vocab.json" else content["model"]["vocab"]
        is_gpt2 = vocabulary["<|endoftext|>"] == 50256 and vocabulary["\u0120the"] == 262
    except (CheckpointError, KeyError, TypeError):
        return "bpe"
    return "gpt2" if is_gpt2 else "bpe"
