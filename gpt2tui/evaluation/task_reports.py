"""The scores of a model in tasks, of what it writes, and beside what is published of GPT-2."""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gpt2tui.data.examples import ExampleCorpus
from gpt2tui.data.token_store import tokenize
from gpt2tui.errors import CheckpointError, DataError, UsageError
from gpt2tui.evaluation import completions
from gpt2tui.evaluation.evaluated_corpus import open_evaluated_corpus, text_tokens
from gpt2tui.evaluation.known_answers import AGREES_WITHIN, Comparison, compare, known_answers
from gpt2tui.evaluation.report import Heading, Report, Watcher, number
from gpt2tui.evaluation.request import EvaluationRequest, chosen_tasks
from gpt2tui.evaluation.task_files import task_rows

if TYPE_CHECKING:
    from gpt2tui.data.tokenizer_kinds import Tokens
    from gpt2tui.evaluation.tasks import Task, TaskResult
    from gpt2tui.generation import TextModel

Measured = tuple["Task", str, "TaskResult"]
"""A task, where its rows come from, and the scores in it."""


def tasks_report(request: EvaluationRequest, model: "TextModel", watcher: Watcher) -> Report:
    """The scores in each task, a row for each of its metrics."""
    measured: list[Measured] = []
    for task in chosen_tasks(request.tasks):
        source, rows = task_rows(task, request.data)
        watcher.say(f"measuring {task.name}: {source}")
        rows = watcher.over(itertools.islice(rows, request.limit), f"rows of {task.name}")
        if task.name == "completions":
            result = _measure_completions(request, model, rows)
        else:
            result = task.measure(model, rows, request.precision)
        if not result.documents:
            raise DataError(f"{source} has no documents of the task {task.name}")
        measured.append((task, source, result))
    results = [
        {
            "task": task.name,
            "source": source,
            "documents": result.documents,
            "metrics": result.metrics,
            "standard_errors": result.standard_errors,
            "meanings": task.meanings,
            "signatures": result.signatures,
            "context": model.context_length,
            "precision": request.precision,
        }
        for task, source, result in measured
    ]
    document = {"checkpoint": model.source, "tasks": results}
    return _report(document, measured, f"{model.context_length:,} tokens, {request.precision}, zero-shot", model)


def _measure_completions(
    request: EvaluationRequest, model: "TextModel", rows: "Iterable[Mapping[str, Any]]"
) -> "TaskResult":
    columns = (request.prompt_column or "prompt", request.reference_column or "reference")
    wanted = completions.from_rows(model, rows, columns, request.max_length or completions.MAX_LENGTH)
    return completions.scored(model, wanted, request.precision)


def continuation_report(request: EvaluationRequest, model: "TextModel", watcher: Watcher) -> Report:
    """Scores the continuations of a text's windows: of a corpus, by default the model's own, or of a file."""
    assert request.context is not None
    texts: dict[str, Tokens]
    if request.text is not None:
        source, is_own, texts = request.text, None, {"text": text_tokens(request.text, model, watcher)}
    else:
        source, corpus, splits, is_own = open_evaluated_corpus(request, model, watcher)
        if isinstance(corpus, ExampleCorpus):
            raise UsageError(
                f"{source} holds prompts and answers, which are not continued; the task completions compares answers "
                "with those of a file"
            )
        texts = {split: tokenize(watcher.over(corpus.held_out_pieces(split), ""), model.tokenizer) for split in splits}
    measured: list[Measured] = []
    longest = request.max_length or request.context
    for name, tokens in texts.items():
        count = request.limit or completions.CONTINUED_WINDOWS
        windows = completions.halves(tokens, request.context, count, model.tokenizer, longest)
        if not windows:
            raise DataError(f"{source} has no window of {request.context:,} tokens to continue; choose less --context")
        what = f"the {name} split of {source}" if request.text is None else source
        watcher.say(f"continuing {len(windows):,} windows of {what}")
        where = f"{what}, not the model's own corpus" if is_own is False else what
        wanted = watcher.over(windows, "windows", len(windows))
        measured.append((completions.CONTINUATION, where, completions.scored(model, wanted, request.precision)))
    results = {
        name: {
            "documents": result.documents,
            "metrics": result.metrics,
            "signatures": result.signatures,
            "context": request.context,
            "precision": request.precision,
        }
        for name, (_, _, result) in zip(texts, measured, strict=True)
    }
    document = {
        "checkpoint": model.source,
        "task": "continuation",
        "source": source,
        "is_training_corpus": is_own,
        "meanings": completions.CONTINUATION.meanings,
        "splits": results,
    }
    half = request.context // 2
    return _report(document, measured, f"{half:,} tokens are continued, {request.precision}, greedy", model)


