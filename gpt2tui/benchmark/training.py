"""Training steps, timed: ours exactly as a run takes them, those of others over the same batches."""

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from gpt2tui.benchmark.baselines import compile_as_a_run_does
from gpt2tui.benchmark.job import Candidate, Facts, Job, Round, Step
from gpt2tui.benchmark.machine import peak_memory
from gpt2tui.data.batches import Batch, Batches
from gpt2tui.device import Precision
from gpt2tui.training.probe import within_budget
from gpt2tui.training.schedules import learning_rate_factor
from gpt2tui.training.update import AsyncStepMetrics, fresh_update

WARM_UP_STEPS = 2  # the first ones allocate memory and start threads
RANDOM_TOKENS = 2**20


def training(job: Job) -> Candidate:
    """One candidate's way of training; all of them see the same batches. Times a "step", and getting its "batch"."""
    device = torch.device(job.preset.training.device)
    batches = open_batches(job)
    update, facts = _way(job, device, batches)
    numbers = itertools.count()

    def step() -> tuple[Callable[[], float], float]:
        """Reads the loss of the next step, and the seconds that its batch took. Nobody has to wait for the loss."""
        number, started = next(numbers), time.perf_counter()
        micro_batches = batches.micro_batches(number)
        seconds = time.perf_counter() - started
        return update(micro_batches, number), seconds

    def steps_for(seconds: float) -> Round:
        if job.settle:
            step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        batch_seconds: list[float] = []
        marks = [_mark(device)]
        end = time.perf_counter() + seconds
        while not batch_seconds or time.perf_counter() < end:
            batch_seconds.append(step()[1])
            marks.append(_mark(device))
        return Round({"step": _between(marks, device), "batch": batch_seconds}, peak_memory(device))

    losses = [step()[0]() for _ in range(WARM_UP_STEPS)]
    return {**facts, "first_loss": losses[0]}, steps_for


def _mark(device: torch.device) -> Any:
    """A point in time. On CUDA the GPU itself takes it, so that nothing has to wait for it meanwhile."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def _between(marks: Sequence[Any], device: torch.device) -> list[float]:
    """The seconds from each mark to the next."""
    if device.type != "cuda":
        return [b - a for a, b in itertools.pairwise(marks)]
    torch.cuda.synchronize(device)
    return [a.elapsed_time(b) / 1000 for a, b in itertools.pairwise(marks)]


def open_batches(job: Job) -> Batches:
    """Batches of the prepared tokens, or of random ones, in the preset's order."""
    t = job.preset.training
    tokens: npt.NDArray[np.unsignedinteger]
    if job.tokens is not None:
        tokens = np.memmap(job.tokens[0], dtype=np.dtype(job.tokens[1]), mode="r")
    else:
        count = max(RANDOM_TOKENS, 2 * t.sequence_length)
        tokens = np.random.default_rng(t.seed).integers(0, job.preset.model.vocab_size, count, dtype=np.uint32)
    return Batches(
        tokens,
        seed=t.seed,
        batch_size=t.batch_size,
        gradient_accumulation=t.gradient_accumulation,
        sequence_length=t.sequence_length,
    )


def _way(job: Job, device: torch.device, batches: Batches) -> tuple[Step, Facts]:
    if job.candidate == "nanogpt":
        from gpt2tui.benchmark.baselines import plain_step

        return plain_step(job.preset, device), {}
    if job.candidate != "gpt2tui":
        from gpt2tui.benchmark.baselines import transformers_step

        return transformers_step(job.preset, device, best=job.candidate == "transformers-best")
    precision = cast(Precision, job.preset.training.precision)
    preset = within_budget(job.preset, batches, device)  # a time budget decides whether compiling pays
    update = fresh_update(preset, device, precision)
    update.forward, facts = compile_as_a_run_does(update.model, preset)
    unread: list[AsyncStepMetrics] = []

    def step(micro_batches: Sequence[Batch], number: int) -> Callable[[], float]:
        result = update.begin(micro_batches, number, learning_rate_factor(preset, number))
        if unread:
            unread.pop().read()
        if update.async_metrics:
            unread.append(result)
        return lambda: result.read().train_loss

    return step, facts
