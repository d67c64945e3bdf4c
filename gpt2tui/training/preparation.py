"""Everything before the first step: a network on its device, and either a new folder or a checkpoint's state."""

import contextlib
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt2tui.data import tokenizers
from gpt2tui.data.batches import StreamBatches, open_batches
from gpt2tui.data.local_files import local_file_hashes
from gpt2tui.data.token_store import StageProgress, TokenizedCorpus
from gpt2tui.device import (
    Compilation,
    choose_compilation,
    choose_device,
    choose_precision,
    device_name,
    precision_reason,
)
from gpt2tui.errors import CheckpointError, DataError, ResourceError
from gpt2tui.model.gpt2 import GPT2
from gpt2tui.model.lora import load_adapter_tensors
from gpt2tui.model_files import base_of, load_model
from gpt2tui.preset.files import dumps
from gpt2tui.preset.schema import Preset
from gpt2tui.run import checkpoint
from gpt2tui.run import folder as runs
from gpt2tui.run.checkpoint import Checkpoint, Parent
from gpt2tui.run.events import STOP_RULES, Event, NumIterationsChanged, RunStarted, Warned
from gpt2tui.run.model_lookup import ADAPTER
from gpt2tui.system.files import open_regular, replace_text
from gpt2tui.training.compilation import compiled
from gpt2tui.training.distributed import Ranks
from gpt2tui.training.memory_check import WORTH_A_TRIAL, memory_need
from gpt2tui.training.parallel import spread
from gpt2tui.training.preflight import try_shapes
from gpt2tui.training.schedules import fewest_iterations
from gpt2tui.training.starting import StartingWeights
from gpt2tui.training.state import TrainingState, read_trainer_json, restore_training_state, validation_sample
from gpt2tui.training.time_budget import TimeBudget
from gpt2tui.training.update import fresh_update


