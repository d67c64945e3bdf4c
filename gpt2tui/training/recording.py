"""Forward and backward of a small network as one launch on the GPU, where that is faster."""

import time

import torch
from torch import Tensor

from gpt2tui.errors import first_line
from gpt2tui.estimate import flops_per_token
from gpt2tui.training.comparison import median_seconds, random_states_kept
from gpt2tui.training.precision import wait_for
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
    update.model.train()
    recorded: RecordedPasses | None = None
    with random_states_kept(update.device):
        try:
            recorded = RecordedPasses(update, record)
            note = _why_not(recorded, update)
        except RuntimeError as error:
            note = f"no CUDA graphs ({first_line(error)[:200]}); every kernel is launched by itself"
    update.optimizers.keeps_gradients = note is None
    if recorded is not None and note is None:
        update.passes = recorded
        recorded.attach_gradients()
    update.optimizers.zero_grad()
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

    def attach_gradients(self) -> None:
        """Puts the gradients back to where the recording has them."""
        for parameter, gradient in self._gradients:
            parameter.grad = gradient


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
    ours, theirs = median_seconds(
        lambda: _tried(recorded, update, tokens, targets)[2],
        lambda: _tried(update.launch_passes, update, tokens, targets)[2],
        PAIRS,
    )
    if ours <= WORTH_RECORDING * theirs:
        return None
    times = f"{1000 * theirs:.1f} ms, as one {1000 * ours:.1f}"
    return f"no CUDA graphs: single launches are as fast here ({times})"


def _tried(passes: Passes, update: Update, tokens: Tensor, targets: Tensor) -> tuple[float, float, float]:
    """The loss, the gradient's norm, and the seconds that it took, gradients cleared first in each way's own manner."""
    wait_for(update.device)
    started = time.perf_counter()
    update.optimizers.keeps_gradients = isinstance(passes, RecordedPasses)
    if isinstance(passes, RecordedPasses):
        passes.attach_gradients()
    update.optimizers.zero_grad()
    loss = passes(tokens, targets, update.preset.training.gradient_accumulation)
    wait_for(update.device)
    seconds = time.perf_counter() - started
    gradients = [p.grad for p in update.model.parameters() if p.grad is not None]
    return float(loss), float(torch.nn.utils.get_total_norm(gradients)), seconds
