"""The log line of each event, as styled text. Pure functions of the events.

Text from outside (samples, names, messages) is sanitized here and never parsed as markup.
"""

import math
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path

from rich.text import Text

from gpt2tui.run.events import (
    CheckpointSaved,
    Evaluated,
    LearningRateChanged,
    NumIterationsChanged,
    RunFailed,
    RunFinished,
    RunStarted,
    Sampled,
    Step,
)
from gpt2tui.system.numbers import byte_size, compact, counted, duration, gradient_norm, learning_rate
from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tracking.run_progress import RunProgress

QUIET = "bright_black"
SAMPLE_LINES = 40
_SAMPLE_CHARACTERS = 10_000
_LABEL_WIDTH = 11  # of "step 12,345"


def run_started(event: RunStarted, vocab_size: int | None = None) -> list[Text]:
    """The model, the device, the number of steps, and how to read the metrics."""
    steps = event.num_iterations - event.step
    tokens = compact(steps * event.tokens_per_step)
    trained = event.trained_parameters if event.trained_parameters != event.parameters else None
    lines = [
        Text.assemble(("gpt2tui ", "bold green"), (_one_line(event.preset), "bold"), f"  {_one_line(event.run)}"),
        Text.assemble(
            (compact(event.parameters), "bold"),
            " parameters" if not trained else f" parameters, {compact(trained)} trained beside them,",
            f" on {_one_line(event.device)} in {_one_line(event.precision)}, "
            f"{counted(steps, 'step')} of {event.tokens_per_step:,} tokens ({tokens} in all)",
        ),
    ]
    if event.init_from:
        lines.append(Text(f"started from the weights of {_one_line(event.init_from)}"))
    if event.step:
        lines.append(Text(f"resumed at step {event.step:,}"))
    if vocab_size:
        uniform = f"{math.log(vocab_size):.2f}"
        lines.append(
            Text(
                f"loss: nats per token, smoothed; a uniform guess has ln {vocab_size:,} = {uniform}",
                style=QUIET,
            )
        )
    if event.xz_bits_per_byte is not None:
        xz = f"{event.xz_bits_per_byte:.2f}"
        if event.xz_after_training_bits_per_byte is not None:
            xz += f", and to {event.xz_after_training_bits_per_byte:.2f} after the training text"
        lines.append(Text(f"bits/byte: on the validation text, which xz -9 compresses to {xz}", style=QUIET))
    return [*lines, Text()]


def step(event: Step, progress: RunProgress) -> Text:
    """One step as a line, for output that is not a terminal."""
    parts = [f"{_label(event.step)}  loss {_number(progress.train_loss.value, 3)}"]
    parts.append(f"lr {learning_rate(event.learning_rate)}")
    parts.append(f"grad norm {gradient_norm(event.grad_norm)}")
    if progress.tokens_per_second is not None:
        parts.append(f"{compact(progress.tokens_per_second)} tokens/s")
    if progress.seconds_left is not None:
        parts.append(f"{duration(progress.seconds_left)} left")
    return Text("  ".join(parts))


EVALUATING_ALL = "evaluating all validation text"


def evaluated(event: Evaluated, progress: RunProgress) -> Text:
    """The validation loss and its bits per byte beside those of xz; `progress` is the state before the event."""
    line = Text.assemble(
        (_label(event.step), "bold"),
        "  val loss ",
        (f"{event.val_loss:.3f}", "bold green" if event.best else "bold"),
        "  ",
        (f"{event.bits_per_byte:.3f}", "bold magenta"),
        " bits/byte",
    )
    if xz := progress.xz_comparison(event.bits_per_byte, short=True):
        bar = progress.xz_after_training_bits_per_byte or progress.xz_bits_per_byte
        line.append(f"  {xz}", style="green" if bar is not None and event.bits_per_byte < bar else QUIET)
    for name, value in event.metrics.items():
        line.append(f"  {name} {_number(None if math.isnan(value) else value, 1 if abs(value) >= 10 else 3)}")
    if event.whole:
        line.append("  all text", style=QUIET)
    elif event.best and progress.best_val_loss is not None:
        line.append("  best val loss", style="green")
    return line


def evaluating_all(step: int) -> Text:
    """What follows the last step's evaluation."""
    return Text.assemble((_label(step), "bold"), "  ", (EVALUATING_ALL, QUIET))


