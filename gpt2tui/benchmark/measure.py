"""The parts of the benchmark for one preset, and their numbers. What is not known is None, never 0."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from gpt2tui.benchmark import tokenization
from gpt2tui.benchmark.generation import lengths
from gpt2tui.benchmark.job import CandidateResult, Job, Round, batch_sizes, precision_of
from gpt2tui.benchmark.subject import Subject, reason_to_skip
from gpt2tui.benchmark.workers import take_turns
from gpt2tui.device import device_name
from gpt2tui.errors import DataError
from gpt2tui.estimate import flops_per_token
from gpt2tui.system.device_speed import peak_flops
from gpt2tui.system.terminal_text import print_on_stderr

OURS = "gpt2tui"


def measure(
    subject: Subject, parts: Sequence[str], against: Sequence[str], seconds: float
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (part, result) as they are measured; `skipped` in a result is why it has no numbers."""
    if "train" in parts or "data" in parts:
        skipped, outcomes = _measure_candidates(subject, "train", against if "train" in parts else (), seconds)
        if "train" in parts:
            yield "train", {"skipped": skipped, "rows": training_rows(subject, outcomes)}
        if "data" in parts:
            yield "data", {"skipped": skipped or outcomes[OURS].failed, **data_share(subject, outcomes.get(OURS))}
    if "generate" in parts:
        skipped, outcomes = _measure_candidates(subject, "generate", against, seconds)
        s, (prompt, count) = subject.preset.sampling, lengths(subject.preset)
        sampling = {"temperature": s.temperature, "top_k": s.top_k, "top_p": s.top_p}
        rows = [row for size in batch_sizes(subject.device) for row in generation_rows(subject, outcomes, size, count)]
        yield "generate", {"skipped": skipped, "prompt_tokens": prompt, "new_tokens": count, **sampling, "rows": rows}
    if "tokenize" in parts:
        kind = subject.preset.data.tokenizer
        print_on_stderr(f"{subject.name}: tokenizing the embedded corpus")
        try:
            yield "tokenize", {"skipped": None, **tokenization.measure(kind, subject.preset.model.vocab_size, seconds)}
        except DataError as error:
            yield "tokenize", {"skipped": str(error)}


def candidates(part: str, against: Sequence[str], precision: str) -> list[str]:
    """The candidates, ours first. `nanogpt` only trains; in fp32 both forms of `transformers` generate alike."""
    baselines = {
        "nanogpt": part == "train" and "nanogpt" in against,
        "transformers": "transformers" in against,
        "transformers-best": "transformers" in against and (part == "train" or precision != "fp32"),
    }
    return [OURS, *(name for name, wanted in baselines.items() if wanted)]


def training_rows(subject: Subject, outcomes: Mapping[str, CandidateResult]) -> list[dict[str, Any]]:
    """A row per candidate: tokens and ms of a step, MFU, share of the measured limit, the first step's loss."""
    rows = []
    for row, outcome in _rows(outcomes, "step", subject.preset.tokens_per_step):
        row["precision"] = precision_of(row["candidate"], subject.preset)
        row["optimizer"] = subject.preset.optimizer.name if row["candidate"] == OURS else "adamw"
        row["mfu"] = _mfu(subject, row["precision"], row["tokens_per_second"])
        row |= shares_of_limit(outcome.rounds, flops_per_token(subject.preset) * subject.preset.tokens_per_step)
        rows.append(row | {key: outcome.facts.get(key) for key in ("compile_seconds", "first_loss", "note")})
    return rows


def shares_of_limit(rounds: Sequence[Round], flops_per_step: float) -> dict[str, Any]:
    """The limit, median of the rounds, and `limit_share`: the model's FLOPs per second over the product's.

    Each round is compared with the limit measured right after it.
    """
    limits = [measured.limit for measured in rounds if measured.limit]
    shares = [
        flops_per_step / statistics.median(measured.seconds["step"]) / measured.limit.product_flops
        for measured in rounds
        if measured.limit
    ]
    known = bool(limits)
    return {
        "rounds_limit_share": shares,
        "limit_share": statistics.median(shares) if known else None,
        "limit_size": limits[0].product_size if known else None,
        "limit_flops": statistics.median(limit.product_flops for limit in limits) if known else None,
        "limit_copied_bytes": statistics.median(limit.copied_bytes for limit in limits) if known else None,
    }


