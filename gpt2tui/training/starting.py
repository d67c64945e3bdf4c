"""The weights that a run starts from: finding them, and the preset with their shape."""

from dataclasses import dataclass, replace
from pathlib import Path

from gpt2tui import model_files
from gpt2tui.errors import CheckpointError
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.files import LoadedPreset
from gpt2tui.preset.schema import Preset
from gpt2tui.preset.template import template_in
from gpt2tui.run.checkpoint import Origin
from gpt2tui.run.model_lookup import ModelFolder


@dataclass(frozen=True)
class StartingWeights:
    """A model to start from, in a folder on this machine, and where its configuration and its tokenizer are."""

    folder: Path
    description: Path
    origin: Origin
    notices: tuple[str, ...] = ()
    """What a user may not expect of the new run."""


def resolve(loaded: LoadedPreset) -> tuple[LoadedPreset, StartingWeights | None]:
    """The preset with the shape and the tokenizer of the weights that it starts from, and these, if it has some.

    Downloads a model of the Hub. Raises CheckpointError when there is no such model or it is damaged, and PresetError
    when the preset says another shape or tokenizer.
    """
    reference = loaded.preset.model.init_from
    if reference is None:
        return loaded, None
    found = model_files.find(reference)
    described, origin = model_files.description_folder(found.folder), origin_of(found)
    preset = preset_files.with_weights(loaded.preset, described).with_init_from(origin.source)
    notices = _of_another_template(preset, described)
    return replace(loaded, preset=preset), StartingWeights(found.folder, described, origin, notices)


def _of_another_template(preset: Preset, model: Path) -> tuple[str, ...]:
    learned, template = template_in(model), preset.data.example_template
    if learned is None or learned == template:
        return ()
    if template is None:
        return (f"the model has learned to answer in the template {learned.text!r}, and this text has none",)
    return (
        f"the model has learned to answer in the template {learned.text!r}, and data.template of this run is "
        f"{template.text!r}, which chat and sample then use; left out, it is that of the model",
    )


def origin_of(found: ModelFolder) -> Origin:
    """What is recorded of a model that a run starts from. Raises CheckpointError when it has no weights."""
    try:
        digest = model_files.weights_sha256(found.folder)
    except OSError as error:
        raise CheckpointError(f"the weights in {found.folder} cannot be read: {error.strerror or error}") from error
    saved = found.saved
    return Origin(found.source, digest, saved.run_id if saved else None, saved.step if saved else None)
