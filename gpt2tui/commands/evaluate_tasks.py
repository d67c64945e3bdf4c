"""`gpt2tui eval CHECKPOINT TASK...` and `--known-answers`: scores in published tasks, and the published scores."""

import argparse
import difflib
import itertools
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2tui.commands.evaluated_corpus import open_evaluated_corpus, text_tokens
from gpt2tui.commands.tables import Column, print_json, print_table
from gpt2tui.errors import CheckpointError, DataError, UsageError
from gpt2tui.system.terminal_text import print_on_stderr, printable, sanitize

if TYPE_CHECKING:
    from gpt2tui.data.tokenizer_kinds import Tokens
    from gpt2tui.evaluation.known_answers import Comparison
    from gpt2tui.evaluation.tasks import Task, TaskResult
    from gpt2tui.generation import TextModel


def chosen_tasks(names: list[str]) -> "list[Task]":
    """The tasks of these names, each once.

    Raises UsageError with the nearest name for one that does not exist, or when it needs packages that are missing.
    """
    from gpt2tui.evaluation.completions import ALL_TASKS, COMPLETIONS, CONTINUATION
    from gpt2tui.evaluation.text_scores import GROUPS, require_packages

    for name in names:
        if name not in ALL_TASKS:
            near = difflib.get_close_matches(name[:50], ALL_TASKS, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"the tasks are {', '.join(ALL_TASKS)}"
            if Path(name).exists():
                hint = f"a text to measure is --text {printable(name, 200)}"
            raise UsageError(f"there is no task {printable(name, 60)}; {hint}")
    if {COMPLETIONS.name, CONTINUATION.name} & set(names):
        require_packages(GROUPS)
    return [ALL_TASKS[name] for name in dict.fromkeys(names)]


def evaluate_tasks(options: argparse.Namespace, model: "TextModel") -> int:
    """Measures each task and prints a row for each of its metrics."""
    from gpt2tui.evaluation.task_files import task_rows

    measured: list[tuple[Task, str, TaskResult]] = []
    for task in chosen_tasks(options.tasks):
        source, rows = task_rows(task, options.data)
        print_on_stderr(f"measuring {task.name}: {source}")
        rows = itertools.islice(rows, options.limit)
        if task.name == "completions":
            result = _measure_completions(options, model, rows)
        else:
            result = task.measure(model, rows, options.precision)
        if not result.documents:
            raise DataError(f"{source} has no documents of the task {task.name}")
        measured.append((task, source, result))
    if options.json:
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
                "precision": options.precision,
            }
            for task, source, result in measured
        ]
        print_json({"checkpoint": model.source, "tasks": results})
        return 0
    _print_tasks(measured, f"{model.context_length:,} tokens, {options.precision}, zero-shot", model)
    return 0


def _measure_completions(
    options: argparse.Namespace, model: "TextModel", rows: "Iterable[Mapping[str, Any]]"
) -> "TaskResult":
    from gpt2tui.evaluation import completions

    columns = (options.prompt_column or "prompt", options.reference_column or "reference")
    wanted = completions.from_rows(model, rows, columns, options.max_length or completions.MAX_LENGTH)
    return completions.scored(model, wanted, options.precision)


def evaluate_continuation(options: argparse.Namespace, model: "TextModel") -> int:
    """Scores the continuations of a text's windows: of a corpus, by default the model's own, or of --text."""
    from gpt2tui.data.examples import ExampleCorpus
    from gpt2tui.data.token_store import tokenize
    from gpt2tui.evaluation import completions

    texts: dict[str, Tokens]
    if options.text is not None:
        source, is_own, texts = options.text, None, {"text": text_tokens(options.text, model)}
    else:
        source, corpus, splits, is_own = open_evaluated_corpus(options, model)
        if isinstance(corpus, ExampleCorpus):
            raise UsageError(
                f"{source} holds prompts and answers, which are not continued; the task completions compares answers "
                "with those of a file"
            )
        texts = {split: tokenize(corpus.held_out_pieces(split), model.tokenizer) for split in splits}
    measured: list[tuple[Task, str, TaskResult]] = []
    longest = options.max_length or options.context
    for name, tokens in texts.items():
        count = options.limit or completions.CONTINUED_WINDOWS
        windows = completions.halves(tokens, options.context, count, model.tokenizer, longest)
        if not windows:
            raise DataError(f"{source} has no window of {options.context:,} tokens to continue; choose less --context")
        what = f"the {name} split of {source}" if options.text is None else source
        print_on_stderr(f"continuing {len(windows):,} windows of {what}")
        where = f"{what}, not the model's own corpus" if is_own is False else what
        measured.append((completions.CONTINUATION, where, completions.scored(model, windows, options.precision)))
    if options.json:
        results = {
            name: {
                "documents": result.documents,
                "metrics": result.metrics,
                "signatures": result.signatures,
                "context": options.context,
                "precision": options.precision,
            }
            for name, (_, _, result) in zip(texts, measured, strict=True)
        }
        print_json(
            {
                "checkpoint": model.source,
                "task": "continuation",
                "source": source,
                "is_training_corpus": is_own,
                "meanings": completions.CONTINUATION.meanings,
                "splits": results,
            }
        )
        return 0
    half = options.context // 2
    _print_tasks(measured, f"{half:,} tokens are continued, {options.precision}, greedy", model)
    return 0