def _report(document: Any, measured: Sequence[Measured], how: str, model: "TextModel") -> Report:
    """A row for each metric, and below what each of them is."""
    right = (Heading("value", True), Heading("±", True), Heading("documents", True))
    rows = tuple(
        (task.name, name, number(value), number(result.standard_errors.get(name)), f"{result.documents:,}")
        for task, _, result in measured
        for name, value in result.metrics.items()
    )
    notes = [""]
    for task, source, result in measured:
        notes.append(f"{task.name}: {task.description}; {source}")
        for name, meaning in task.meanings.items():
            signature = result.signatures.get(name)
            notes.append(f"  {name}: {meaning}" + (f"; {signature}" if signature else ""))
    lines = (f"checkpoint  {model.source}", f"context     {how}", "")
    return Report(document, lines, (Heading("task"), Heading("metric"), *right), rows, tuple(notes))


# ---- what is published of GPT-2


def known_answers_report(request: EvaluationRequest, watcher: Watcher, load: "Callable[[], TextModel]") -> Report:
    """What is published, measured, the difference and a verdict.

    Its failure is a CheckpointError where the model is missing, a DataError where nothing could be measured.
    """
    try:
        model = load()
    except CheckpointError as error:
        unknown = [Comparison(answer, None, None, "not measured: the model is missing") for answer in known_answers()]
        return _comparison_report(request, unknown, error)
    comparisons = []
    for comparison in compare(model, request.data, request.precision, watcher):
        answer = comparison.answer
        watcher.say(f"{answer.task} {answer.metric} ({answer.how}): {comparison.verdict}")
        comparisons.append(comparison)
    failure = None
    if all(each.measured is None for each in comparisons):
        failure = DataError(
            "nothing was measured, because the data of the tasks is missing; name its folder with --data"
        )
    return _comparison_report(request, comparisons, failure)


def _comparison_report(
    request: EvaluationRequest, comparisons: Sequence[Comparison], failure: CheckpointError | DataError | None
) -> Report:
    headings = (
        *map(Heading, ("model", "task", "metric")),
        *(Heading(name, True) for name in ("published", "measured", "difference")),
        Heading("verdict"),
    )
    rows = tuple(
        (
            each.answer.model,
            each.answer.task,
            each.answer.metric,
            number(each.answer.value),
            number(each.measured),
            "" if each.difference is None else f"{each.difference:+.4g}",
            each.verdict.partition(":")[0],
        )
        for each in comparisons
    )
    notes = ["", f"agrees: within {AGREES_WITHIN:.0%} of the published number; measured in {request.precision}"]
    hows = (f"{e.answer.task} {e.answer.metric}: {e.answer.how} ({e.answer.source})" for e in comparisons)
    notes += [f"  {how}" for how in dict.fromkeys(hows)]
    reasons: dict[str, list[str]] = {}
    for each in comparisons:
        if each.measured is None:
            reasons.setdefault(each.verdict, []).append(each.answer.task)
    notes += [f"{', '.join(dict.fromkeys(tasks))}: {reason}" for reason, tasks in reasons.items()]
    document = [_as_dict(each, request.precision) for each in comparisons]
    return Report(document, (), headings, rows, tuple(notes), failure)


def _as_dict(each: Comparison, precision: str) -> dict[str, Any]:
    answer = each.answer
    return {
        "model": answer.model,
        "task": answer.task,
        "metric": answer.metric,
        "how": answer.how,
        "source": answer.source,
        "published": answer.value,
        "published_error": answer.error,
        "measured": each.measured,
        "difference": each.difference,
        "documents": each.documents,
        "precision": precision,
        "verdict": each.verdict,
    }