def prepare(
    run: runs.Run,
    preset: Preset,
    corpus: TokenizedCorpus,
    resume_from: Checkpoint | None = None,
    start_from: StartingWeights | None = None,
    ranks: Ranks | None = None,
) -> Generator[StageProgress, None, TrainingState]:
    """Yields its progress and returns the state for the first step, compiled if the preset says so.

    Changes nothing in the run folder. With several `ranks` each calls it, and has its share of the batches. Call it in
    the training thread. Raises CheckpointError or DataError when the checkpoint does not fit.
    """
    yield StageProgress("building the network")
    ranks = ranks or Ranks()
    device = choose_device(preset.training.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # CUDA streams and events belong to the thread's device
    if resume_from:
        state = yield from _resumed(run, preset, corpus, device, resume_from, ranks)
    else:
        state = yield from _new(preset, corpus, device, start_from, ranks)
    notices = [*state.notices, *corpus.notices]
    if state.stop_rule is not None:
        rule = f"training.{state.stop_rule}"
        notices.insert(
            0, f"{STOP_RULES[state.stop_rule]}: to train further, change {rule}, or leave it out: {rule}=auto"
        )
    elif state.done:
        notices.insert(
            0, f"all {state.step:,} steps were taken already; to train further, raise training.num_iterations"
        )
    state.notices = tuple(notices)
    return state


def _new(
    preset: Preset,
    corpus: TokenizedCorpus,
    device: torch.device,
    start_from: StartingWeights | None,
    ranks: Ranks,
) -> Generator[StageProgress, None, TrainingState]:
    """The state of a new run. Raises CheckpointError when the weights that it starts from do not fit."""
    precision, reason = choose_precision(preset, device), precision_reason(preset, device)
    seconds = preset.training.time_budget
    time_budget = TimeBudget(seconds, preset.training.num_iterations) if seconds else None
    preset = preset.with_training(time_budget=0.0)
    tried = _is_worth_a_trial(preset, device)
    weights = None if start_from is None else load_weights(start_from.folder, preset)
    update = fresh_update(preset, device, precision, weights)
    origin = None if start_from is None else start_from.origin
    batches = open_batches(corpus, preset.training, ranks.rank, ranks.world_size)
    state = TrainingState(preset, device, precision, reason, batches, update, origin=origin, time_budget=time_budget)
    yield from _make_ready(state, corpus, tried, ranks)
    return state


def _is_worth_a_trial(preset: Preset, device: torch.device) -> bool:
    return memory_need(preset, device).share >= WORTH_A_TRIAL


def _make_ready(state: TrainingState, corpus: TokenizedCorpus, tried: bool, ranks: Ranks) -> Iterator[StageProgress]:
    """Compiles the forward pass if the preset says so, tries the first steps where memory may be too small, and spreads
    the network over the ranks.

    The first two not where each rank will have a share of the network.
    """
    training, budget = state.preset.training, state.time_budget
    asked = state.preset
    if budget is not None:  # what a resumed run must decide in the same way
        asked = asked.with_training(num_iterations=budget.most_iterations, time_budget=budget.seconds)
    choice = choose_compilation(asked, state.device)
    if state.preset.is_sharded and ranks.world_size > 1:
        choice = Compilation(False, "with FSDP each block is gathered by itself, and the code is not compiled")
        tried = False
    state.compile_reason, notices = choice.reason, [choice.note]
    if choice.wanted and not state.done:
        yield StageProgress("compiling the network, which takes up to a minute")
        shape = (training.batch_size, training.sequence_length)
        state.update.forward, failure = compiled(
            state.model, shape, state.precision, graphs=training.gradient_accumulation == ranks.world_size == 1
        )
        state.compile_reason = failure or choice.reason
        notices.append(failure)
    state.notices += tuple(note for note in notices if note)
    if tried and not state.done:
        started = time.monotonic()
        yield from try_shapes(state.update, state.preset, corpus.tokenizer)
        state.trial_seconds = time.monotonic() - started
    spread(state.update, state.preset, ranks)


def _load_adapter(saved: Checkpoint, network: GPT2) -> None:
    try:
        load_adapter_tensors(network, checkpoint.load_tensors(saved.folder / ADAPTER))
    except ValueError as error:
        raise CheckpointError(f"{saved.folder}: {error}") from error


def load_weights(folder: Path, preset: Preset) -> dict[str, Tensor]:
    """The weights in a folder, on the CPU. Raises CheckpointError when their shape is not the preset's."""
    model = load_model(folder)
    if model.config != preset.model.shape.model_copy(update={"dropout": model.config.dropout}):
        raise CheckpointError(f"{folder} has another [model] than the preset: {model.config!r}")
    return model.state_dict()


def _resumed(
    run: runs.Run,
    preset: Preset,
    corpus: TokenizedCorpus,
    device: torch.device,
    saved: Checkpoint,
    ranks: Ranks,
) -> Generator[StageProgress, None, TrainingState]:
    """The state stored in a checkpoint. Raises CheckpointError or DataError when it does not fit."""
    numbers = read_trainer_json(saved)
    time_budget = TimeBudget.of(numbers.get("time_budget"), preset)
    if seconds := preset.training.time_budget:  # set for this session
        time_budget = TimeBudget(seconds, preset.training.num_iterations, numbers["seconds"])
        preset = preset.with_training(time_budget=0.0)
    precision, reason = choose_precision(preset, device), precision_reason(preset, device)
    tried = _is_worth_a_trial(preset, device)
    batches = open_batches(corpus, preset.training, ranks.rank, ranks.world_size)
    if numbers["data_fingerprint"] != corpus.fingerprint:
        raise DataError(
            f"the corpus {preset.data.source} has changed since the run {run.name} began; "
            "restore it, or start a new run"
        )
    weights = saved.folder if saved.kind == "full" else base_of(saved.folder).folder
    update = fresh_update(preset, device, precision, load_weights(weights, preset))
    if saved.kind == "adapter":
        _load_adapter(saved, update.model)
    same_sample = saved.validation_sample == validation_sample(preset)
    state = TrainingState(
        preset,
        device,
        precision,
        reason,
        batches,
        update,
        run_id=saved.run_id,
        parent=Parent(saved.run_id, saved.step),
        origin=saved.origin,
        time_budget=time_budget,
        learning_rate_factor=numbers.get("learning_rate_factor", 1.0),
        step=saved.step,
        first_step=saved.step,
        seconds=numbers["seconds"],
        val_loss=numbers["val_loss"] if same_sample else None,
        bits_per_byte=saved.metrics.get("bits_per_byte") if same_sample else None,
        best_val_loss=numbers["best_val_loss"] if same_sample else None,
        evaluations_without_improvement=numbers.get("evaluations_without_improvement", 0) if same_sample else 0,
        saved_step=saved.step,
    )
    yield from _make_ready(state, corpus, tried, ranks)  # before the moments are there, which it would change
    tensors = checkpoint.load_tensors(saved.folder / "training_state.safetensors")
    notices = [f"{problem}; {saved.folder.name} is used" for problem in saved.skipped]
    restore_training_state(tensors, update.optimizers)
    if update.scaler is not None and numbers["scaler"] is not None:
        update.scaler.load_state_dict(numbers["scaler"])
    if isinstance(batches, StreamBatches):
        batches.load_state_dict(numbers["stream"])
    if not same_sample and numbers["best_val_loss"] is not None:
        notices.append(
            f"the validation sample has changed (now {validation_sample(preset)}): val_loss does not compare with "
            "that of earlier steps, and the best val_loss starts again"
        )
    state.notices = (*notices, *state.notices)
    return state


def run_started(run: runs.Run, state: TrainingState, corpus: TokenizedCorpus, preset_name: str) -> RunStarted:
    """The first event of a run, new or resumed."""
    budget = state.time_budget
    return RunStarted(
        run=run.name,
        preset=preset_name,
        parameters=state.preset.model.parameter_count(),
        trained_parameters=sum(p.numel() for p in state.model.parameters() if p.requires_grad),
        tokens_per_step=state.preset.tokens_per_step,
        device=_device(state),
        precision=state.precision,
        precision_reason=state.precision_reason,
        compile_reason=state.compile_reason,
        step=state.step,
        num_iterations=state.preset.training.num_iterations,
        xz_bits_per_byte=corpus.xz_bits_per_byte,
        xz_after_training_bits_per_byte=corpus.xz_after_training_bits_per_byte,
        vocab_size=state.preset.model.vocab_size,
        best_val_loss=state.best_val_loss,
        learning_rate_factor=state.learning_rate_factor,
        init_from=None if state.origin is None else str(state.origin),
        time_budget_left=None if budget is None or budget.is_timed else max(0.0, budget.seconds_left),
    )


def write_new_run(
    run: runs.Run, state: TrainingState, corpus: TokenizedCorpus, *, preset_name: str, command: Sequence[str]
) -> None:
    """Fills the folder of a new run, run.json last, and sets the run_id of `state`."""
    replace_text(run.preset_file, dumps(state.preset))
    tokenizers.save(corpus.tokenizer, run.folder, corpus.template)
    data = {
        "source": corpus.source,
        "fingerprint": corpus.fingerprint,
        "train_bytes": corpus.train_bytes,
        "validation_bytes": corpus.validation_bytes,
        "files": local_file_hashes(state.preset.data),
    }
    state.run_id = runs.write_info(
        run,
        preset_name=preset_name,
        command=command,
        choices=_choices(state),
        data=data,
        parent=state.parent,
        origin=state.origin,
    )


def _choices(state: TrainingState) -> dict[str, Any]:
    return {
        "device": _device(state),
        "precision": state.precision,
        "precision_reason": state.precision_reason,
        "compile_reason": state.compile_reason,
        "threads": torch.get_num_threads(),
    }


def _device(state: TrainingState) -> str:
    """`cpu`, or `4 x NVIDIA H100` where several ranks train."""
    name, count = device_name(state.device), state.update.ranks.world_size
    return name if count == 1 else f"{count} x {name}"


def write_resumed_run(run: runs.Run, state: TrainingState, command: Sequence[str]) -> None:
    """Updates the folder of a resumed run; when that fails it stays unchanged.

    A preset that is replaced is kept as preset-<step>.toml: with it the run was trained before that step.
    """
    before = b""
    with contextlib.suppress(OSError), open(open_regular(run.preset_file), "rb") as file:  # noqa: PTH123 a descriptor
        before = file.read()
    now, kept = dumps(state.preset).encode(), None
    try:
        if before != now:
            kept = runs.earlier_preset_file(run, state.step) if before else None
            if kept is not None:
                kept.write_bytes(before)
            replace_text(run.preset_file, now.decode())
        runs.add_session(run, step=state.step, command=command, choices=_choices(state))
    except (OSError, ResourceError):
        with contextlib.suppress(OSError):  # a disk that is full has room for what was there
            if before and run.preset_file.read_bytes() != before:
                run.preset_file.write_bytes(before)
        if kept is not None:
            kept.unlink(missing_ok=True)
        raise


def change_num_iterations(run: runs.Run, state: TrainingState, num_iterations: int) -> list[Event]:
    """Changes the end of a run, in its preset file too; returns the event, and a warning where that fails."""
    fewest = num_iterations == fewest_iterations(state.preset, state.step)
    state.preset = state.preset.with_training(num_iterations=num_iterations)
    events: list[Event] = [NumIterationsChanged(step=state.step, num_iterations=num_iterations, fewest=fewest)]
    try:
        replace_text(run.preset_file, dumps(state.preset))
    except OSError as error:
        problem = f"{run.preset_file} could not be updated: {error.strerror or error}"
        events.append(Warned(message=f"{problem}; the checkpoints will contain the change"))
    return events
