"""Training steps over several ranks, timed with and without what the ranks exchange.

As a program, under torchrun, it is one of the ranks: `python -m gpt2tui.benchmark.ranks FOLDER`. Each round takes steps
of the spread network, and steps in which every rank computes its share of the same work on a network of its own and
exchanges nothing. What the former take longer is communication.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from gpt2tui.benchmark.baselines import compile_like_a_run
from gpt2tui.benchmark.job import Job
from gpt2tui.benchmark.measure import milliseconds
from gpt2tui.benchmark.subject import Subject
from gpt2tui.benchmark.training import WARM_UP_STEPS, benchmark_batches
from gpt2tui.benchmark.workers import FEWEST_ROUNDS, in_one_line
from gpt2tui.data.joined_tokens import FilePart
from gpt2tui.device import Precision, choose_device
from gpt2tui.errors import UsageError
from gpt2tui.launch import check_ranks
from gpt2tui.preset.schema import Preset
from gpt2tui.training.distributed import Ranks, join, leave
from gpt2tui.training.muon import Muon
from gpt2tui.training.parallel import own_part, spread
from gpt2tui.training.schedules import learning_rate_factor
from gpt2tui.training.update import Update, fresh_update

SECONDS_TO_CONNECT = 120.0


@dataclass(frozen=True)
class Timings:
    """The seconds of each step, those of the slowest rank: with the exchange, and without it."""

    step: list[float]
    alone: list[float]
    threads: int
    """Of torch, on each rank."""


def measure_ranks(subject: Subject, most: int, seconds: float, report: Callable[[str], None]) -> dict[str, Any]:
    """The step of this preset on each number of ranks up to `most` that divides its micro-batches.

    Raises UsageError where `most` does not divide them, or is more than the GPUs of this machine.
    """
    check_ranks(subject.preset, most)
    if subject.device.type == "cuda" and most > torch.cuda.device_count():
        raise UsageError(f"--ranks {most}: this machine has {torch.cuda.device_count()} GPUs, and each rank needs one")
    rows: list[dict[str, Any]] = []
    for count in range(1, most + 1):
        if subject.preset.training.gradient_accumulation % count == 0:
            report(f"{subject.name}: {count} of {most} ranks: {seconds:g} s once warmed up")
            rows.append(_row(subject, count, measured_by(subject, count, seconds), rows))
    return {"skipped": None, "strategy": "fsdp" if subject.preset.is_sharded else "ddp", "rows": rows}


def _row(subject: Subject, count: int, measured: Timings | str, earlier: list[dict[str, Any]]) -> dict[str, Any]:
    """The numbers of so many ranks; `earlier` are those of fewer, from one on."""
    found = measured if isinstance(measured, Timings) else Timings([], [], 0)
    ms = milliseconds(found.step)
    alone = milliseconds(found.alone)["median"]
    first = earlier[0]["ms"]["median"] if earlier else ms["median"]
    median = ms["median"]
    return {
        "ranks": count,
        "failed": None if isinstance(measured, Timings) else measured,
        "threads": found.threads or None,
        "ms": ms,
        "ms_without_exchange": alone,
        "communication_percent": max(0.0, 100 * (1 - alone / median)) if alone and median else None,
        "tokens_per_second": 1000 * subject.preset.tokens_per_step / median if median else None,
        "speedup": first / median if first and median else None,
        "count": len(found.step),
    }


def measured_by(subject: Subject, count: int, seconds: float) -> Timings | str:
    """The timings of so many ranks, which torchrun starts; or why there are none."""
    preset = subject.preset.with_training(device=subject.device.type)  # each rank has its own GPU
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job = {"preset": preset.model_dump_json(), "tokens": subject.tokens, "seconds": seconds}
        (folder / "job.json").write_text(json.dumps(job))
        command = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        command += ["-m", "gpt2tui.benchmark.ranks", name]
        with (folder / "output").open("wb") as output:
            settings = {**os.environ, "PYTHONSAFEPATH": "1"}
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=settings)
            try:
                code = process.wait()
            finally:
                process.terminate()  # torchrun ends its ranks
                process.wait()
        if code == 0:
            return Timings(**json.loads((folder / "timings.json").read_text()))
        errors = [path.read_text() for path in sorted(folder.glob("error-*"))]
        return errors[0] if errors else f"torchrun ended with exit code {code}"


# ---- one of the ranks


def main(folder: Path) -> None:
    """Measures as one of the ranks, and as rank 0 writes the timings."""
    ranks = join()
    try:
        timings = _timings(json.loads((folder / "job.json").read_text()), ranks)
    except Exception as error:  # libraries raise exceptions of any type
        (folder / f"error-{ranks.rank}").write_text(f"rank {ranks.rank}: {in_one_line(error)}")
        leave(1)
    if ranks.rank == 0:
        (folder / "timings.json").write_text(json.dumps(vars(timings)))
    leave(0)


def _timings(description: dict[str, Any], ranks: Ranks) -> Timings:
    preset = Preset.model_validate_json(description["preset"])
    device = choose_device(preset.training.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if ranks.rank == 0:
        ranks.assign({}, SECONDS_TO_CONNECT, on_gpu=device.type == "cuda")
    else:
        ranks.assignment()
    tokens = tuple(FilePart(*part) for part in description["tokens"])
    batches = benchmark_batches(Job("train", "gpt2tui", preset, tokens), ranks)
    together = _update(preset, device)
    spread(together, preset, ranks)
    alone = None if ranks.world_size == 1 else _without_exchange(_update(preset, device), ranks)

    def step(update: Update, number: int) -> float:
        """The seconds of the slowest rank; all begin at once."""
        micro_batches = batches.micro_batches(number)
        ranks.decided(True)
        started = time.perf_counter()
        update.run(micro_batches, number, learning_rate_factor(preset, number))
        return ranks.exchange([time.perf_counter() - started], 0)[0]

    updates = [update for update in (together, alone) if update is not None]
    for number in range(WARM_UP_STEPS):
        for update in updates:
            step(update, number)
    seconds: list[list[float]] = [[] for _ in updates]
    end, number = time.perf_counter() + description["seconds"], WARM_UP_STEPS
    while ranks.decided(len(seconds[0]) < FEWEST_ROUNDS or time.perf_counter() < end):
        for update, found in zip(updates, seconds, strict=True):
            found.append(step(update, number))
        number += 1
    return Timings(seconds[0], seconds[1] if alone else [], torch.get_num_threads())


def _update(preset: Preset, device: torch.device) -> Update:
    update = fresh_update(preset, device, cast(Precision, preset.training.precision))
    if not preset.is_sharded:  # as in a run
        update.forward, _ = compile_like_a_run(update.model, preset)
    return update


def _without_exchange(update: Update, ranks: Ranks) -> Update:
    """An update of a network of its own, with the work of one of the ranks; what it computes is of no use."""
    for optimizer, _ in update.optimizers.all:
        if isinstance(optimizer, Muon):
            optimizer.orthogonalize = lambda stack, dtype: own_part(stack, dtype, ranks).repeat(ranks.world_size, 1, 1)[
                : len(stack)
            ]
    return update


if __name__ == "__main__":
    main(Path(sys.argv[1]))
