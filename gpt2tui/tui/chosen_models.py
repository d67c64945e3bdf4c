"""Which models one can talk to, and which one or two of them answer. No screen, no files."""

from collections.abc import Sequence
from typing import Literal

from gpt2tui.tui import chat_catalog
from gpt2tui.tui.chat_catalog import ModelChoice


class ChosenModels:
    """The models of the list, the first that answers, and perhaps a second beside it."""

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
        """Live weights, what was opened by hand, the checkpoints of all runs."""
        return [*([self._live] if self._live else []), *self._opened, *self._saved]

    @property
    def asked(self) -> list[ModelChoice]:
        """Those that answer, the first one first; none while there is no model."""
        return [choice for choice in (self.first, self.second) if choice is not None]

    def update(
        self, live: ModelChoice | None, saved: Sequence[ModelChoice] | None = None, own_run: str | None = None
    ) -> None:
        """The live weights as they are now, and the saved checkpoints where they were read again.

        What was chosen by hand stays; has it gone (pruned, deleted, the training has ended), the second takes its
        place. Else the live weights answer, without them the best of `own_run`, the last one of this process, and
        without that what answered before, first of all the newest run.
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
        """Lets a model answer in place of the first."""
        if self.second is not None and choice.key == self.second.key:
            self.second = None
        self.first, self._by_hand = choice, True

    def choose_second(self, choice: ModelChoice) -> bool:
        """Lets a model answer beside the first, or no longer; whether it does now."""
        if self.second is not None and choice.key == self.second.key:
            self.second = None
        elif self.first is None or choice.key != self.first.key:
            self.second, self._by_hand = choice, True
            return True
        return False

    def want(self, reference: str | None) -> None:
        """A CHECKPOINT reference, or None for the live weights, to be chosen by `take_wanted`."""
        self._wanted = chat_catalog.LIVE if reference is None else reference

    def take_wanted(self, listed: bool) -> Literal["nothing", "later", "no training"] | ModelChoice:
        """Chooses what is wanted, where it can be found.

        `listed`: all runs have been read; what is not among them now is a folder or a Hub id, and opened as one.
        """
        if self._wanted is None:
            return "nothing"
        found = self._live if self._wanted == chat_catalog.LIVE else chat_catalog.meant_by(self._wanted, self.all)
        if found is None and self._wanted == chat_catalog.LIVE:
            self._wanted = None
            return "no training"
        if found is None and not listed:
            return "later"
        if found is None:
            found = chat_catalog.opened(self._wanted)
            self._opened = [found, *(choice for choice in self._opened if choice != found)]
        self._wanted = None
        self.choose(found)
        return found

    def forget_opened(self, reference: str) -> None:
        """A folder or Hub id that turned out to be no model leaves the list; `update` settles what answers then."""
        self._opened = [choice for choice in self._opened if choice.reference != reference]
