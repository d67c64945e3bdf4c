"""Measures what is asked for of a model, for `gpt2tui eval` and for the Evaluate page of the workbench."""

from dataclasses import replace
from typing import TYPE_CHECKING

from gpt2tui.device import is_out_of_memory
from gpt2tui.errors import DataError, ResourceError, UsageError, first_line
from gpt2tui.evaluation.loss_report import corpus_report, text_report
from gpt2tui.evaluation.report import Report, Watcher
from gpt2tui.evaluation.request import EvaluationRequest
from gpt2tui.evaluation.task_reports import continuation_report, known_answers_report, tasks_report
from gpt2tui.generation import load

if TYPE_CHECKING:
    from gpt2tui.generation import GpuUse, TextModel


def measure(request: EvaluationRequest, watcher: Watcher, gpu: "GpuUse" = "all") -> Report:
    """Loads the model and measures it; `gpu` as in `generation.load`. Raises Gpt2TuiError."""
    try:
        return _measure(request, watcher, gpu)
    except DataError as error:  # which names the setting of a preset
        raise DataError(str(error).replace("data.text_column", "--text-column")) from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise ResourceError(
            f"out of memory while measuring {request.checkpoint} ({first_line(error)[:200]}); measure it on the CPU "
            "with --device cpu, or its text with less --context"
        ) from error


def _measure(request: EvaluationRequest, watcher: Watcher, gpu: "GpuUse") -> Report:
    request.check()

    def loaded() -> "TextModel":
        model = load(request.checkpoint, request.device, "fp32", gpu, TEXTS_AT_ONCE)
        watcher.loaded(model)
        if model.placement_note:
            watcher.warn(f"{model.source} is measured {model.placement_note}")
        return model

    if request.known_answers:
        return known_answers_report(request, watcher, loaded)
    model = loaded()
    for problem in model.saved.skipped if model.saved else ():
        watcher.warn(f"{problem}; using another checkpoint")
    request = _with_windows(request, model, watcher)
    if request.tasks == ("continuation",):
        return continuation_report(request, model, watcher)
    if request.tasks:
        return tasks_report(request, model, watcher)
    if request.text is not None:
        return text_report(request, model, watcher)
    return corpus_report(request, model, watcher)


TEXTS_AT_ONCE = 32
"""How many texts are in memory together at most: the choices of eight questions."""


def _with_windows(request: EvaluationRequest, model: "TextModel", watcher: Watcher) -> EvaluationRequest:
    """The request with its context filled in.

    Raises UsageError for a context or stride that the model or the other one does not allow.
    """
    longest = model.model.config.n_positions
    context = model.context_length if request.context is None else request.context
    if not 2 <= context <= longest:
        raise UsageError(f"--context {context} is not between 2 and {longest:,}, the positions of this model")
    if context > model.context_length:
        watcher.warn(
            f"{model.source} was trained with sequences of {model.context_length:,} tokens: what it predicts from more "
            "is not what it learned"
        )
    if request.stride is not None and not 1 <= request.stride <= context:
        raise UsageError(f"--stride {request.stride} is not between 1 and the context, {context:,} tokens")
    return replace(request, context=context)
