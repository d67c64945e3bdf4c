"""What is to be measured of a model: the options of `gpt2tui eval`, and of the Evaluate page of the workbench."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from gpt2tui.errors import UsageError
from gpt2tui.system.terminal_text import printable

if TYPE_CHECKING:
    from gpt2tui.data.corpus import Split
    from gpt2tui.device import Precision
    from gpt2tui.evaluation.tasks import Task  # which imports torch

OF_WINDOWS = ("context", "stride")
OF_CORPUS = ("source", "split", "text_column")
OF_COMPLETIONS = ("prompt_column", "reference_column", "max_length")


@dataclass(frozen=True)
class EvaluationRequest:
    """A checkpoint, and what to measure of it; None is the default of `gpt2tui eval`."""

    checkpoint: str
    tasks: tuple[str, ...] = ()
    """Names of tasks to measure instead of the loss."""
    data: str | None = None
    known_answers: bool = False
    source: str | None = None
    text_column: str | None = None
    split: "Split | None" = None
    text: str | None = None
    context: int | None = None
    stride: int | None = None
    prompt_column: str | None = None
    reference_column: str | None = None
    max_length: int | None = None
    limit: int | None = None
    precision: "Precision" = "fp32"
    device: str = "auto"

    def words(self) -> list[str]:
        """The words of the command line that measures the same."""
        words = ["gpt2tui", "eval", self.checkpoint, *self.tasks]
        for field in fields(self)[2:]:
            value = getattr(self, field.name)
            if value != field.default:
                option = f"--{field.name.replace('_', '-')}"
                words += [option] if value is True else [option, str(value)]
        return words

    def check(self) -> None:
        """Raises UsageError for options that exclude each other, before a large model is loaded."""
        chosen_tasks(self.tasks)
        others: tuple[str, ...]
        if self.known_answers:
            what, others = "--known-answers", (*OF_WINDOWS, *OF_CORPUS, *OF_COMPLETIONS, "text", "tasks", "limit")
        elif self.tasks == ("continuation",):
            what, others = "the task continuation", ("stride", "data", "prompt_column", "reference_column")
        elif "continuation" in self.tasks:
            raise UsageError("the task continuation measures a text, the others their data; measure it alone")
        elif self.tasks:
            what, others = f"the task {self.tasks[0]}", (*OF_WINDOWS, *OF_CORPUS, "text")
            others += () if self.tasks == ("completions",) else OF_COMPLETIONS
        else:
            if self.data is not None:
                raise UsageError(
                    "--data is the data of a task; name one, or use --source for a corpus and --text for a file"
                )
            what, others = "the loss", (*OF_COMPLETIONS, "limit")
        excluded = [(what, name) for name in others]
        if self.text is not None:
            excluded += [("--text", name) for name in OF_CORPUS]
        for what, name in excluded:
            if getattr(self, name) not in (None, ()):
                other = "a task" if name == "tasks" else f"--{name.replace('_', '-')}"
                raise UsageError(f"{what} does not go with {other}")
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit {self.limit} measures nothing; it is 1 at least")
        if self.max_length is not None and self.max_length < 1:
            raise UsageError(f"--max-length {self.max_length} writes nothing; it is 1 at least")


def chosen_tasks(names: Sequence[str]) -> "list[Task]":
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
