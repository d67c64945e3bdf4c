"""`gpt2tui tune`: trains a model further on a folder or file, with a preset that is printed."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpt2tui.commands.start import start
from gpt2tui.system.terminal_text import print_on_stderr, printable, sanitize

PUBLISHED = "openai-community/gpt2"
PUBLISHED_PARAMETERS = 124_439_808


def tune(options: argparse.Namespace) -> int:
    """Prints the preset for the data and the model, and trains it or estimates its cost. Returns the exit code.

    Without a model it is that of the run begun last that has a checkpoint, else GPT-2.
    """
    import tomlkit

    from gpt2tui.preset import files as preset_files
    from gpt2tui.run import checkpoint
    from gpt2tui.run import folder as runs

    begun_last = sorted(runs.all_runs(), key=runs.started, reverse=True)
    saved = (str(run.folder) for run in begun_last if checkpoint.saved_in(run.checkpoints))
    model = options.base or next(saved, PUBLISHED)
    recipe, layers = _recipe_in(options.preset)
    preset = tuning_preset(options.data, model, recipe, options.overrides, may_download=not options.dry_run)
    preset_files.load([preset, *layers], options.overrides)  # what is wrong is said before the preset is printed
    again = " ".join(["gpt2tui train FILE.toml", *map(printable, layers)])
    text = f"# Kept in a file, this preset does the same again: {again}\n{sanitize(tomlkit.dumps(preset))}"
    if options.dry_run and not options.json:
        print(text)
    else:
        print_on_stderr(text)
    options.preset = [preset, *layers]
    options.name = options.name or (None if options.run_dir else "tune")
    return start(options)


def _recipe_in(presets: Sequence[str]) -> tuple[str | None, list[str]]:
    """The first of these presets if it says what a model is, and those that are layers over it."""
    from gpt2tui.preset import files as preset_files

    if not presets or preset_files.load([presets[0]]).is_partial:
        return None, list(presets)
    return presets[0], list(presets[1:])


def tuning_preset(
    data: str,
    model: str,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    *,
    may_download: bool = True,
) -> dict[str, Any]:
    """A layer over the recipe: `finetune`, or `instruct` where the rows of the data are prompts and answers.

    The learning rate of a shipped recipe is that of GPT-2, and grows with the inverse square root of the number of
    parameters: wide matrices want small steps. Raises DataError, CheckpointError and PresetError.
    """
    from gpt2tui import model_files
    from gpt2tui.data.local_files import columns_in
    from gpt2tui.data.row_content import columns_of_examples
    from gpt2tui.model.config import GPT2Config
    from gpt2tui.preset import files as preset_files
    from gpt2tui.preset import source as sources
    from gpt2tui.preset.starting_weights import local_folder, values_in
    from gpt2tui.run.model_lookup import find_here

    source = sources.portable(sources.absolute(data, Path.cwd()))
    columns = columns_in(source)
    examples = None if "text" in columns else columns_of_examples(columns)
    recipe = recipe or ("instruct" if examples else "finetune")
    found = model_files.find(model) if may_download else find_here(model)
    described = local_folder(model) if found is None else model_files.description_folder(found.folder)
    reference = model if found is None else found.source
    preset: dict[str, Any] = {
        "extends": recipe,
        "description": f"Trains {reference} further on {source}.",
        "model": {"init_from": reference},
        "data": {"source": source, **(examples or {})},
    }
    file = preset_files.find(recipe)
    if not file.is_relative_to(preset_files.shipped_folder()):
        preset["extends"] = recipe if file.parent == preset_files.user_folder() else str(file.absolute())
    elif described is not None:
        shape = {key.partition(".")[2]: value for key, value in values_in(described).items() if key[:6] == "model."}
        rate = preset_files.load([recipe]).preset.optimizer.lr
        rate *= math.sqrt(PUBLISHED_PARAMETERS / GPT2Config(**shape).parameter_count())
        preset["optimizer"] = {"lr": float(f"{rate:.2g}")}
    return _with_overrides(preset, overrides)


def _with_overrides(preset: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """The preset with these settings in it; malformed ones are left out."""
    from gpt2tui.preset.layers import merge, read_overrides, read_settings

    merged = dict[str, Any]()
    for key, sourced in merge(read_settings(preset), read_overrides(overrides)[0]).items():
        table = merged
        for name in key[:-1]:
            table = table.setdefault(name, {})
        table[key[-1]] = sourced.value
    return merged
