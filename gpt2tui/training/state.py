"""The state of a run between two steps, and its form in a checkpoint, from which a run resumes bit for bit."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gpt2tui.data.batches import Batches, StreamBatches
from gpt2tui.data.token_store import TokenizedCorpus
from gpt2tui.device import Precision
from gpt2tui.errors import CheckpointError
from gpt2tui.evaluation.validation import perplexity
from gpt2tui.model.gpt2 import GPT2
from gpt2tui.model.huggingface import published_views
from gpt2tui.model.lora import adapter_tensors, peft_config
from gpt2tui.model.published_config import published_config
from gpt2tui.preset.files import dumps
from gpt2tui.preset.schema import Preset
from gpt2tui.run import checkpoint
from gpt2tui.run.checkpoint import Checkpoint, Origin, Parent
from gpt2tui.run.events import StopRule
from gpt2tui.training import schedules
from gpt2tui.training.distributed import whole
from gpt2tui.training.optimizers import Optimizers
from gpt2tui.training.saving import Snapshot
from gpt2tui.training.time_budget import NUMBERS, TimeBudget
from gpt2tui.training.update import Update

MODEL = "model."  # prefix of the weights, to tell them from the training state
OPTIMIZER = "optimizer."


@dataclass
class TrainingState:
    """The objects that the training loop works with, and its progress. The one owner of the run's preset."""

    preset: Preset
    """A time budget may change its num_iterations while the run is trained."""
    device: torch.device
    precision: Precision
    precision_reason: str
    batches: Batches | StreamBatches
    update: Update
    run_id: str = ""
    """Empty until the folder of a new run is written."""
    parent: Parent | None = None
    """The checkpoint from which it was resumed."""
    origin: Origin | None = None
    """The weights that the run started from; None for random ones."""
    compile_reason: str = ""
    """Why the forward pass is compiled, or is not."""
    trial_seconds: float = 0.0
    """What trying the first steps took, which counts in no budget."""
    time_budget: TimeBudget | None = None
    learning_rate_factor: float = 1.0
    """The user's change of the learning rate: multiplies the whole schedule."""
    step: int = 0
    """Updates so far."""
    first_step: int = 0
    """Updates before this process began."""
    seconds: float = 0.0
    """Duration of the training, earlier sessions included."""
    val_loss: float | None = None
    """Loss over the fixed validation sample at this step; None if it was not measured."""
    bits_per_byte: float | None = None
    """Measured together with val_loss."""
    other_metrics: dict[str, float] = field(default_factory=dict)
    """What [evaluation] asks for, measured together with val_loss."""
    best_val_loss: float | None = None
    """The lowest val_loss so far."""
    evaluations_without_improvement: int = 0
    """The evaluations of the schedule since the one with the lowest val_loss."""
    saved_step: int | None = None
    """The step of the newest checkpoint; None if the state has changed since without a step."""
    notices: tuple[str, ...] = ()
    """Warnings to show when the run starts."""

    @property
    def model(self) -> GPT2:
        """The network that is trained."""
        return self.update.model

    @property
    def done(self) -> bool:
        """Whether all steps have been taken, or a stop rule has ended the run."""
        return self.step >= self.preset.training.num_iterations or self.stop_rule is not None

    @property
    def stop_rule(self) -> StopRule | None:
        """The rule in [training] by which the run ends at this step."""
        training = self.preset.training
        best, target = self.best_val_loss, training.target_loss
        if best is not None and target is not None and best <= target:
            return "target_loss"
        if training.patience is not None and self.evaluations_without_improvement >= training.patience:
            return "patience"
        return None

    @property
    def next_learning_rate_factor(self) -> float:
        """The next update's learning rate as a share of the peak: the schedule's times the user's."""
        return schedules.learning_rate_factor(self.preset, self.step) * self.learning_rate_factor

    @property
    def metrics(self) -> dict[str, float]:
        """What was measured at this step, by name; empty if nothing was."""
        if self.val_loss is None:
            return {}
        known = {"val_loss": self.val_loss, "perplexity": perplexity(self.val_loss)}
        if self.bits_per_byte is not None:
            known["bits_per_byte"] = self.bits_per_byte
        return known | {name: value for name, value in self.other_metrics.items() if math.isfinite(value)}

    def record_validation(self, val_loss: float, bits_per_byte: float, scheduled: bool = True) -> bool:
        """Stores the loss over the fixed validation sample; returns whether it is the lowest so far.

        An evaluation that the user has asked for (not `scheduled`) uses up no patience.
        """
        self.val_loss = val_loss if math.isfinite(val_loss) else None
        self.bits_per_byte = bits_per_byte if math.isfinite(bits_per_byte) else None
        if self.val_loss is None or (self.best_val_loss is not None and self.val_loss >= self.best_val_loss):
            self.evaluations_without_improvement += scheduled
            return False
        self.best_val_loss = self.val_loss
        self.evaluations_without_improvement = 0
        return True


def validation_sample(preset: Preset) -> str:
    """What val_loss is measured over; losses over different samples do not compare."""
    training = preset.training
    return f"{training.eval_tokens} tokens in windows of {training.sequence_length}"