def _print_tasks(measured: "list[tuple[Task, str, TaskResult]]", how: str, model: "TextModel") -> None:
    """A row for each metric, and below what each of them is."""
    print(f"checkpoint  {sanitize(model.source)}\ncontext     {how}\n")
    columns = [Column("task"), Column("metric"), Column("value", right=True), Column("±", right=True)]
    rows = [
        (task.name, name, _number(value), _number(result.standard_errors.get(name)), f"{result.documents:,}")
        for task, _, result in measured
        for name, value in result.metrics.items()
    ]
    print_table([*columns, Column("documents", right=True)], rows)
    print()
    for task, source, result in measured:
        print(f"{task.name}: {task.description}; {sanitize(source)}")
        for name, meaning in task.meanings.items():
            signature = result.signatures.get(name)
            print(f"  {name}: {meaning}" + (f"; {signature}" if signature else ""))


def evaluate_known_answers(options: argparse.Namespace) -> int:
    """Prints what is published, measured, the difference and a verdict.

    Raises CheckpointError where the model is missing, DataError where nothing could be measured; both after the table.
    """
    from gpt2tui import generation
    from gpt2tui.evaluation.known_answers import Comparison, compare, known_answers

    try:
        model = generation.load(options.checkpoint, options.device, precision="fp32")
    except CheckpointError:
        _print_comparisons(
            options,
            [Comparison(answer, None, None, "not measured: the model is missing") for answer in known_answers()],
        )
        raise
    comparisons = []
    for comparison in compare(model, options.data, options.precision):
        answer = comparison.answer
        print_on_stderr(f"{answer.task} {answer.metric} ({answer.how}): {comparison.verdict}")
        comparisons.append(comparison)
    _print_comparisons(options, comparisons)
    if all(each.measured is None for each in comparisons):
        raise DataError("nothing was measured, because the data of the tasks is missing; name its folder with --data")
    return 0


def _print_comparisons(options: argparse.Namespace, comparisons: "Iterable[Comparison]") -> None:
    from gpt2tui.evaluation.known_answers import AGREES_WITHIN

    if options.json:
        print_json([_as_dict(each, options.precision) for each in comparisons])
        return
    right = [Column(name, right=True) for name in ("published", "measured", "difference")]
    columns = [
        Column("model"),
        Column("task"),
        Column("metric"),
        *right,
        Column("verdict"),
    ]
    rows = [
        (
            each.answer.model,
            each.answer.task,
            each.answer.metric,
            _number(each.answer.value),
            _number(each.measured),
            "" if each.difference is None else f"{each.difference:+.4g}",
            each.verdict.partition(":")[0],
        )
        for each in comparisons
    ]
    print_table(columns, rows)
    print(f"\nagrees: within {AGREES_WITHIN:.0%} of the published number; measured in {options.precision}")
    for how in dict.fromkeys(
        f"{e.answer.task} {e.answer.metric}: {e.answer.how} ({e.answer.source})" for e in comparisons
    ):
        print(f"  {how}")
    reasons: dict[str, list[str]] = {}
    for each in comparisons:
        if each.measured is None:
            reasons.setdefault(each.verdict, []).append(each.answer.task)
    for reason, tasks in reasons.items():
        print(sanitize(f"{', '.join(dict.fromkeys(tasks))}: {reason}"))


def _as_dict(each: "Comparison", precision: str) -> dict[str, Any]:
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


def _number(value: float | None) -> str:
    """Four digits after the point below 10, else two; empty where it is not known."""
    if value is None or math.isnan(value):
        return ""
    return f"{value:.4f}" if abs(value) < 10 else f"{value:,.2f}"
