"""Which errors are expected failures of a training, as messages that say what happened, where and what to do."""

import math
from shlex import join

import torch

from gpt2tui.data.batches import StreamBatches
from gpt2tui.data.token_store import TokenizedCorpus
from gpt2tui.device import choose_device, choose_precision, is_out_of_memory
from gpt2tui.errors import (
    OUT_OF_THREADS,
    DataError,
    DivergedError,
    Gpt2TuiError,
    ResourceError,
    first_line,
    is_out_of_threads,
)
from gpt2tui.memory_advice import advice_for_memory
from gpt2tui.preset.schema import Preset
from gpt2tui.run import checkpoint
from gpt2tui.run.events import Step
from gpt2tui.run.events_file import read_events
from gpt2tui.run.folder import Run
from gpt2tui.system.files import cache_folder
from gpt2tui.system.host_memory import total_bytes
from gpt2tui.training.state import TrainingState

RISE = 1.0
"""In nats per token: how far above its lowest the training loss of a step may be that has not gone wrong."""


def expected_failure(
    error: BaseException, run: Run, preset: Preset, corpus: TokenizedCorpus, state: TrainingState | None
) -> Gpt2TuiError | None:
    """The failure to show for an error in a training; None if it is a bug. `state` is None before the first event."""
    step = state.step if state else 0
    if isinstance(error, DivergedError) and state is not None:
        last_good = _last_good_step(run)
        return DivergedError(f"{error}. {_advice_after_divergence(run, state, last_good)}", last_good)
    if isinstance(error, Gpt2TuiError):
        return error
    if is_out_of_memory(error):
        device = state.device if state else choose_device(preset.training.device)
        full = preset.with_vocab_size(preset.model.vocab_size or corpus.tokenizer.vocab_size)
        most = int(torch.cuda.mem_get_info(device)[1]) if device.type == "cuda" else total_bytes()
        precision = choose_precision(full, device)
        advice = advice_for_memory(full, precision, most, on_host=device.type != "cuda")
        return ResourceError(f"out of memory on {device} at step {step}: {advice}")
    if is_out_of_threads(error):
        return ResourceError(OUT_OF_THREADS)
    if isinstance(error, OSError):
        return ResourceError(f"{error.filename or run.folder} cannot be used: {error.strerror or first_line(error)}")
    if isinstance(error, IndexError | RuntimeError) and state is not None and _reads_damaged_tokens(state):
        return DataError(
            f"the prepared tokens of {corpus.source} are damaged: step {step + 1} reads tokens beyond the "
            f"{state.preset.model.vocab_size:,} of the vocabulary; delete {cache_folder() / 'tokens'}, to have them "
            "prepared again, and resume the run"
        )
    return None


def _advice_after_divergence(run: Run, state: TrainingState, step: int | None) -> str:
    """The command that continues at half the learning rate, from the checkpoint of `step` before the loss rose."""
    lower = _at_half_the_rate(state)
    if step is None:
        words = ["gpt2tui", "--headless", "--preset", str(run.preset_file), *lower]
        return f"No checkpoint is from before the loss rose. To start again at half the learning rate:\n  {join(words)}"
    words = ["gpt2tui", "--headless", "--resume", f"{run.folder}@{step}", *lower]
    return f"To continue from step {step}, before the loss rose, at half the learning rate:\n  {join(words)}"


def _last_good_step(run: Run) -> int | None:
    """The step of the newest checkpoint before the training loss rose for good; None without one.

    It rose where it is more than `RISE` above its lowest; the step before that one had already spoilt the weights.
    """
    saved = [found.step for found in checkpoint.saved_in(run.checkpoints)]
    try:
        losses = {e.step: e.train_loss for e in read_events(run.events_file) if isinstance(e, Step)}
    except OSError:
        return max(saved, default=None)
    lowest, first_high = math.inf, math.inf
    for step in sorted(losses):
        lowest = min(lowest, losses[step])
        first_high = math.inf if losses[step] <= lowest + RISE else min(first_high, step)
    if first_high == math.inf:  # only the step that diverged, from the weights of the step before it
        diverged = max(losses, default=0) + 1
        return max((step for step in saved if step < diverged - 1), default=max(saved, default=None))
    return max((step for step in saved if step < first_high - 1), default=None)


def _at_half_the_rate(state: TrainingState) -> list[str]:
    """The `--set` options that halve the preset's learning rates."""
    optimizer, schedule = state.preset.optimizer, state.preset.schedule
    rates = {"optimizer.lr": optimizer.lr / 2}
    if optimizer.name == "muon":
        rates["optimizer.muon_lr"] = optimizer.muon_lr / 2
    if schedule.min_lr > rates["optimizer.lr"]:
        rates["schedule.min_lr"] = rates["optimizer.lr"]
    return [word for key, rate in rates.items() for word in ("--set", f"{key}={rate:g}")]


def _reads_damaged_tokens(state: TrainingState) -> bool:
    """Whether the batch of this step or of the previous one has tokens outside the vocabulary."""
    if isinstance(state.batches, StreamBatches):
        return False
    size = state.preset.model.vocab_size or 0
    batches = [state.batches.micro_batches(step) for step in (state.step, max(0, state.step - 1))]
    return any(int(tokens.max()) >= size for batch in batches for pair in batch for tokens in pair)