def tensors_to_save(state: TrainingState) -> dict[str, Tensor]:
    """What is trained of the weights and the training state, on their device; not copies.

    Where each rank has a share of them, all ranks call it, and they are whole copies on the CPU. Weights have their
    published names, adapters those of PEFT.
    """
    if state.preset.lora is None:
        weights_of_run = {
            name: _to_save(tensor, state.update.is_sharded) for name, tensor in state.model.state_dict().items()
        }
        published = published_views(weights_of_run, state.preset.model)
    else:
        published = adapter_tensors(state.model)
    weights = {MODEL + name: tensor for name, tensor in published.items()}
    return weights | training_state_tensors(state.update.optimizers, state.update.is_sharded)


def snapshot(
    state: TrainingState, tensors: Mapping[str, Tensor], corpus: TokenizedCorpus, preset_name: str
) -> Snapshot:
    """The checkpoint of this step; `tensors` are those of `tensors_to_save`, or copies of them."""
    config = published_config(
        state.preset.model, corpus.tokenizer.eot, trained_length=state.preset.training.sequence_length
    )
    documents = {"config.json": json.dumps(config, indent=2) + "\n", "preset.toml": dumps(state.preset)}
    if state.preset.lora is not None:
        assert state.origin is not None, "an adapter without a base"
        adapter = peft_config(base=state.origin.source, **state.preset.lora.model_dump(exclude={"quantize"}))
        documents["adapter_config.json"] = json.dumps(adapter, indent=2) + "\n"
    budget, scaler = state.time_budget, state.update.scaler
    return Snapshot(
        step=state.step,
        run_id=state.run_id,
        weights={name.removeprefix(MODEL): t for name, t in tensors.items() if name.startswith(MODEL)},
        training_state={name: t for name, t in tensors.items() if not name.startswith(MODEL)},
        is_adapter=state.preset.lora is not None,
        documents=documents,
        trainer={
            "step": state.step,
            "tokens_seen": state.step * state.preset.tokens_per_step,
            "seconds": state.seconds,
            "val_loss": state.val_loss,
            "best_val_loss": state.best_val_loss,
            "evaluations_without_improvement": state.evaluations_without_improvement,
            "learning_rate_factor": state.learning_rate_factor,
            "preset_name": preset_name,
            "data_fingerprint": corpus.fingerprint,
            "time_budget": budget.as_numbers(state.preset.training.num_iterations) if budget else None,
            "stream": state.batches.state_dict() if isinstance(state.batches, StreamBatches) else None,
            "scaler": None if scaler is None else scaler.state_dict(),
        },
        metrics=state.metrics,
        validation_sample=validation_sample(state.preset),
        data_fingerprint=corpus.fingerprint,
        parent=state.parent,
        origin=state.origin,
    )


def training_state_tensors(optimizers: Optimizers, is_sharded: bool) -> dict[str, Tensor]:
    """Optimizer moments by name; not copies. Nothing else needs saving: what is random follows from seed and step.

    Where each rank has a share of them, whole copies on the CPU.
    """
    return {OPTIMIZER + name: _to_save(tensor, is_sharded) for name, tensor in optimizers.state_tensors().items()}


def _to_save(tensor: Tensor, is_sharded: bool) -> Tensor:
    """The tensor itself; of a sharded training a copy on the CPU, whole."""
    if not is_sharded:
        return tensor
    gathered = whole(tensor)
    return tensor.to("cpu", copy=True) if gathered is tensor else gathered.cpu()  # step counters are not divided


def restore_training_state(tensors: Mapping[str, Tensor], optimizers: Optimizers) -> None:
    """Restores what `training_state_tensors` returned; random states in older checkpoints are left out.

    Raises CheckpointError when the tensors belong to another model or optimizer.
    """
    moments = {name.removeprefix(OPTIMIZER): t for name, t in tensors.items() if name.startswith(OPTIMIZER)}
    try:
        optimizers.load_state_tensors(moments)
    except (ValueError, RuntimeError, TypeError) as error:
        raise CheckpointError(f"the training state does not fit this preset: {error}") from error


def read_trainer_json(saved: Checkpoint) -> dict[str, Any]:
    """A checkpoint's trainer.json. Raises CheckpointError when it lacks what resuming needs."""
    numbers = checkpoint.read_json(saved.folder / "trainer.json")
    sound = (
        isinstance(numbers.get("data_fingerprint"), str)
        and numbers.get("step") == saved.step
        and type(numbers.get("seconds")) in (int, float)
        and type(numbers.get("learning_rate_factor", 1.0)) in (int, float)
        and type(numbers.get("evaluations_without_improvement", 0)) is int
        and all(numbers.get(key) is None or type(numbers[key]) is float for key in ("best_val_loss", "val_loss"))
        and all(numbers.get(key) is None or isinstance(numbers[key], dict) for key in ("stream", "scaler"))
        and _is_time_budget(numbers.get("time_budget"))
    )
    if not sound:
        raise CheckpointError(
            f"{saved.folder / 'trainer.json'} does not hold the numbers of a run at step {saved.step}"
        )
    return numbers


def _is_time_budget(numbers: Any) -> bool:
    if numbers is None:
        return True
    return (
        isinstance(numbers, dict)
        and {"seconds", "spent", "most_iterations", "num_iterations"} <= numbers.keys()
        and all(type(numbers.get(key, 0)) in (int, float) and numbers.get(key, 0) >= 0 for key in NUMBERS)
        and all(type(numbers[key]) is int and numbers[key] > 0 for key in ("most_iterations", "num_iterations"))
    )
