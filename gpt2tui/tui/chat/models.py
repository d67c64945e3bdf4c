"""The models of the chat: live weights, the checkpoints of all runs, and others opened by hand; which are selected."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gpt2tui.run import checkpoint
from gpt2tui.run import folder as runs
from gpt2tui.system.files import runs_folder
from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tui.session import TrainingSession

if TYPE_CHECKING:
    from gpt2tui.generation import GpuUse  # which imports torch

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
        """Identifies it among the choices."""
        return LIVE if self.reference is None else self.reference

    @property
    def kind(self) -> str:
        """The label of a special model; empty for an ordinary checkpoint."""
        if self.reference is None:
            return "live"
        if self.step is None:
            return "GPT-2"
        return "best val loss" if self.is_best else "newest" if self.is_newest else ""

    @property
    def label(self) -> str:
        """Its name above its answers."""
        group = sanitize(self.group, keep_newlines=False)
        if self.reference is None:
            return f"{group}, live weights"
        if self.step is None:
            return group
        return f"{group}, step {self.step:,}" + (f" ({self.kind})" if self.kind else "")


def live_weights(run_name: str, step: int) -> ModelChoice:
    """The current weights of the training in this process."""
    return ModelChoice(None, run_name, step)


def opened_model(reference: str) -> ModelChoice:
    """A folder or Hub id that the user has named."""
    return ModelChoice(reference, reference)


def saved_models() -> list[ModelChoice]:
    """The valid checkpoints of all runs, the newest run first, each in the order of `checkpoints_of`."""
    return [choice for run in reversed(runs.all_runs()) for choice in checkpoints_of(run)]


def checkpoints_of(run: runs.Run) -> list[ModelChoice]:
    """The valid checkpoints of a run: lowest val_loss, newest, then the others from newest to oldest."""
    saved = checkpoint.saved_in(run.checkpoints)
    best = checkpoint.best_of(saved)
    choices = [
        ModelChoice(str(c.folder), run.folder.name, c.step, c.val_loss, c is best, c is saved[-1]) for c in saved
    ]
    return sorted(choices, key=lambda c: (not c.is_best, not c.is_newest, -(c.step or 0)))


def find_choice(reference: str, choices: list[ModelChoice]) -> ModelChoice | None:
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


def gpu_use_beside(session: TrainingSession) -> "GpuUse":
    """How much of a GPU's memory the chat's models may take beside the training of this process."""
    device = session.loaded.preset.training.device if session.loaded is not None else "auto"
    if not session.active or device in ("cpu", "mps"):
        return "all"
    return "spare" if session.progress.recent_step_seconds else "none"


# ---- which one or two of them answer


class SelectedModels:
    """The listed models, the first that answers, and optionally a second beside it."""

    def __init__(self) -> None:
        self.first: ModelChoice | None = None
        self.second: ModelChoice | None = None
        self._live: ModelChoice | None = None
        self._opened: list[ModelChoice] = []
        self._saved: list[ModelChoice] = []
        self._wanted: str | None = None
        self._by_hand = False

    @property
    def all(self) -> list[ModelChoice]:
        """Live weights with the checkpoints of their run, models opened by hand, the checkpoints of the other runs."""
        live = [self._live] if self._live else []
        own = [choice for choice in self._saved if live and choice.group == live[0].group]
        return [*live, *own, *self._opened, *(choice for choice in self._saved if choice not in own)]

    @property
    def answering(self) -> list[ModelChoice]:
        """The models that answer, `first` before `second`; empty while there is no model."""
        return [choice for choice in (self.first, self.second) if choice is not None]

    def update(
        self, live: ModelChoice | None, saved: Sequence[ModelChoice] | None = None, own_run: str | None = None
    ) -> None:
        """Replaces the live weights, and the saved checkpoints unless `saved` is None.

        A choice by hand stays. If its model is gone (pruned, deleted, the training has ended), the second takes its
        place. Without a choice by hand, the first of these answers: the live weights, the best of `own_run` (the last
        run of this process), the model that answered before, the newest run.
        """
        self._live = live
        if saved is not None:
            self._saved = list(saved)
        by_key = {choice.key: choice for choice in self.all}
        self.first = by_key.get(self.first.key) if self.first else None
        self.second = by_key.get(self.second.key) if self.second else None
        if self.first is None:
            self.first, self.second = self.second, None
            self._by_hand = self._by_hand and self.first is not None
        if not self._by_hand:
            own = next((choice for choice in self._saved if choice.group == own_run), None)
            self.first = live or own or self.first or next(iter(self.all), None)

    def choose(self, choice: ModelChoice) -> None:
        """Makes a model the first."""
        if self.second is not None and choice.key == self.second.key:
            self.second = None
        self.first, self._by_hand = choice, True

    def choose_second(self, choice: ModelChoice) -> bool:
        """Makes a model the second, or removes it if it is; returns whether it answers now."""
        if self.second is not None and choice.key == self.second.key:
            self.second = None
        elif self.first is None or choice.key != self.first.key:
            self.second, self._by_hand = choice, True
            return True
        return False

    def want(self, reference: str | None) -> None:
        """Notes a CHECKPOINT reference, or None for the live weights, for `take_wanted` to choose."""
        self._wanted = LIVE if reference is None else reference

    def take_wanted(self, listed: bool) -> Literal["nothing", "later", "no training"] | ModelChoice:
        """Chooses the wanted model if it is found.

        `listed`: all runs have been read, so a reference not among them is opened as a folder or a Hub id.
        """
        if self._wanted is None:
            return "nothing"
        found = self._live if self._wanted == LIVE else find_choice(self._wanted, self.all)
        if found is None and self._wanted == LIVE:
            self._wanted = None
            return "no training"
        if found is None and not listed:
            return "later"
        if found is None:
            found = opened_model(self._wanted)
            self._opened = [found, *(choice for choice in self._opened if choice != found)]
        self._wanted = None
        self.choose(found)
        return found

    def forget_opened(self, reference: str) -> None:
        """Removes a folder or Hub id that could not be loaded; `update` then chooses another model."""
        self._opened = [choice for choice in self._opened if choice.reference != reference]
