"""Tasks in their published file layouts: LAMBADA, HellaSwag, multiple choice, WikiText by words.

A model answers nothing here. It gives each continuation of a context a log-probability, and a task compares those.
Contexts, continuations and windows are those of EleutherAI's lm-evaluation-harness, zero-shot, except where a task
says otherwise. One difference: where several choices are equally good, none is chosen, and the answer is wrong.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gpt2tui.data.hub import is_article_title
from gpt2tui.device import Precision, autocast
from gpt2tui.errors import DataError
from gpt2tui.evaluation.perplexity import padded_batch, rolling_windows, window_batches
from gpt2tui.evaluation.validation import perplexity, validation_loss

if TYPE_CHECKING:
    from gpt2tui.data.tokenizer_kinds import Tokenizer
    from gpt2tui.generation import TextModel

Row = Mapping[str, Any]
Metrics = dict[str, float]
Measure = Callable[["TextModel", Iterable[Row], Precision], "TaskResult"]
"""Raises DataError for a row that is not in the task's layout."""
Rank = Callable[["Score", str], float]
"""How good a choice is by its score and its text."""
DOCUMENTS_AT_ONCE = 8


@dataclass(frozen=True)
class Score:
    """What a model gives one continuation of a context."""

    log_probability: float
    """Natural logarithm, summed over the tokens of the continuation."""
    tokens: int
    is_greedy: bool
    """Whether each of its tokens is the single most probable one at its place."""


@dataclass(frozen=True)
class Question:
    """A context with its possible continuations, and the index of the right one."""

    context: str
    choices: tuple[str, ...]
    answer: int
    separate_tokens: bool = False
    """Whether context and continuation are tokenized each by itself, not together."""


QuestionOf = Callable[[Row], Question]


@dataclass(frozen=True)
class TaskResult:
    """The scores of a model in a task."""

    documents: int
    metrics: Metrics
    standard_errors: Metrics
    """Of the metrics that are means over the documents; NaN for a single document."""
    signatures: Mapping[str, str] = field(default_factory=dict)
    """What the package that measures a metric calls its way of measuring."""


@dataclass(frozen=True)
class Task:
    """A published task: where its rows are found, and how a model is measured with them."""

    name: str
    description: str
    files: tuple[str, ...]
    """Beginnings of the names of its files, as they are published."""
    splits: tuple[str, ...]
    """Names of the split that is measured."""
    hub: str
    """The data set on the Hugging Face Hub, id or id:configuration; empty where there is none."""
    meanings: Mapping[str, str]
    """What each metric is and what it is divided by."""
    measure: Measure


# ---- Scoring


def encode_pair(tokenizer: "Tokenizer", question: Question, choice: str) -> tuple[list[int], list[int]]:
    """The tokens of a context and of its continuation.

    They are tokenized together and cut where the context alone ends; spaces at the end of a context belong to the
    continuation. An empty context is `<|endoftext|>`.
    """
    context = question.context.rstrip()
    continuation = question.context[len(context) :] + choice
    before = tokenizer.encode(context)
    if question.separate_tokens:
        before, after = tokenizer.encode(question.context), tokenizer.encode(choice)
    else:
        after = tokenizer.encode(context + continuation)[len(before) :]
    return before or [tokenizer.eot], after


@torch.inference_mode()
def score(
    model: "TextModel", pairs: Sequence[tuple[Sequence[int], Sequence[int]]], precision: Precision = "fp32"
) -> list[Score]:
    """Scores each continuation; contexts lose their beginning where both together exceed the model's context.

    Raises DataError for a continuation without tokens, or longer than the context.
    """
    size = model.context_length + 1
    for _, after in pairs:
        if not 0 < len(after) < size:
            raise DataError(f"a continuation has {len(after)} tokens; the model reads from 1 to {size - 1:,}")
    sequences = [[*before, *after][-size:] for before, after in pairs]
    inputs, targets = padded_batch(sequences, [len(after) for _, after in pairs])
    device = model.device
    with autocast(device, precision):
        hidden = model.model.hidden(inputs.to(device))  # (B, T, C)
    scores = []
    for row, wanted in zip(hidden, targets.to(device), strict=True):
        counted = wanted >= 0
        with autocast(device, precision):
            logits = model.model.logits(row[counted])  # (n, V)
        log_probabilities = logits.float().log_softmax(-1)
        own = log_probabilities.gather(-1, wanted[counted][:, None])  # (n, 1)
        is_best = (log_probabilities >= own).sum(-1) == 1  # no other is as probable
        scores.append(Score(float(own.double().sum()), len(own), bool(is_best.all())))
    return scores


