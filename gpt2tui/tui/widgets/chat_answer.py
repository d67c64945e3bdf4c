"""One answer in the transcript: which model, the text, and the numbers."""

from collections.abc import Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tui.chat_catalog import ModelChoice
from gpt2tui.tui.chat_model import AnswerRequest, Ending, ModelFacts
from gpt2tui.tui.chat_statistics import TokenStatistics
from gpt2tui.tui.chat_template import turn
from gpt2tui.tui.chat_transcript import AnswerRecord, notes, numbers_line, settings_line
from gpt2tui.tui.shown_token import ShownToken
from gpt2tui.tui.widgets.token_text import TokenText


class ChatAnswer(Vertical):
    """Grows while the model writes; everything about it can be asked for afterwards."""

    DEFAULT_CSS = """
    ChatAnswer { height: auto; width: 1fr; padding: 0 1; margin-bottom: 1; }
    ChatAnswer Static { height: auto; }
    ChatAnswer .answer-head { color: $text-primary; }
    ChatAnswer .answer-note { color: $text-warning; display: none; }
    ChatAnswer .answer-foot { color: $text-muted; }
    ChatAnswer .answer-note.-said { display: block; }
    ChatAnswer.-failed .answer-foot { color: $text-error; }
    """

    ALLOW_SELECT: ClassVar[bool] = False

    def __init__(self, request: AnswerRequest, choice: ModelChoice, *, heat_map: bool) -> None:
        super().__init__()
        self.request = request
        self.choice = choice
        self.facts: ModelFacts | None = None
        self.ending: Ending | None = None
        self.failure: str | None = None
        self.statistics = TokenStatistics()
        self._seconds = 0.0
        self._numbers = "loading the model…" if choice.reference else "waiting for the end of a training step…"
        self._model = choice.label
        prompt = request.prompt if request.asked is None else turn(request.asked)
        given = [ShownToken(prompt)] if request.task == "write" and prompt else []
        self.token_text = TokenText(given, heat_map=heat_map or request.task == "read")

    def compose(self) -> ComposeResult:
        """Head, note, text, foot."""
        how = settings_line(self.request.sampling) if self.request.task == "write" else "surprise of each token"
        yield Static(_head(self._model, how), classes="answer-head")
        yield Static("", classes="answer-note", markup=False)
        yield self.token_text
        yield Static(Text(self._numbers), classes="answer-foot")

    @property
    def written(self) -> str:
        """What the model wrote, as it is."""
        return "".join(token.text for token in self.token_text.tokens if token.probability is not None)

    @property
    def whole(self) -> str:
        """Prompt and continuation."""
        return "".join(token.text for token in self.token_text.tokens)

    @property
    def continued(self) -> str:
        """The text to go on from: all that the model was given, and what it wrote."""
        return self.request.prompt + self.written

    @property
    def done(self) -> bool:
        """Whether nothing more comes."""
        return self.ending is not None or self.failure is not None

    def begin(self, facts: ModelFacts, prompt_tokens: int) -> None:
        """The model is there."""
        self.facts = facts
        if self.choice.reference is None:  # only now is it known at which step the weights were copied
            self._model = sanitize(facts.source, keep_newlines=False)
            head = self.query_one(".answer-head", Static)
            head.update(_head(self._model, settings_line(self.request.sampling)))
        if note := notes(self.request.task, prompt_tokens, facts.n_positions):
            self.query_one(".answer-note", Static).add_class("-said").update(Text(note))
        self._show("reading the prompt…")

    def grow(self, tokens: Sequence[ShownToken], statistics: TokenStatistics, seconds: float) -> None:
        """More has been written."""
        self.token_text.append(tokens)
        self.statistics, self._seconds = statistics, seconds
        self._show_numbers()

    def end(self, ending: Ending) -> None:
        """Nothing more comes."""
        self.ending = ending
        self._show_numbers()

    def fail(self, message: str) -> None:
        """It ended on an error."""
        self.failure = message
        self.add_class("-failed")
        self._show(sanitize(message))

    def record(self) -> AnswerRecord:
        """What is kept of it."""
        written = self.written if self.request.task == "write" else ""
        return AnswerRecord(
            self._model,
            self.request.task,
            self.request.prompt,
            written,
            self.request.sampling,
            "" if self.failure else self._numbers,
            self.failure,
        )

    def _show_numbers(self) -> None:
        text_bytes = len(self.request.prompt.encode(errors="replace")) if self.ending == "text" else 0
        vocab_size = self.facts.vocab_size if self.facts is not None else 2
        task = self.request.task
        self._show(numbers_line(self.statistics, self._seconds, self.ending, task, text_bytes, vocab_size))

    def _show(self, text: str) -> None:
        self._numbers = text
        self.query_one(".answer-foot", Static).update(Text(text))


def _head(model: str, how: str) -> Text:
    return Text.assemble((model, "bold"), ("  " + how, "dim"))
