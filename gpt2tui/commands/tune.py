"""`gpt2tui tune`: trains a model further on a folder or file, with a preset that is printed."""

import argparse
import math
from pathlib import Path
from typing import Any

from gpt2tui.commands.train import train
from gpt2tui.system.terminal_text import print_on_stderr, sanitize

PUBLISHED = "openai-community/gpt2"
PUBLISHED_PARAMETERS = 124_439_808


def tune(options: argparse.Namespace) -> int:
    """Prints the preset for the data and the model, and trains it. Returns the exit code.

    Without a model it is the newest run's that has a checkpoint, else GPT-2.
    """
    import tomlkit

    from gpt2tui.run import checkpoint
    from gpt2tui.run import folder as runs

    saved = (str(run.folder) for run in reversed(runs.all_runs()) if checkpoint.saved_in(run.checkpoints))
    preset = tuning_preset(options.data, options.base or next(saved, PUBLISHED))
    print_on_stderr("# Kept in a file, this preset does the same again: gpt2tui train FILE.toml")
    print_on_stderr(sanitize(tomlkit.dumps(preset)))
    options.preset = [preset, *options.preset]
    options.name = options.name or (None if options.run_dir else "tune")
    return train(options)


def tuning_preset(data: str, model: str) -> dict[str, Any]:
    """A layer over `finetune`, or over `instruct` where the rows of the data are prompts and answers.

    The learning rate grows with the inverse square root of the number of parameters, from that of GPT-2 on: wide
    matrices want small steps. Raises DataError and CheckpointError.
    """
    from gpt2tui import model_files
    from gpt2tui.data.local_files import columns_in
    from gpt2tui.data.row_content import columns_of_examples
    from gpt2tui.model.config import GPT2Config
    from gpt2tui.preset import files as preset_files
    from gpt2tui.preset import source as sources
    from gpt2tui.preset.starting_weights import values_in

    source = sources.portable(sources.absolute(data, Path.cwd()))
    columns = columns_in(source)
    examples = None if "text" in columns else columns_of_examples(columns)
    base = "instruct" if examples else "finetune"
    found = model_files.find(model)
    shape = values_in(model_files.description_folder(found.folder))
    config = GPT2Config(**{key.removeprefix("model."): v for key, v in shape.items() if key.startswith("model.")})
    rate = preset_files.load([base]).preset.optimizer.lr * math.sqrt(PUBLISHED_PARAMETERS / config.parameter_count())
    return {
        "extends": base,
        "description": f"Trains {found.source} further on {source}.",
        "model": {"init_from": found.source},
        "data": {"source": source, **(examples or {})},
        "optimizer": {"lr": float(f"{rate:.2g}")},
    }