def _scored_questions(
    question_of: QuestionOf, model: "TextModel", rows: Iterable[Row], precision: Precision
) -> Iterator[tuple[Question, list[Score]]]:
    """Each row as a question, with the scores of its choices."""
    questions = (_checked(question_of, row, number) for number, row in enumerate(rows, 1))
    while chosen := list(islice(questions, DOCUMENTS_AT_ONCE)):
        pairs = [encode_pair(model.tokenizer, q, choice) for q in chosen for choice in q.choices]
        scores = iter(score(model, pairs, precision))
        for question in chosen:
            yield question, list(islice(scores, len(question.choices)))


def _checked(question_of: QuestionOf, row: Row, number: int) -> Question:
    """The question of a row. Raises DataError where the row is not in the task's layout."""
    try:
        question = question_of(row)
        if not 0 <= question.answer < len(question.choices):
            raise ValueError(f"the answer {question.answer} is none of {len(question.choices)} choices")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        why = f"it has no {error.args[0]}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"row {number} is not in the layout of this task: {why}") from error
    return question


# ---- What is measured


def _last_word(model: "TextModel", rows: Iterable[Row], precision: Precision, *, question_of: QuestionOf) -> TaskResult:
    """Accuracy and perplexity of the only continuation."""
    scores = [each[0] for _, each in _scored_questions(question_of, model, rows, precision)]
    accuracy, error = _mean([float(each.is_greedy) for each in scores])
    log_probability, deviation = _mean([each.log_probability for each in scores])
    value = perplexity(-log_probability)
    # The error of exp(-x) is exp(-x) times that of x.
    return TaskResult(
        len(scores), {"acc": accuracy, "perplexity": value}, {"acc": error, "perplexity": value * deviation}
    )


def _choice(
    model: "TextModel",
    rows: Iterable[Row],
    precision: Precision,
    *,
    question_of: QuestionOf,
    ranks: Mapping[str, Rank],
) -> TaskResult:
    """How often the right choice ranks highest, for each way of ranking."""
    correct: dict[str, list[float]] = {name: [] for name in ranks}
    for question, scores in _scored_questions(question_of, model, rows, precision):
        for name, rank in ranks.items():
            values = [rank(each, text.removeprefix(" ")) for each, text in zip(scores, question.choices, strict=True)]
            correct[name].append(float(is_best(values, question.answer)))
    means = {name: _mean(hits) for name, hits in correct.items()}
    documents = len(next(iter(correct.values())))
    return TaskResult(documents, {name: m for name, (m, _) in means.items()}, {n: e for n, (_, e) in means.items()})


def by_sum(each: Score, _: str) -> float:
    """The sum of the log-probabilities."""
    return each.log_probability


def by_characters(each: Score, text: str) -> float:
    """The sum divided by the characters of the choice, without the space before it."""
    return each.log_probability / max(len(text), 1)


def by_mean_loss(each: Score, _: str) -> float:
    """The mean over the tokens, which is the negative of the mean loss."""
    return each.log_probability / each.tokens


def is_best(values: Sequence[float], answer: int) -> bool:
    """Whether the answer's value is the highest and no other equals it."""
    return all(values[answer] > value for i, value in enumerate(values) if i != answer)


def _rolling(model: "TextModel", rows: Iterable[Row], precision: Precision) -> TaskResult:
    """The loss over whole documents, each from `<|endoftext|>` on, divided by the words and bytes of the original."""
    nats, documents, words, tokens, size = 0.0, 0, 0, 0, 0
    for page in pages(rows):
        ids = model.tokenizer.encode_array(detokenized(page))
        sequence = np.concatenate([np.array([model.tokenizer.eot], dtype=ids.dtype), ids])
        batches = window_batches(sequence, rolling_windows(len(sequence), model.context_length), DOCUMENTS_AT_ONCE)
        loss = validation_loss(model.model, batches, model.tokenizer.token_bytes(), precision)
        nats, documents, tokens = nats + loss.nats, documents + 1, tokens + loss.tokens
        words, size = words + len(re.split(r"\s+", page)), size + len(page.encode())
    if not tokens:
        return TaskResult(documents, {}, {})
    metrics = {
        "word_perplexity": perplexity(nats / words),
        "token_perplexity": perplexity(nats / tokens),
        "bits_per_byte": nats / math.log(2) / size,
    }
    return TaskResult(documents, metrics, {})


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """The mean and its standard error; NaN without values, an error of NaN with one."""
    n = len(values)
    mean = math.fsum(values) / n if n else math.nan
    if n < 2:
        return mean, math.nan
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)


# ---- The layouts


def _lambada(row: Row) -> Question:
    """The text up to its last space, and the word after it with that space."""
    context, _, word = row["text"].rpartition(" ")
    return Question(context, (f" {word}",), 0)


def _hellaswag(row: Row) -> Question:
    context = f"{row['ctx_a']} {row['ctx_b'].capitalize()}"
    endings = tuple(f" {without_brackets(ending)}" for ending in row["endings"])
    return Question(without_brackets(f"{row['activity_label']}: {context}"), endings, int(row["label"]))