def generation_rows(
    subject: Subject, outcomes: Mapping[str, CandidateResult], batch_size: int, count: int
) -> list[dict[str, Any]]:
    """A row per candidate: tokens and milliseconds of generating `count` tokens after each prompt of a batch."""
    rows = []
    for row, outcome in _rows(outcomes, f"all {batch_size}", batch_size * count):
        first = milliseconds([s for measured in outcome.rounds for s in measured.seconds[f"first {batch_size}"]])
        precision = outcome.facts.get("precision", {}).get(batch_size)
        rows.append(row | {"batch_size": batch_size, "ms_to_first_token": first["median"], "precision": precision})
    return rows


def data_share(subject: Subject, outcome: CandidateResult | None) -> dict[str, Any]:
    """The share of our training step that is spent on getting its batch."""
    rounds = outcome.rounds if outcome else []
    steps, batches = ([s for measured in rounds for s in measured.seconds[key]] for key in ("step", "batch"))
    share = 100 * sum(batches) / sum(steps) if steps else None
    return {"percent_of_step": share, "ms": milliseconds(batches), "tokens": subject.facts["tokens"]}


def milliseconds(seconds: Sequence[float]) -> dict[str, float | None]:
    """The median and the 10th and 90th percentile, in ms."""
    values = 1000 * np.percentile(seconds, [10, 50, 90]) if seconds else (None, None, None)
    p10, median, p90 = (None if value is None else float(value) for value in values)
    return {"median": median, "p10": p10, "p90": p90}


def speed_ratio(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> float | None:
    """How many times as fast ours is: the median over the rounds of their median seconds over ours.

    The two of a round were measured right after each other, so a machine that slows down slows both. A candidate that
    failed has fewer rounds.
    """
    ratios = [statistics.median(b) / statistics.median(a) for a, b in zip(ours, theirs, strict=False)]
    return statistics.median(ratios) if ratios else None


def _rows(
    outcomes: Mapping[str, CandidateResult], what: str, tokens: int
) -> Iterator[tuple[dict[str, Any], CandidateResult]]:
    """The numbers that training and generation share; each repetition of `what` handles `tokens` tokens."""
    by_round = {name: [measured.seconds[what] for measured in o.rounds] for name, o in outcomes.items()}
    for name, outcome in outcomes.items():
        every = [seconds for measured in by_round[name] for seconds in measured]
        unknown = dict.fromkeys(("host_bytes", "device_allocated_bytes", "device_reserved_bytes"))
        row = {
            "candidate": name,
            "failed": outcome.failed,
            "tokens_per_second": tokens / statistics.median(every) if every else None,
            "speed_ratio": None if name == OURS else speed_ratio(by_round[OURS], by_round[name]),
            "ms": milliseconds(every),
            "rounds_ms": [1000 * statistics.median(seconds) for seconds in by_round[name]],
            "count": len(every),
            "memory": outcome.rounds[0].memory if every else unknown,  # later ones measured the limit before
        }
        yield row, outcome


def _mfu(subject: Subject, precision: Any, tokens_per_second: float | None) -> float | None:
    """The model's FLOPs, as `estimate` counts them, over the peak that the device's maker states."""
    peak = peak_flops(device_name(subject.device), precision)
    return tokens_per_second * flops_per_token(subject.preset) / peak if peak and tokens_per_second else None


def _measure_candidates(
    subject: Subject, part: Literal["train", "generate"], against: Sequence[str], seconds: float
) -> tuple[str | None, dict[str, CandidateResult]]:
    """(Why the part is skipped, or None; the result of each candidate)."""
    names = candidates(part, against, subject.precision)
    if reason := reason_to_skip(subject, part, names, seconds):
        return reason, {}
    verb = "training" if part == "train" else "generation"
    print_on_stderr(f"{subject.name}: {verb}, {', '.join(names)}: {seconds:g} s each once warmed up")
    jobs = [Job(part, name, subject.preset, subject.tokens, warm_up_rounds=len(names) > 1) for name in names]
    return None, take_turns(jobs, seconds, print_on_stderr)
