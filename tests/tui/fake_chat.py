"""A language model without torch: it writes the words of a sentence, with known probabilities."""

import math
import threading
from dataclasses import dataclass, field
from types import SimpleNamespace

from gpt2tui.preset.schema import SamplingTable
from gpt2tui.preset.template import Template
from gpt2tui.tui.app import WorkbenchApp
from gpt2tui.tui.chat.engine import ChatModels
from gpt2tui.tui.chat.screen import ChatScreen
from gpt2tui.tui.settings import UserSettings

WORDS = (
    "the", " quick", " brown", " fox", " jumps", " over", " a", " lazy", " dog", ",", " and", " sleeps", ".\n",
)  # fmt: skip


@dataclass(frozen=True)
class FakeAlternative:
    token: int
    text: str
    probability: float


@dataclass(frozen=True)
class FakeToken:
    token: int
    text: str
    probability: float
    alternatives: tuple[FakeAlternative, ...] = ()


@dataclass
class FakeModel:
    """Writes WORDS in turn, beginning at the seed, until `ends_after`; waits for `gate` before each word."""

    source: str = "fake"
    words: tuple[str, ...] = WORDS
    ends_after: int | None = None
    gate: threading.Event | None = None
    fails_at: int | None = None
    odds: float | None = None
    sampling: SamplingTable = field(default_factory=lambda: SamplingTable(temperature=0.7, top_k=40))
    context_length: int = 16
    num_parameters: int = 1234
    vocab_size: int = 4096
    device_type: str = "cpu"
    placement_note: str | None = None
    template: Template | None = None
    asked: list = field(default_factory=list)

    @property
    def device(self):
        return SimpleNamespace(type=self.device_type)

    def count_tokens(self, text):
        return len(text.split())

    def prompt_tokens(self, prompt, history=()):
        self.asked.append((prompt, tuple(history)))
        return list(range(len(history) + 1))

    def stream(self, prompt, sampling, alternatives=0):
        for n in range(sampling.max_length):
            if n == self.ends_after:
                return
            if n == self.fails_at:
                raise RuntimeError("[/bold] out of \x1b]52;c;luck\x07")
            if self.gate is not None:
                self.gate.wait(5)
            yield self._piece((sampling.seed + n) % len(self.words), alternatives)

    def score(self, text, alternatives=0):
        for n, word in enumerate(text.split(" ")):
            yield FakeToken(
                n, (" " if n else "") + word, 0.5**n, self._piece(n % len(self.words), alternatives).alternatives
            )

    def _piece(self, token, alternatives):
        probability = self.odds or 0.02 + 0.97 * abs(math.sin(token * 1.7)) ** 2
        others = [self.words[(token + k) % len(self.words)] for k in range(alternatives)]
        return FakeToken(
            token,
            self.words[token],
            probability,
            tuple(FakeAlternative(k, word, probability / (k + 1)) for k, word in enumerate(others)),
        )


class ChatApp(WorkbenchApp):
    """The workbench with nothing but the chat, and models that are made up."""

    def __init__(self, folder, load=lambda reference: FakeModel(reference), session=None, takes_gpu_use=False):
        settings = UserSettings(folder / "settings.json")
        settings.remember("mode", "chat")
        self.models = ChatModels(load if takes_gpu_use else lambda reference, gpu: load(reference))
        self.copied = []
        self.MODES = WorkbenchApp.MODES | {"chat": lambda: ChatScreen(self.models)}
        super().__init__(settings=settings, session=session)

    def copy_to_clipboard(self, text):
        self.copied.append(text)
