"""What got faster or slower between two results of `gpt2tui bench --json`."""

import json
import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from gpt2tui.errors import UsageError
from gpt2tui.system.files import open_regular

SURE = 2.0  # times the noise
CONDITIONS = (
    "model", "lora", "tokens_per_step", "batch_size", "sequence_length", "optimizer", "compile",
    "activation_checkpointing", "device", "precision", "tokens",
)  # fmt: skip
"""What must be equal for the speeds of a preset to be of the same work."""

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """One speed then and now, in tokens or megabytes per second; of `limit_share` in shares of the machine's limit.

    `noise` is the standard error of `ratio`, None where the rounds are too few to know it.
    """

    preset: str
    part: str
    what: str
    then: float
    now: float
    noise: float | None

    @property
    def ratio(self) -> float:
        """How many times as fast it is now."""
        return self.now / self.then

    @property
    def verdict(self) -> str:
        """`faster` or `slower` by more than twice the noise, `same` within it, `unknown` without rounds."""
        if self.noise is None:
            return "unknown"
        if abs(self.ratio - 1) <= SURE * self.noise:
            return "same"
        return "faster" if self.ratio > 1 else "slower"

    def as_json(self) -> dict[str, Any]:
        """The numbers with their verdict."""
        return {**vars(self), "ratio": self.ratio, "verdict": self.verdict}


_Measured = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]


class _Row(BaseModel):
    candidate: str
    tokens_per_second: _Measured | None = None
    rounds_ms: list[_Measured] | None = None
    limit_share: _Measured | None = None
    rounds_limit_share: list[_Measured] | None = None


class _Part(BaseModel):
    rows: list[_Row] = []


class _Tokenization(BaseModel):
    megabytes_per_second: _Measured | None = None
    megabytes_per_second_parallel: _Measured | None = None


class _PresetResult(BaseModel):
    preset: str
    train: _Part | None = None
    generate: _Part | None = None
    tokenize: _Tokenization | None = None


class _Result(BaseModel):
    """What `compare` reads of a result."""

    presets: list[_PresetResult]


def read_saved(path: Path) -> Document:
    """A result that `bench --json` printed. Raises UsageError when the file is none or cannot be read."""
    try:
        with open(open_regular(path, follow_links=True), "rb") as file:  # noqa: PTH123 a descriptor
            document: Document = json.load(file)
        _Result.model_validate(document)
    except OSError as error:
        raise UsageError(f"--compare {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        raise UsageError(
            f"--compare {path} holds no result of gpt2tui bench --json: {where}: {first['msg']}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--compare {path} is not JSON; save one with: gpt2tui bench --json > {path.name}") from error
    return document


def compare(saved: Document, measured: Document) -> tuple[list[Change], list[str]]:
    """The changes from one result to another, and why some presets or machines cannot be compared."""
    changes: list[Change] = []
    notes = [
        f"the machine has changed: {key.replace('_', ' ')} {_of(saved, key)} then, {_of(measured, key)} now"
        for key in ("cpu", "gpu", "torch_threads")
        if _of(saved, key) != _of(measured, key)
    ]
    before = {document["preset"]: document for document in saved["presets"]}
    for document in measured["presets"]:
        name = document["preset"]
        if name not in before:
            notes.append(f"{name} was not measured then")
            continue
        known = [key for key in CONDITIONS if key in before[name]]  # earlier versions saved fewer
        different = [key for key in known if before[name][key] != document.get(key)]
        if different:
            notes.append(f"{name} is other work now: {', '.join(different)} changed")
            continue
        then, now = dict(_speeds(before[name])), dict(_speeds(document))
        for (part, what), speed in now.items():
            if earlier := then.get((part, what)):
                changes.append(Change(name, part, what, earlier[0], speed[0], _noise(earlier, speed)))
    return changes, notes


def _of(document: Document, key: str) -> Any:
    machine = document.get("machine")
    return machine.get(key) if isinstance(machine, dict) else None


Speed = tuple[float, list[float]]
"""The speed, and what its rounds measured."""


def _speeds(document: Document) -> Iterator[tuple[tuple[str, str], Speed]]:
    """((part, what), speed) of everything that was measured; of results before rounds were kept, without these."""
    for part in ("train", "generate"):
        for row in (document.get(part) or {}).get("rows", ()):
            if not row.get("tokens_per_second"):
                continue
            what = row["candidate"] + (f", batch {row['batch_size']}" if "batch_size" in row else "")
            rounds = row.get("rounds_ms") or []
            yield (part, f"{what}: tokens/s"), (row["tokens_per_second"], rounds)
            if row.get("limit_share"):
                yield (part, f"{what}: share of the limit"), (row["limit_share"], row.get("rounds_limit_share") or [])
    tokenized = document.get("tokenize") or {}
    for key in ("megabytes_per_second", "megabytes_per_second_parallel"):
        if tokenized.get(key):
            yield ("tokenize", "MB/s" + (", parallel" if key.endswith("parallel") else "")), (tokenized[key], [])


def _noise(then: Speed, now: Speed) -> float | None:
    """The standard error of the ratio of both speeds."""
    errors = [_relative_error(rounds) for _, rounds in (then, now)]
    known = [error for error in errors if error is not None]
    return now[0] / then[0] * math.hypot(*known) if len(known) == len(errors) else None


def _relative_error(values: list[float]) -> float | None:
    """The standard error of the median of the rounds (1.25 times that of the mean), as a share of the median."""
    if len(values) < 3:
        return None
    return 1.25 * statistics.stdev(values) / math.sqrt(len(values)) / statistics.median(values)
