"""Forward and backward of a small network as one launch on the GPU, where that is faster."""

import statistics
import time

import torch
from torch import Tensor

from gpt2tui.estimate import flops_per_token
from gpt2tui.training.update import Passes, Update
from model.cuda_graphs import Record, record

SMALL_FLOPS = 4e12  # of a micro-batch: some 10 ms; with more, kernels run longer than their launches take
PAIRS = 5  # of passes that are timed, recorded and not, in turns
WORTH_RECORDING = 0.98  # of the time without


def record_if_faster(update: Update, record: Record = record) -> str | None:
    """Lets `update` launch a micro-batch's passes at once where that wins; returns the line that says why it does not.

    None, too, where nobody would expect it: without CUDA, with a large network, with the loss scale of fp16. Weights
    and random states are afterwards as they were. To be called once `update.forward` is what it will be.
    """
    training = update.preset.training
    flops = flops_per_token(update.preset) * training.batch_size * training.sequence_length
    if update.device.type != "cuda" or update.scaler is not None or flops > SMALL_FLOPS:
        return None
    return _record_if_faster(update, record)


def _record_if_faster(update: Update, record: Record) -> str | None:
    states = (torch.get_rng_state(), torch.cuda.get_rng_state(update.device) if update.device.type == "cuda" else None)
    launched = update.passes
    update.model.train()
    note = None
    try:
        recorded = RecordedPasses(update, record)
        pairs = [(_seconds(recorded, update), _seconds(launched, update)) for _ in range(PAIRS)]
        ours, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
        if ours <= WORTH_RECORDING * theirs:
            update.passes = recorded
            update.optimizers.keeps_gradients = True
        else:
            note = (
                f"no CUDA graphs: single launches are as fast here ({1000 * theirs:.1f} ms, as one {1000 * ours:.1f})"
            )
    except RuntimeError as error:
        first_line = next(iter(str(error).strip().splitlines()), "")
        note = f"no CUDA graphs ({first_line[:200]}); every kernel is launched by itself"
    finally:
        update.optimizers.zero_grad()
        torch.set_rng_state(states[0])
        if states[1] is not None:
            torch.cuda.set_rng_state(states[1], update.device)
    if note is not None and update.device.type == "cuda":
        torch.cuda.empty_cache()  # what the recording held
    return note


class RecordedPasses:
    """`Update.launch_passes` for micro-batches of the preset's shape, always in the same memory.

    Gradients are added to what is there, so they have to be kept and filled with zeros between two updates.
    """

    def __init__(self, update: Update, record: Record) -> None:
        """Records; leaves gradients. Raises RuntimeError when it cannot be recorded."""
        training = update.preset.training
        shape = (training.batch_size, training.sequence_length)
        self.micro_batches = training.gradient_accumulation
        self.inputs = torch.zeros(shape, dtype=torch.int64, device=update.device)
        self.targets = torch.zeros_like(self.inputs)
        self.loss = torch.zeros((), device=update.device)

        def work() -> None:
            self.loss.copy_(update.launch_passes(self.inputs, self.targets, self.micro_batches))

        self._work = record(work)

    def __call__(self, inputs: Tensor, targets: Tensor, micro_batches: int) -> Tensor:
        """The share of the loss, which the next call overwrites."""
        assert micro_batches == self.micro_batches
        self.inputs.copy_(inputs)
        self.targets.copy_(targets)
        self._work()
        return self.loss


def _seconds(passes: Passes, update: Update) -> float:
    training = update.preset.training
    tokens = torch.zeros(training.batch_size, training.sequence_length, dtype=torch.int64, device=update.device)
    started = time.perf_counter()
    passes(tokens, tokens, training.gradient_accumulation)
    if update.device.type == "cuda":
        torch.cuda.synchronize(update.device)
    return time.perf_counter() - started
