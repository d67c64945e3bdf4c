"""What the Evaluate page offers to measure, and how its fields become a request."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpt2tui.errors import UsageError
from gpt2tui.evaluation.request import EvaluationRequest

NUMBERS = ("context", "stride", "max_length", "limit")
FIELDS = {
    "text": "the file",
    "data": "its file or folder",
    "context": "context, tokens",
    "stride": "stride, tokens",
    "prompt_column": "column of prompts",
    "reference_column": "of references",
    "max_length": "most tokens written",
    "limit": "first rows only",
}
"""The fields of a request that the user may fill in, by their labels."""


@dataclass(frozen=True)
class Measure:
    """One thing to measure: its name, what it is, and the fields that it has; those `needed` may not be empty."""

    name: str
    meaning: str
    fields: tuple[str, ...]
    tasks: tuple[str, ...] = ()
    needed: tuple[str, ...] = ()
    known_answers: bool = False

    def request(self, checkpoint: str, values: Mapping[str, str]) -> EvaluationRequest:
        """The request of the filled-in fields. Raises UsageError."""
        given: dict[str, Any] = {}
        for name in self.fields:
            value = values.get(name, "").strip()
            if not value:
                if name in self.needed:
                    raise UsageError(f"{FIELDS[name]} is missing")
            elif name not in NUMBERS:
                given[name] = value
            elif value.isascii() and value.isdigit():
                given[name] = int(value)
            else:
                raise UsageError(f"{FIELDS[name]}: {value} is not a whole number")
        return EvaluationRequest(checkpoint, self.tasks, known_answers=self.known_answers, **given)


def _task(name: str, meaning: str, *, needs_data: bool = False) -> Measure:
    return Measure(name, meaning, ("data", "limit"), (name,), ("data",) if needs_data else ())


OF_CONTINUATION = ("text", "context", "max_length", "limit")
MEASURES = (
    Measure("validation text", "loss, perplexity and bits per byte of its own", ("context", "stride")),
    Measure("text file", "the same of any text", ("text", "context", "stride"), needed=("text",)),
    _task("lambada", "the last word of a passage"),
    _task("hellaswag", "which of four endings follows"),
    _task("hellaswag-completion", "the same as llm.c measures it"),
    _task("multiple-choice", "query, choices, gold", needs_data=True),
    _task("wikitext", "perplexity per word"),
    Measure(
        "completions",
        "BLEU, chrF, ROUGE of answers to prompts",
        ("data", "prompt_column", "reference_column", "max_length", "limit"),
        ("completions",),
        ("data",),
    ),
    Measure("continuation", "the same of continued text", OF_CONTINUATION, ("continuation",)),
    Measure("known answers", "what is published of GPT-2", ("data",), known_answers=True),
)
OPTIONAL = {
    ("continuation", "text"): "its validation text",
    ("continuation", "limit"): "50 windows",
    ("known answers", "data"): "from the Hub",
    ("completions", "max_length"): "100",
    ("completions", "prompt_column"): "prompt",
    ("completions", "reference_column"): "reference",
}
EMPTY = {
    "data": "from the Hub",
    "context": "as it was trained",
    "stride": "windows side by side",
    "max_length": "as the reference has",
    "limit": "all",
}


def placeholder(measure: Measure, field: str) -> str:
    """What an empty field stands for."""
    if field in measure.needed:
        return "needed"
    return OPTIONAL.get((measure.name, field), EMPTY.get(field, ""))
