"""Published numbers of GPT-2, and what this program measures in the same way: assets/known_answers.toml."""

import importlib.resources
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gpt2tui.errors import DataError
from gpt2tui.evaluation.perplexity import strided_windows, window_batches
from gpt2tui.evaluation.report import Watcher
from gpt2tui.evaluation.task_files import task_rows
from gpt2tui.evaluation.tasks import TASKS, Row, Task, TaskResult
from gpt2tui.evaluation.validation import validation_loss

if TYPE_CHECKING:
    from gpt2tui.device import Precision
    from gpt2tui.generation import TextModel

SIZES = {124_439_808: "124M", 354_823_168: "355M", 774_030_080: "774M", 1_557_611_200: "1558M"}
"""The published models by their number of parameters."""
AGREES_WITHIN = 0.01
"""A measured value agrees when it differs by at most this share of the published one."""
WINDOWS_AT_ONCE = 4


@dataclass(frozen=True)
class KnownAnswer:
    """A published number, and how to measure it."""

    model: str
    task: str
    metric: str
    value: float
    how: str
    """Prompt layout, normalisation and windows, which the number depends on."""
    source: str
    error: float | None = None
    measure: dict[str, Any] | None = None
    """The task of this program and its metric, or windows (context, stride); None where it cannot be measured."""
    missing: str = ""
    """Why it cannot be measured."""


@dataclass(frozen=True)
class Comparison:
    """A published number beside the measured one."""

    answer: KnownAnswer
    measured: float | None
    documents: int | None
    verdict: str
    """agrees, differs, or why nothing was measured."""

    @property
    def difference(self) -> float | None:
        """Measured minus published."""
        return None if self.measured is None else self.measured - self.answer.value


def known_answers() -> list[KnownAnswer]:
    """All published numbers, in the order of the file; one for each model."""
    text = (importlib.resources.files("gpt2tui") / "assets" / "known_answers.toml").read_text(encoding="utf-8")
    answers = []
    for entry in tomllib.loads(text)["answer"]:
        models, values = entry.pop("model"), entry.pop("value")
        pairs = zip(models, values, strict=True) if isinstance(models, list) else [(models, values)]
        answers += [KnownAnswer(model=model, value=value, **entry) for model, value in pairs]
    return answers


def compare(model: "TextModel", data: str | None, precision: "Precision", watcher: Watcher) -> Iterator[Comparison]:
    """The published numbers of this model's size beside the measured ones; each task is measured once.

    `data` is a folder with the tasks' files, else each comes from the Hugging Face Hub. A task whose data is missing
    has no measured value, and its verdict says what is missing. Raises DataError for a model of another size.
    """
    size = SIZES.get(model.num_parameters)
    if size is None:
        raise DataError(
            f"{model.source} has {model.num_parameters:,} parameters; numbers are published for GPT-2 with "
            f"{', '.join(f'{count:,}' for count in SIZES)}"
        )
    results: dict[tuple[str, ...], TaskResult | str] = {}
    for answer in known_answers():
        if answer.model != size:
            continue
        if answer.measure is None:
            yield Comparison(answer, None, None, f"not measured: {answer.missing}")
            continue
        wanted = answer.measure
        key = tuple(str(wanted.get(name)) for name in ("task", "splits", "context", "stride"))
        if key not in results:
            try:
                results[key] = _measured(model, wanted, data, precision, watcher)
            except DataError as error:
                results[key] = str(error)
        yield _judged(answer, results[key])


def _judged(answer: KnownAnswer, result: TaskResult | str) -> Comparison:
    """The comparison of an answer with a result, or with the reason why there is none."""
    if isinstance(result, str):
        return Comparison(answer, None, None, f"not measured: {result}")
    assert answer.measure is not None
    value = result.metrics.get(answer.measure.get("metric", "token_perplexity"))
    if value is None:
        return Comparison(answer, None, result.documents, "not measured: its file has no documents")
    agrees = abs(value - answer.value) <= AGREES_WITHIN * answer.value
    return Comparison(answer, value, result.documents, "agrees" if agrees else "differs")


def _measured(
    model: "TextModel", wanted: dict[str, Any], data: str | None, precision: "Precision", watcher: Watcher
) -> TaskResult:
    """Raises DataError when the task's data is missing or not in its layout."""
    if wanted["task"] in TASKS:
        task = TASKS[wanted["task"]]
        rows = watcher.over(task_rows(task, data)[1], f"rows of {task.name}")
        return task.measure(model, rows, precision)
    task = replace(WIKITEXT_2, splits=tuple(wanted.get("splits", WIKITEXT_2.splits)))
    rows = task_rows(task, data)[1]
    return joined_perplexity(model, rows, wanted["context"], wanted["stride"], precision, watcher)


def joined_perplexity(
    model: "TextModel", rows: Iterable[Row], context: int, stride: int, precision: "Precision", watcher: Watcher
) -> TaskResult:
    """Perplexity per token of lines joined by two newlines to one text, in windows as transformers cuts them.

    `rows` are the lines of WikiText with their line ends; empty lines count as nothing between two newlines. Raises
    DataError for rows without text.
    """
    lines = []
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get("text"), str):
            raise DataError(f"row {number} has no text; this needs the lines of WikiText in the column text")
        lines.append(row["text"] if row["text"].strip() else "")
    ids = model.tokenizer.encode_array("\n\n".join(lines))
    if len(ids) < 2:
        return TaskResult(0, {}, {})
    context = min(context, model.model.config.n_positions)
    windows = strided_windows(len(ids), context, min(stride, context))
    batches = window_batches(np.asarray(ids), watcher.over(windows, "windows of WikiText"), WINDOWS_AT_ONCE)
    loss = validation_loss(model.model, batches, model.tokenizer.token_bytes(), precision)
    return TaskResult(1, {"token_perplexity": loss.perplexity}, {})


WIKITEXT_2 = Task(
    "wikitext-2",
    "the lines of WikiText-2 as one text",
    ("wikitext", "wiki."),
    ("test",),
    "Salesforce/wikitext:wikitext-2-raw-v1",
    {"token_perplexity": "per token of the model's tokenizer"},
    lambda model, rows, precision: joined_perplexity(model, rows, 1024, 1024, precision, Watcher()),
)
