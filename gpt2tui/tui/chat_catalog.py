"""The models one can talk to: live weights, the checkpoints of all runs, and what was opened by hand."""

from dataclasses import dataclass
from pathlib import Path

from gpt2tui.run import checkpoint
from gpt2tui.run import folder as runs
from gpt2tui.system.files import runs_folder
from gpt2tui.system.terminal_text import sanitize

LIVE = "live"


@dataclass(frozen=True)
class ModelChoice:
    """A model in the list. `reference` is a CHECKPOINT reference, None for the live weights."""

    reference: str | None
    group: str
    step: int | None = None
    val_loss: float | None = None
    is_best: bool = False
    is_newest: bool = False

    @property
    def key(self) -> str:
        """What tells it from the others."""
        return LIVE if self.reference is None else self.reference

    @property
    def kind(self) -> str:
        """What is special about it, in a word."""
        if self.reference is None:
            return "live"
        if self.step is None:
            return "GPT-2"
        return "best" if self.is_best else "newest" if self.is_newest else ""

    @property
    def label(self) -> str:
        """Its name above what it writes."""
        group = sanitize(self.group, keep_newlines=False)
        if self.reference is None:
            return f"{group}, live weights"
        if self.step is None:
            return group
        return f"{group}, step {self.step:,}" + (f" ({self.kind})" if self.kind else "")


def live(run_name: str, step: int) -> ModelChoice:
    """The weights of the training of this process as they are now."""
    return ModelChoice(None, run_name, step)


def opened(reference: str) -> ModelChoice:
    """A folder or Hub id that a person has named."""
    return ModelChoice(reference, reference)


def saved_models() -> list[ModelChoice]:
    """The valid checkpoints of all runs, the newest run first; of a run the best, the newest, then backwards."""
    return [choice for run in reversed(runs.all_runs()) for choice in saved_in(run)]


def saved_in(run: runs.Run) -> list[ModelChoice]:
    """The valid checkpoints of a run: the best, the newest, then the others backwards."""
    saved = checkpoint.saved_in(run.checkpoints)
    best = checkpoint.best_of(saved)
    choices = [
        ModelChoice(str(c.folder), run.folder.name, c.step, c.val_loss, c is best, c is saved[-1]) for c in saved
    ]
    return sorted(choices, key=lambda c: (not c.is_best, not c.is_newest, -(c.step or 0)))


def meant_by(reference: str, choices: list[ModelChoice]) -> ModelChoice | None:
    """The choice that a checkpoint folder, a run folder or a run's name means; None when it is not in the list."""
    for path in (Path(reference), runs_folder() / reference):
        folder = path.resolve()
        for choice in choices:
            if choice.reference is not None and choice.step is not None:
                own = Path(choice.reference).resolve()
                # The best, else the newest, comes first of its run.
                if folder in (own, own.parent.parent):
                    return choice
    return None
