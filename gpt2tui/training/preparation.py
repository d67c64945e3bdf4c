"""What a run needs before its first step: a network on its device, and either a new folder or a checkpoint's state."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from gpt2tui import checkpoint, runs
from gpt2tui.checkpoint import Checkpoint
from gpt2tui.data import tokenizers
from gpt2tui.data.batches import Batches, StreamBatches, open_batches
from gpt2tui.data.token_store import TokenizedCorpus
from gpt2tui.durable import replace_text
from gpt2tui.errors import CheckpointError, DataError
from gpt2tui.generation import load_model
from gpt2tui.preset import Preset
from gpt2tui.preset_files import dumps
from gpt2tui.training import state
from gpt2tui.training.precision import Precision, choose_precision, device_name
from gpt2tui.training.time_budget import TimeBudget
from gpt2tui.training.trial import within_budget
from gpt2tui.training.update import Update, fresh_update


@dataclass
class Standing:
    """Where a run stands between two steps."""

    step: int = 0
    seconds: float = 0.0
    """Of training, earlier sittings included."""
    val_loss: float | None = None
    """Of this very step, None when it was not measured."""
    best_val_loss: float | None = None
    saved_step: int | None = None
    """The step that the newest checkpoint holds all of."""

    def measured(self, val_loss: float) -> None:
        """Takes note of the loss over the fixed sample of the held-out text."""
        self.val_loss = val_loss if math.isfinite(val_loss) else None
        known = [loss for loss in (self.val_loss, self.best_val_loss) if loss is not None]
        self.best_val_loss = min(known, default=None)


@dataclass(frozen=True)
class Prepared:
    """Everything that the loop works with."""

    run_id: str
    preset: Preset
    """With what was measured and is frozen from now on."""
    precision: Precision
    batches: Batches | StreamBatches
    update: Update
    standing: Standing = field(default_factory=Standing)
    time_budget: TimeBudget | None = None
    notices: tuple[str, ...] = ()
    """What to tell a person."""


def begin(
    run: runs.Run,
    preset: Preset,
    corpus: TokenizedCorpus,
    device: torch.device,
    *,
    preset_name: str,
    command: Sequence[str],
) -> Prepared:
    """A new run: measures what the preset leaves to measuring, and writes the run folder."""
    trial_batches = open_batches(corpus, preset.training)
    seconds = preset.training.time_budget
    time_budget = TimeBudget(seconds, preset.training.num_iterations) if seconds else None
    preset = within_budget(preset, trial_batches, device)
    precision = choose_precision(preset, device)
    batches, update = open_batches(corpus, preset.training), fresh_update(preset, device, precision)
    replace_text(run.preset_file, dumps(preset))
    tokenizers.save(corpus.tokenizer, run.folder)
    data = {
        "source": corpus.source,
        "fingerprint": corpus.fingerprint,
        "train_bytes": corpus.train_bytes,
        "validation_bytes": corpus.validation_bytes,
    }
    run_id = runs.write_info(
        run, preset_name=preset_name, command=command, device=device_name(device), precision=precision, data=data
    )
    return Prepared(run_id, preset, precision, batches, update, time_budget=time_budget)


def go_on(run: runs.Run, preset: Preset, corpus: TokenizedCorpus, device: torch.device, saved: Checkpoint) -> Prepared:
    """A run as a checkpoint has it. Raises CheckpointError or DataError when it does not fit."""
    numbers = state.read_numbers(saved)
    time_budget = TimeBudget.of(numbers.get("time_budget"), preset)
    if seconds := preset.training.time_budget:  # one that a person has set now
        time_budget = TimeBudget(seconds, preset.training.num_iterations, numbers["seconds"])
        preset = preset.with_training(time_budget=0.0)
    precision = choose_precision(preset, device)
    batches, update = open_batches(corpus, preset.training), fresh_update(preset, device, precision)
    if numbers["data_fingerprint"] != corpus.fingerprint:
        raise DataError(
            f"the corpus {preset.data.source} has changed since the run {run.name} began; "
            "restore it, or start a new run"
        )
    weights = load_model(saved.folder)
    if weights.config != preset.model.model_copy(update={"dropout": weights.config.dropout}):
        raise CheckpointError(f"{saved.folder} holds another [model] than the preset asks for: {weights.config!r}")
    update.model.load_state_dict(weights.state_dict())
    tensors = checkpoint.load_tensors(saved.folder / "training_state.safetensors")
    notices = [f"{problem}; an older checkpoint is used" for problem in saved.passed_over]
    notices += state.restore(tensors, update.optimizers, device)
    if update.scaler is not None and numbers["scaler"] is not None:
        update.scaler.load_state_dict(numbers["scaler"])
    if isinstance(batches, StreamBatches):
        batches.load_state_dict(numbers["stream"])
    update.optimizers.learning_rate_factor = numbers.get("learning_rate_factor", 1.0)
    if run.preset_file.read_text(encoding="utf-8") != dumps(preset):
        replace_text(run.preset_file, dumps(preset))  # it says what the run has become
    return Prepared(
        saved.run_id,
        preset,
        precision,
        batches,
        update,
        Standing(saved.step, numbers["seconds"], numbers["val_loss"], numbers["best_val_loss"], saved.step),
        time_budget,
        tuple(notices),
    )