def without_brackets(text: str) -> str:
    """The text of WikiHow without `[title]`, `[step]` and other marks in brackets."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def _hellaswag_completion(row: Row) -> Question:
    return Question(row["ctx"], tuple(f" {ending}" for ending in row["endings"]), int(row["label"]), True)


def _multiple_choice(row: Row) -> Question:
    return Question(row["query"], tuple(f" {choice}" for choice in row["choices"]), int(row["gold"]))


def pages(rows: Iterable[Row]) -> Iterator[str]:
    """The articles of WikiText: rows with a `page`, or lines in the column `text`, joined from title to title."""
    article: list[str] = []
    for number, row in enumerate(rows, 1):
        text = row.get("page", row.get("text"))
        if not isinstance(text, str):
            raise DataError(f"row {number} is not in the layout of this task: it has no text in page or text")
        if "page" in row:
            yield text
            continue
        line = text or " \n"  # the data set of the Hub stores empty lines as nothing
        if is_article_title(line) and any(part.strip() for part in article):
            yield "".join(article)
            article = []
        article.append(line)
    if any(part.strip() for part in article):
        yield "".join(article)


_NUMBERS = ((" @-@ ", "-"), (" @,@ ", ","), (" @.@ ", "."))
_PUNCTUATION = tuple((f" {mark} ", f"{mark} ") for mark in ":;.!?,")
_PAIRS = (r"\(", r"\)"), (r"\[", r"\]"), ("{", "}"), ('"', '"'), ("'", "'")
_REST = (
    ("= = = =", "===="),
    ("= = =", "==="),
    ("= =", "=="),
    (" \N{DEGREE SIGN} ", "\N{DEGREE SIGN}"),
    (" \n", "\n"),
    ("\n ", "\n"),
    (" N ", " 1 "),
    (" 's", "'s"),
)


def detokenized(page: str) -> str:
    """WikiText's words as ordinary text, by the rules of lm-evaluation-harness, in their order."""
    page = page.replace("s '", "s'")
    page = re.sub(r"/' [0-9]/", "/'[0-9]/", page)  # a slip in the original, kept to be equal to it
    for old, new in (*_NUMBERS, *_PUNCTUATION):
        page = page.replace(old, new)
    for opening, closing in _PAIRS:
        inside = rf"{opening}\s*([^{closing}]*?)\s*{closing}"
        page = re.sub(inside, rf"{opening[-1]}\1{closing[-1]}", page)
    for old, new in _REST:
        page = page.replace(old, new)
    return page


_BY_SUM = "the choice with the highest sum of log-probabilities is right"
_BY_CHARACTERS = "the same with the sum divided by the characters of the choice"
_BY_MEAN_LOSS = "the choice with the lowest mean loss per token is right"

_ALL = (
    Task(
        "lambada",
        "the last word of a passage (Paperno et al. 2016; OpenAI's variant)",
        ("lambada",),
        ("test",),
        "EleutherAI/lambada_openai",
        {
            "acc": "all tokens of the last word are the most probable ones; no stop-word filter",
            "perplexity": "per last word: exp of the mean over the documents of its negative log-probability",
        },
        partial(_last_word, question_of=_lambada),
    ),
    Task(
        "hellaswag",
        "which of four endings follows (Zellers et al. 2019)",
        ("hellaswag",),
        ("validation", "val"),
        "Rowan/hellaswag",
        {"acc": _BY_SUM, "acc_norm": _BY_CHARACTERS},
        partial(_choice, question_of=_hellaswag, ranks={"acc": by_sum, "acc_norm": by_characters}),
    ),
    Task(
        "hellaswag-completion",
        "HellaSwag as llm.c measures it: the context without its label, tokenized apart from the ending",
        ("hellaswag",),
        ("validation", "val"),
        "Rowan/hellaswag",
        {"acc": _BY_SUM, "acc_norm": _BY_MEAN_LOSS},
        partial(_choice, question_of=_hellaswag_completion, ranks={"acc": by_sum, "acc_norm": by_mean_loss}),
    ),
    Task(
        "multiple-choice",
        "questions in the layout of the CORE tasks: query, choices, gold",
        ("",),
        ("test", "validation", "val"),
        "",
        {"acc": _BY_MEAN_LOSS},
        partial(_choice, question_of=_multiple_choice, ranks={"acc": by_mean_loss}),
    ),
    Task(
        "wikitext",
        "Wikipedia articles (Merity et al. 2016) as ordinary text, each from <|endoftext|> on",
        ("wikitext", "wiki."),
        ("test",),
        "EleutherAI/wikitext_document_level:wikitext-2-raw-v1",
        {
            "word_perplexity": "per word of the original text, which white space separates",
            "token_perplexity": "per token of the model's tokenizer",
            "bits_per_byte": "by the bytes of the original text",
        },
        _rolling,
    ),
)
TASKS: Mapping[str, Task] = {task.name: task for task in _ALL}