def sampled(event: Sampled, unicode: bool = True, wrap: Callable[[Text], Iterable[Text]] | None = None) -> list[Text]:
    """The prompt and the generated text, with a bar on the left; a very long sample is cut.

    `wrap` breaks a line into parts that fit beside the bar, which is two cells wide.
    """
    bar = Text("│ " if unicode else "| ", style="cyan")
    text = event.text[:_SAMPLE_CHARACTERS].rstrip()
    written = Text.assemble((sanitize(event.prompt[:_SAMPLE_CHARACTERS]), QUIET), (sanitize(text), "bold"))
    written.expand_tabs(4)
    lines = [piece for line in written.split("\n") for piece in (wrap(line) if wrap and line else [line])]
    title = Text(f"{_label(event.step)}  sample", style="cyan")
    shown = [title, *(bar + line for line in lines[:SAMPLE_LINES])]
    if len(lines) > SAMPLE_LINES or len(event.text) > _SAMPLE_CHARACTERS:
        shown.append(bar + Text("(the rest is in events.jsonl)", style=QUIET))
    return [*shown, Text()]


def checkpoint_saved(event: CheckpointSaved) -> Text:
    """The path, size and duration of a checkpoint."""
    size = f"{byte_size(event.bytes)} in {event.seconds:.1f} s"
    return Text(f"{_label(event.step)}  saved {_one_line(event.path)}  {size}", style=QUIET)


def warning(message: str) -> Text:
    """A fallback or an error that does not end the run."""
    return Text.assemble(("warning: ", "bold yellow"), (_one_line(message), "yellow"))


def paused(step: int) -> Text:
    """Training waits."""
    return Text(f"{_label(step)}  paused", style="yellow")


def resumed(step: int) -> Text:
    """Training continues after a pause."""
    return Text(f"{_label(step)}  resumed", style="yellow")


def learning_rate_changed(event: LearningRateChanged) -> Text:
    """The user has changed the learning rate."""
    return Text(f"{_label(event.step)}  learning rate {event.factor:g} times the schedule's", style="yellow")


def num_iterations_changed(event: NumIterationsChanged) -> Text:
    """The time budget has changed the number of steps."""
    steps = counted(event.num_iterations, "step")
    if event.fewest:
        return Text(
            f"{_label(event.step)}  {steps} in all take longer than the time budget; the learning rate's schedule "
            "allows no fewer",
            style="yellow",
        )
    return Text(f"{_label(event.step)}  {steps} in all fit the time budget")


def run_finished(event: RunFinished, progress: RunProgress, run_folder: Path | None = None) -> list[Text]:
    """The ending, the final metrics, and the next command."""
    stopped = event.reason == "stopped"
    head = Text.assemble(
        ("stopped" if stopped else "finished", "bold yellow" if stopped else "bold green"),
        f" after step {event.step:,} of {progress.num_iterations:,}, {duration(event.seconds)}",
    )
    if event.rule:
        head.append(f": {event.rule}")
    lines = [Text(), head]
    if event.best_val_loss is not None:
        lines.append(Text(f"best val loss {event.best_val_loss:.3f}"))
    last = progress.evaluation
    if last is not None:
        over = "all of the validation text" if last.whole else "a part of the validation text"
        line = Text.assemble((f"{last.bits_per_byte:.3f}", "bold magenta"), f" bits/byte on {over}")
        if xz := progress.xz_comparison(last.bits_per_byte):
            line.append(f"  {xz}")
        lines.append(line)
    if run_folder is not None:
        folder = shlex.quote(sanitize(str(run_folder), keep_newlines=False))
        what, command = ("resume", "gpt2tui --headless --resume") if stopped else ("sample", "gpt2tui sample")
        lines.append(Text.assemble(f"{what}: ", (f"{command} {folder}", "bold")))
    return lines


def run_failed(event: RunFailed) -> Text:
    """An error ended the run; the caller of the training prints its message."""
    return Text.assemble(("failed", "bold red"), f" after step {event.step:,}")


def _label(step: int) -> str:
    return f"step {step:,}".ljust(_LABEL_WIDTH)


def _one_line(text: str) -> str:
    return sanitize(text, keep_newlines=False)


def _number(value: float | None, digits: int) -> str:
    return "unknown" if value is None else f"{value:.{digits}f}"
