"""Training steps, timed: ours exactly as in a run, and the baselines over the same batches."""

import itertools
import time
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch

from gpt2tui.benchmark.baselines import compile_like_a_run
from gpt2tui.benchmark.job import Facts, Job, ReadyCandidate, Round, TrainStep, precision_of
from gpt2tui.benchmark.machine import peak_memory
from gpt2tui.data.batches import Batch, Batches
from gpt2tui.data.joined_tokens import TokenSequence, open_parts
from gpt2tui.device import Precision, seconds_between, time_mark
from gpt2tui.system.device_speed import measure_limit
from gpt2tui.training.distributed import Ranks
from gpt2tui.training.schedules import learning_rate_factor
from gpt2tui.training.update import AsyncStepMetrics, fresh_update

WARM_UP_STEPS = 2  # the first ones allocate memory and start threads
RANDOM_TOKENS = 2**20


def training_candidate(job: Job) -> ReadyCandidate:
    """One candidate's training, over the same batches for all. A round has seconds of "step" and its "batch"."""
    device = torch.device(job.preset.training.device)
    batches = benchmark_batches(job)
    update, facts = _candidate_step(job, device, batches)
    precision = precision_of(job.candidate, job.preset)
    numbers = itertools.count()

    def step() -> tuple[Callable[[], float], float]:
        """Takes the next step: a function that waits for its loss, and the seconds that getting its batch took."""
        number, started = next(numbers), time.perf_counter()
        micro_batches = batches.micro_batches(number)
        seconds = time.perf_counter() - started
        return update(micro_batches, number), seconds

    def steps_for(seconds: float) -> Round:
        if job.warm_up_rounds:
            step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        batch_seconds: list[float] = []
        marks = [time_mark(device)]
        end = time.perf_counter() + seconds
        while not batch_seconds or time.perf_counter() < end:
            batch_seconds.append(step()[1])
            marks.append(time_mark(device))
        step_seconds = [seconds_between(a, b) for a, b in itertools.pairwise(marks)]
        memory = peak_memory(device)  # before the matrices of the limit
        return Round({"step": step_seconds, "batch": batch_seconds}, memory, measure_limit(device, precision))

    losses = [step()[0]() for _ in range(WARM_UP_STEPS)]
    return {**facts, "first_loss": losses[0]}, steps_for


def benchmark_batches(job: Job, ranks: Ranks | None = None) -> Batches:
    """Batches of the prepared tokens, or of random ones, in the preset's order; of several ranks, those of this one."""
    t = job.preset.training
    tokens: TokenSequence
    if job.tokens:
        tokens = open_parts(job.tokens)
    else:
        count = max(RANDOM_TOKENS, 2 * t.sequence_length)
        tokens = np.random.default_rng(t.seed).integers(0, job.preset.model.vocab_size, count, dtype=np.uint32)
    return Batches(
        tokens,
        seed=t.seed,
        batch_size=t.batch_size,
        gradient_accumulation=t.gradient_accumulation,
        sequence_length=t.sequence_length,
        rank=ranks.rank if ranks else 0,
        world_size=ranks.world_size if ranks else 1,
    )


def _candidate_step(job: Job, device: torch.device, batches: Batches) -> tuple[TrainStep, Facts]:
    if job.candidate == "nanogpt":
        from gpt2tui.benchmark.baselines import nanogpt_baseline

        return nanogpt_baseline(job.preset, device)
    if job.candidate != "gpt2tui":
        from gpt2tui.benchmark.baselines import transformers_baseline

        return transformers_baseline(job.preset, device, best=job.candidate == "transformers-best")
    precision = cast(Precision, job.preset.training.precision)
    preset = job.preset
    update = fresh_update(preset, device, precision)
    update.forward, facts = compile_like_a_run(update.model, preset, graphs=preset.training.gradient_accumulation == 1)
    unread: list[AsyncStepMetrics] = []

    def step(micro_batches: Sequence[Batch], number: int) -> Callable[[], float]:
        result = update.begin(micro_batches, number, learning_rate_factor(preset, number))
        if unread:
            unread.pop().read()
        if update.async_metrics:
            unread.append(result)
        return lambda: result.read().train_loss

    return step, facts
