"""Forward and backward of a small network as one launch on the GPU, where that is faster."""

import statistics
import time

import torch
from torch import Tensor

from gpt2tui.estimate import flops_per_token
from gpt2tui.training.update import Passes, Update
from model.cuda_graphs import Record, record

SMALL_FLOPS = 4e12  # of a micro-batch: some 10 ms; with more, kernels run longer than their launches take
FEWEST_STEPS = 100  # for which the second that it takes is paid back
PAIRS = 5  # of passes that are timed, recorded and not, in turns
WORTH_RECORDING = 0.98  # of the time without
SAME = 0.5  # loss and gradients differ by less; dropout makes them differ, a recording of nothing by far more


def record_if_faster(update: Update, steps: int, record: Record = record) -> str | None:
    """Lets `update` launch a micro-batch's passes at once where that wins; returns the line that says why it does not.

    None, too, where nobody would expect it: without CUDA, for a large network or few `steps`, with the loss scale of
    fp16, with compile = "off". Weights and random states are afterwards as they were. To be called once
    `update.forward` is what it will be, in the thread that trains.
    """
    training = update.preset.training
    flops = flops_per_token(update.preset) * training.batch_size * training.sequence_length
    if update.device.type != "cuda" or update.scaler is not None or training.compile == "off":
        return None
    return _record_if_faster(update, record) if flops <= SMALL_FLOPS and steps >= FEWEST_STEPS else None


def _record_if_faster(update: Update, record: Record) -> str | None:
    states = (torch.get_rng_state(), torch.cuda.get_rng_state(update.device) if update.device.type == "cuda" else None)
    update.model.train()
    recorded: RecordedPasses | None = None
    try:
        recorded = RecordedPasses(update, record)
        note = _why_not(recorded, update)
    except RuntimeError as error:
        first_line = next(iter(str(error).strip().splitlines()), "")
        note = f"no CUDA graphs ({first_line[:200]}); every kernel is launched by itself"
    if note is None and recorded is not None:
        update.passes = recorded
        update.optimizers.keeps_gradients = True
    del recorded
    update.optimizers.zero_grad()
    torch.set_rng_state(states[0])
    if states[1] is not None:
        torch.cuda.set_rng_state(states[1], update.device)
    return note


class RecordedPasses:
    """`Update.launch_passes` for micro-batches of the preset's shape, always in the same memory.

    Gradients are added to what is there, so they have to be kept and filled with zeros between two updates.
    """

    def __init__(self, update: Update, record: Record) -> None:
        """Records. Raises RuntimeError when it cannot be recorded."""
        training = update.preset.training
        shape = (training.batch_size, training.sequence_length)
        self.micro_batches = training.gradient_accumulation
        self.inputs = torch.zeros(shape, dtype=torch.int64, device=update.device)
        self.targets = torch.zeros_like(self.inputs)
        self.loss = torch.zeros((), device=update.device)

        def work() -> None:
            self.loss.copy_(update.launch_passes(self.inputs, self.targets, self.micro_batches))

        self._work = record(work, update.device)
        self._gradients = [(parameter, parameter.grad) for parameter in update.model.parameters()]

    def __call__(self, inputs: Tensor, targets: Tensor, micro_batches: int) -> Tensor:
        """The share of the loss, which the next call overwrites."""
        assert micro_batches == self.micro_batches
        self.inputs.copy_(inputs)
        self.targets.copy_(targets)
        self._work()
        return self.loss

    def clear(self) -> None:
        """Puts the gradients back to where the recording has them, as zeros."""
        for parameter, gradient in self._gradients:
            parameter.grad = gradient
        torch._foreach_zero_([gradient for _, gradient in self._gradients if gradient is not None])


def _why_not(recorded: RecordedPasses, update: Update) -> str | None:
    """The line that says why single launches stay, or None: both ways do the same, and the recorded one is faster."""
    training = update.preset.training
    shape = (training.batch_size, training.sequence_length)
    tokens = torch.randint(update.preset.model.vocab_size or 1, shape, device=update.device)
    targets = tokens.roll(1, -1)
    loss, norm, _ = _tried(recorded, update, tokens, targets)
    expected_loss, expected_norm, _ = _tried(update.launch_passes, update, tokens, targets)
    if not (abs(loss - expected_loss) < SAME * expected_loss and abs(norm - expected_norm) < SAME * expected_norm):
        return "no CUDA graphs: what was recorded is not what was to be; every kernel is launched by itself"
    pairs = [
        (_tried(recorded, update, tokens, targets)[2], _tried(update.launch_passes, update, tokens, targets)[2])
        for _ in range(PAIRS)
    ]
    ours, theirs = (statistics.median(seconds) for seconds in zip(*pairs, strict=True))
    if ours <= WORTH_RECORDING * theirs:
        recorded.clear()
        return None
    times = f"{1000 * theirs:.1f} ms, as one {1000 * ours:.1f}"
    return f"no CUDA graphs: single launches are as fast here ({times})"


def _tried(passes: Passes, update: Update, tokens: Tensor, targets: Tensor) -> tuple[float, float, float]:
    """The loss, the gradient's norm, and the seconds that it took, gradients cleared first in each way's own manner."""
    _wait(update.device)
    started = time.perf_counter()
    if isinstance(passes, RecordedPasses):
        passes.clear()
    else:
        update.model.zero_grad(set_to_none=True)
    loss = passes(tokens, targets, update.preset.training.gradient_accumulation)
    _wait(update.device)
    seconds = time.perf_counter() - started
    gradients = [p.grad for p in update.model.parameters() if p.grad is not None]
    return float(loss), float(torch.nn.utils.get_total_norm(gradients)), seconds


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()  # not the device: another thread may be recording
