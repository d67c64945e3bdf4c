"""`gpt2tui export`: a checkpoint for other programs."""

import argparse
import json
from pathlib import Path

from gpt2tui.errors import ResourceError, UsageError
from gpt2tui.system.terminal_text import print_on_stderr, sanitize


def export(options: argparse.Namespace) -> int:
    """Writes an adapter merged into its base as a folder that transformers loads, and prints its path."""
    from safetensors.torch import save_file

    from gpt2tui import model_files
    from gpt2tui.data import tokenizers
    from gpt2tui.model.huggingface import to_published
    from gpt2tui.model.published_config import published_config, trained_length
    from gpt2tui.run import checkpoint

    found, to = model_files.find(options.checkpoint), Path(options.to).expanduser()
    if not model_files.is_adapter(found.folder):
        raise UsageError(f"{found.folder} is a whole model already, not an adapter: transformers loads it as it is")
    if not options.merge:
        raise UsageError(f"{found.folder} is an adapter, which PEFT loads as it is; --merge adds it to its base")
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UsageError(f"--to {to} exists already; choose another folder")
    model = model_files.load_model(found.folder)
    described = model_files.description_folder(found.folder)
    tokenizer = tokenizers.load(described)
    length = trained_length(checkpoint.read_json(described / "config.json"))
    config = json.dumps(published_config(model.config, tokenizer.eot, trained_length=length), indent=2) + "\n"
    try:
        to.mkdir(parents=True, exist_ok=True)
        (to / "config.json").write_text(config, encoding="utf-8")
        tokenizers.save(tokenizer, to)
        save_file(to_published(model.state_dict(), model.config), to / "model.safetensors", {"format": "pt"})
    except OSError as error:
        raise ResourceError(f"{to} cannot be written: {error.strerror or error}") from error
    print(sanitize(str(to), keep_newlines=False))
    print_on_stderr(f"{model.num_parameters:,} parameters in {to}")
    return 0
