"""The model card of an export: what is known of the model, without paths and names of users and machines."""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

from gpt2tui.errors import Gpt2TuiError
from gpt2tui.export.verification import Dtype
from gpt2tui.generation import TextModel
from gpt2tui.preset.source import is_path
from gpt2tui.run import checkpoint
from gpt2tui.run.checkpoint import Origin
from gpt2tui.run.events import Step
from gpt2tui.run.events_file import read_events
from gpt2tui.run.folder import Run
from gpt2tui.system.terminal_text import sanitize

UNKNOWN = "not known"
METRICS = {
    "val_loss": "validation loss (nats per token)",
    "perplexity": "validation perplexity (per token)",
    "bits_per_byte": "validation bits per byte",
}
_ACCOUNT_SETTING = re.compile(r"(?:--)?wandb[._]\w+")


def model_card(model: TextModel, dtype: Dtype) -> str:
    """The README.md of an export, whose front matter the Hub reads. The licence is left to the user."""
    config = model.model.config
    rows = {
        "parameters": f"{model.num_parameters:,}",
        "layers, heads, width": f"{config.n_layer}, {config.n_head}, {config.n_embd}",
        "context (tokens)": f"{model.context_length:,}",
        "vocabulary (tokens)": f"{model.vocab_size:,}, tokenizer {model.tokenizer.name}",
        "weights stored as": dtype,
        **_training(model),
    }
    command = _command(model)
    table = "\n".join(f"| {name} | {_cell(value)} |" for name, value in rows.items())
    untrained = config.n_positions - model.context_length
    positions = (
        f" It was trained on sequences of {model.context_length:,} tokens; its {untrained:,} later position embeddings "
        "were never trained."
        if untrained
        else ""
    )
    return f"""---
library_name: transformers
pipeline_tag: text-generation
tags:
- gpt2
- gpt2tui
---

# A GPT-2 model

A language model of GPT-2's architecture, made with gpt2tui.

| | |
|---|---|
{table}

## Training command

```
{command}
```

Paths in it are shortened to their last names.

## Limits

The model continues text. It was not trained to follow instructions, to be correct or to be harmless, and it repeats
what is in its training data. It reads at most {model.context_length:,} tokens at once.{positions} It was measured on
nothing but what the table says.

## License

Not chosen yet. Who publishes this model chooses one, here and as `license` in the front matter, that the license of
the training data allows.
"""


def _training(model: TextModel) -> dict[str, str]:
    """What the checkpoint and its run say of the training."""
    saved = model.saved
    if saved is None:
        return {"training": UNKNOWN}
    trainer, info = checkpoint.read_json(saved.folder / "trainer.json"), _run_info(model)
    described = info.get("data")
    data = described if isinstance(described, Mapping) else {}
    tokens, train_loss = trainer.get("tokens_seen"), _train_loss(model)
    fingerprint = saved.data_fingerprint or trainer.get("data_fingerprint")
    rows = {
        "training data": _data_name(data.get("source")),
        "fingerprint of the data": str(fingerprint or UNKNOWN),
        "training data (bytes)": f"{data['train_bytes']:,}" if isinstance(data.get("train_bytes"), int) else UNKNOWN,
        "started from": "random weights" if saved.origin is None else _origin_name(saved.origin),
        "step": f"{saved.step:,}",
        "tokens seen": f"{tokens:,}" if isinstance(tokens, int) else UNKNOWN,
        "training loss at this step (nats per token)": UNKNOWN if train_loss is None else f"{train_loss:.4f}",
        **{name: f"{saved.metrics[key]:.4f}" if key in saved.metrics else UNKNOWN for key, name in METRICS.items()},
        "validation sample": saved.validation_sample or UNKNOWN,
    }
    if isinstance(info.get("versions"), Mapping):
        rows["made with"] = ", ".join(f"{name} {version}" for name, version in info["versions"].items())
    return rows


def _run_info(model: TextModel) -> dict[str, Any]:
    """The run.json of a checkpoint in its run; empty elsewhere."""
    if (run := _run(model)) is None:
        return {}
    try:
        info = run.info()
    except Gpt2TuiError:
        return {}
    return info if model.saved is not None and info.get("run_id") == model.saved.run_id else {}


def _run(model: TextModel) -> Run | None:
    run = None if model.saved is None else Run(model.saved.folder.absolute().parent.parent)
    return run if run is not None and run.info_file.is_file() else None


def _train_loss(model: TextModel) -> float | None:
    run, saved = _run(model), model.saved
    if run is None or saved is None or not _run_info(model):
        return None
    try:
        steps = (event for event in read_events(run.events_file) if isinstance(event, Step))
        return next((step.train_loss for step in steps if step.step == saved.step), None)
    except (OSError, Gpt2TuiError):
        return None


def _command(model: TextModel) -> str:
    """The command that began the run, and those that resumed it."""
    info = _run_info(model)
    sessions = info.get("sessions")
    entries = [info, *(sessions if isinstance(sessions, list) else [])]
    commands = [entry.get("command") for entry in entries if isinstance(entry, Mapping)]
    lines = [shlex.join(_shortened(words)) for words in commands if isinstance(words, list) and words]
    return sanitize("\n".join(lines).replace("`", "'")) or UNKNOWN


def _shortened(words: Sequence[object]) -> list[str]:
    """A command without paths, and without the values of W&B's settings, which name an account."""
    shortened: list[str] = []
    for word in map(str, words):
        key, equals, value = word.partition("=")
        if _ACCOUNT_SETTING.fullmatch(key) and equals:
            shortened.append(f"{key}=…")
        elif shortened and _ACCOUNT_SETTING.fullmatch(shortened[-1]):
            shortened.append("…")
        else:
            shortened.append(f"{key}={_last_name(value)}" if equals else _last_name(word))
    return shortened


def _last_name(text: str) -> str:
    """The last name of a path, unless it is the home folder, which is named after the user; other texts unchanged."""
    if not is_path(text) or not ("/" in text or "\\" in text or text.startswith("~")):
        return text
    name = PureWindowsPath(text).name
    user = Path(os.path.expanduser("~")).name  # noqa: PTH111 does not raise where there is no home
    return name if name and name not in ("~", user) else "…"


def _data_name(source: object) -> str:
    return _last_name(source) if isinstance(source, str) and source else UNKNOWN


def _origin_name(origin: Origin) -> str:
    """A model of the Hub by its id, another by its digest: its folder is a path."""
    step = "" if origin.step is None else f", step {origin.step:,} of another run"
    name = origin.source if re.fullmatch(r"[\w.-]+/[\w.-]+", origin.source) and not Path(origin.source).exists() else ""
    return f"{name or 'a model on the disk'}{step}, SHA-256 {origin.sha256}"


def _cell(value: str) -> str:
    return sanitize(value, keep_newlines=False).replace("|", "\\|").replace("<", "&lt;")
