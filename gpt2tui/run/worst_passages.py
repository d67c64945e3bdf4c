"""`worst.json` in a run folder: the validation windows with the highest loss at the last evaluation."""

import json
import os
from dataclasses import asdict, dataclass
from typing import Any

from gpt2tui.errors import UsageError
from gpt2tui.run.folder import Run
from gpt2tui.system.files import LARGEST_JSON_BYTES, open_regular, replace_text
from gpt2tui.system.numbers import as_json

FILE_NAME = "worst.json"
VERSION = 1
MOST = 10
"""How many windows are kept."""


@dataclass(frozen=True)
class Passage:
    """A window of the validation text, token by token. The lists have an entry for each token."""

    loss: float
    """Mean over the tokens that count, in nats per token."""
    tokens: list[int]
    texts: list[str]
    """Empty while a character is incomplete."""
    losses: list[float | None]
    """In nats; None for the first, which nothing predicts, and for those that do not count, as prompts."""
    expected: list[str | None]
    """The most probable token in its place; None where the loss is."""

    def most_surprising(self, count: int) -> list[int]:
        """The indices of the tokens with the highest losses, the highest first."""
        known = [(loss, index) for index, loss in enumerate(self.losses) if loss is not None]
        return [index for _, index in sorted(known, key=lambda pair: (-pair[0], pair[1]))[:count]]


@dataclass(frozen=True)
class WorstPassages:
    """The passages of an evaluation, the highest loss first; `whole` as in its event."""

    step: int
    whole: bool
    passages: list[Passage]

    def as_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {"v": VERSION, **asdict(self)}


def write_worst_passages(run: Run, worst: WorstPassages) -> None:
    """Replaces the file. Raises OSError."""
    replace_text(run.folder / FILE_NAME, as_json(worst.as_dict()) + "\n")


def read_worst_passages(run: Run) -> WorstPassages:
    """The passages that are kept. Raises UsageError when there are none, or the file is damaged."""
    path = run.folder / FILE_NAME
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            content = file.read(LARGEST_JSON_BYTES + 1)
        if len(content) > LARGEST_JSON_BYTES:
            raise ValueError("it is too large")
        record = json.loads(content)
        if record["v"] != VERSION:
            raise ValueError(f"its version is {record['v']!r}")
        passages = [_passage(entry) for entry in record["passages"]]
        return WorstPassages(int(record["step"]), bool(record["whole"]), passages)
    except FileNotFoundError:
        raise UsageError(
            f"{run.name} has no worst passages yet: they are kept at each evaluation of a training, "
            f"in {FILE_NAME} of its folder"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read ({error}); the next evaluation replaces it") from error


def _passage(entry: dict[str, Any]) -> Passage:
    """Raises KeyError, TypeError or ValueError for what is none."""
    passage = Passage(
        float(entry["loss"]),
        [int(token) for token in entry["tokens"]],
        [str(text) for text in entry["texts"]],
        [None if loss is None else float(loss) for loss in entry["losses"]],
        [None if text is None else str(text) for text in entry["expected"]],
    )
    if len({len(passage.tokens), len(passage.texts), len(passage.losses), len(passage.expected)}) != 1:
        raise ValueError("a passage has lists of different lengths")
    return passage
