"""Texts that a model writes, always with the most probable token, compared with what was written there.

The tasks `completions`, of prompts with references from a file, and `continuation`, of windows of a text: the first
half of each is continued and compared with the second.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from gpt2tui.device import Precision, autocast
from gpt2tui.errors import DataError
from gpt2tui.evaluation.tasks import TASKS, Row, Task, TaskResult
from gpt2tui.evaluation.text_scores import GROUPS, MEANINGS, text_scores
from gpt2tui.preset.schema import SamplingTable

if TYPE_CHECKING:
    from gpt2tui.data.joined_tokens import TokenSequence
    from gpt2tui.data.tokenizer_kinds import Tokenizer
    from gpt2tui.generation import TextModel

CONTINUED_WINDOWS = 50
"""How many windows of a text are continued unless a number is given."""
MAX_LENGTH = 100
"""The most tokens of a completion unless a number is given."""


EVALUATION_WINDOWS = 8
EVALUATION_LENGTH = 64


class Continued(NamedTuple):
    """The tokens to continue, the text that was written there, and the most tokens to write."""

    prompt: list[int]
    reference: str
    max_length: int


def complete(model: "TextModel", wanted: Iterable[Continued], precision: Precision) -> Iterator[tuple[str, str]]:
    """Each completion with its reference, both without the white space around them.

    The most probable token is taken each time; a completion ends with its document or at its `max_length`.
    """
    for each in wanted:
        sampling = SamplingTable(temperature=0.0, max_length=each.max_length)
        with autocast(model.device, precision):
            text = "".join(piece.text for piece in model.stream(each.prompt, sampling))
        yield text.strip(), each.reference.strip()


def scored(
    model: "TextModel", wanted: Iterable[Continued], precision: Precision, groups: Collection[str] = tuple(GROUPS)
) -> TaskResult:
    """The scores of the completions; those of a model that was given nothing to complete are empty."""
    pairs = list(complete(model, wanted, precision))
    if not pairs:
        return TaskResult(0, {}, {})
    scores = text_scores([text for text, _ in pairs], [reference for _, reference in pairs], groups)
    return TaskResult(len(pairs), dict(scores.metrics), {}, scores.signatures)


def halves(
    tokens: "TokenSequence", length: int, count: int, tokenizer: "Tokenizer", longest: int = 1 << 20
) -> list[Continued]:
    """Up to `count` windows of `length` tokens, spread evenly over a text and the same each time.

    The reference is the second half, up to the end of the document and `longest` tokens. A window that goes to another
    document where it is cut in two is left out.
    """
    windows = len(tokens) // length
    chosen = np.arange(min(count, windows)) * windows // max(1, min(count, windows))
    found = []
    for start in chosen * length:
        window = tokens[int(start) : int(start) + length].tolist()
        prompt, rest = window[: length // 2], window[length // 2 :]
        ending = rest.index(tokenizer.eot) if tokenizer.eot in rest else len(rest)
        if reference := tokenizer.decode(rest[: min(ending, longest)]).strip():
            found.append(Continued(prompt, reference, min(len(rest), longest)))
    return found


def from_rows(model: "TextModel", rows: Iterable[Row], columns: Sequence[str], max_length: int) -> Iterator[Continued]:
    """The prompts and references of rows, in the columns of these two names. Raises DataError for other rows."""
    for number, row in enumerate(rows, 1):
        for column in columns:
            if not isinstance(row.get(column), str):
                raise DataError(
                    f"row {number} has no text in the column {column}; its columns are {', '.join(map(str, row))}; "
                    "name those of prompts and references with --prompt-column and --reference-column"
                )
        prompt, reference = (row[column] for column in columns)
        yield Continued(model.prompt_tokens(prompt), reference, max_length)


def _completions(model: "TextModel", rows: Iterable[Row], precision: Precision) -> TaskResult:
    return scored(model, from_rows(model, rows, ("prompt", "reference"), MAX_LENGTH), precision)


COMPLETIONS = Task(
    "completions",
    "greedy completions of prompts against references",
    ("",),
    ("test", "validation", "val"),
    "",
    MEANINGS,
    _completions,
)
CONTINUATION = Task(
    "continuation",
    "the first half of windows of a text, continued greedily, against the second",
    (),
    (),
    "",
    MEANINGS,
    _completions,
)
ALL_TASKS: Mapping[str, Task] = {**TASKS, "completions": COMPLETIONS, "continuation": CONTINUATION}


def continuation_scores(
    model: "TextModel",
    tokens: "TokenSequence",
    precision: Precision,
    groups: Collection[str],
    stopping: Callable[[], bool],
) -> dict[str, float]:
    """The scores of a training's evaluations: of 8 windows of the validation text, each continued by 64 tokens at most.

    Empty once `stopping()`, and for a text shorter than a window.
    """
    windows = halves(tokens, model.context_length, EVALUATION_WINDOWS, model.tokenizer, EVALUATION_LENGTH)
    result = scored(model, takewhile(lambda _: not stopping(), windows), precision, groups)
    return {} if stopping() else result.metrics
