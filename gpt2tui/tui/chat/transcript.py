"""The prompts and answers of the chat, one turn below the other."""

import math
from collections.abc import Iterable, Sequence
from typing import ClassVar

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Static

from gpt2tui.preset.schema import GPT2_VOCAB_SIZE
from gpt2tui.preset.template import Template
from gpt2tui.system.numbers import compact
from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tui.chat.engine import (
    AnswerBegun,
    AnswerEnded,
    AnswerFailed,
    AnswerGrew,
    AnswerRequest,
    Ending,
    ModelFacts,
    ShownToken,
    TokenStatistics,
    cut_at_turn_end,
    prompt_turn,
)
from gpt2tui.tui.chat.models import ModelChoice
from gpt2tui.tui.chat.record import AnswerRecord, numbers_line, prompt_notes, settings_line
from gpt2tui.tui.chat.token_text import TokenText


class ChatAnswer(Vertical):
    """An answer of one model: head, note, text and statistics. It grows while the model generates."""

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
        prompt = (
            prompt_turn(request.asked) if request.asked is not None and request.template == "on" else request.prompt
        )
        given = [ShownToken(prompt)] if request.task == "continue" and prompt else []
        self.token_text = TokenText(given, heat_map=heat_map or request.task == "score")

    def compose(self) -> ComposeResult:
        """Head, note, text, foot."""
        how = settings_line(self.request.sampling) if self.request.task == "continue" else "surprisal of each token"
        yield Static(_head(self._model, how), classes="answer-head")
        yield Static("", classes="answer-note", markup=False)
        yield self.token_text
        yield Static(Text(self._numbers), classes="answer-foot")

    @property
    def written(self) -> str:
        """The generated or scored text, unchanged."""
        return "".join(token.text for token in self.token_text.tokens if token.probability is not None)

    @property
    def whole(self) -> str:
        """Prompt and continuation."""
        return "".join(token.text for token in self.token_text.tokens)

    @property
    def text_to_continue(self) -> str:
        """The whole text for the model to continue: its prompt and its answer."""
        return (self.request.prompt if self._template is None else self.asked) + self.written

    @property
    def asked(self) -> str:
        """The prompt as it stands before the answer."""
        asked = self.request.asked
        if asked is None or not self.in_conversation:
            return self.request.prompt
        return prompt_turn(asked) if self._template is None else self._template.asked(asked)

    @property
    def turn(self) -> tuple[str, str] | None:
        """What the user typed and what the model wrote in its own turn; None outside of a conversation."""
        if self.request.asked is None or not self.in_conversation:
            return None
        own = cut_at_turn_end(self.written) if self._template is None else self._template.completion_in(self.written)
        return self.request.asked, own

    @property
    def in_conversation(self) -> bool:
        """Whether the prompt is a turn of a conversation; that may depend on the model."""
        return self.request.template == "on" or self._template is not None

    @property
    def _template(self) -> Template | None:
        """The model's own template, where the answer is in it."""
        return self.facts.template if self.facts is not None and self.request.asked is not None else None

    @property
    def done(self) -> bool:
        """Whether it has ended or failed."""
        return self.ending is not None or self.failure is not None

    def begin(self, facts: ModelFacts, prompt_tokens: int) -> None:
        """The model is loaded."""
        self.facts = facts
        if self._template is not None:
            self.token_text.replace([ShownToken(self.asked)])
        self.token_text.vocab_size = facts.vocab_size
        if self.choice.reference is None:  # the step at which the weights were copied is known only now
            self._model = sanitize(facts.source, keep_newlines=False)
            head = self.query_one(".answer-head", Static)
            head.update(_head(self._model, settings_line(self.request.sampling)))
        said = (prompt_notes(self.request.task, prompt_tokens, facts.context_length), facts.placement_note)
        if note := "\n".join(line for line in said if line):
            self.query_one(".answer-note", Static).add_class("-said").update(Text(note))
        self._show("reading the prompt…")

    def grow(self, tokens: Sequence[ShownToken], statistics: TokenStatistics, seconds: float) -> None:
        """Adds tokens."""
        self.token_text.append(tokens)
        self.statistics, self._seconds = statistics, seconds
        self._show_numbers()

    def end(self, ending: Ending) -> None:
        """It is complete."""
        self.ending = ending
        self._show_numbers()

    def fail(self, message: str) -> None:
        """It ended with an error."""
        self.failure = message
        self.add_class("-failed")
        self._show(sanitize(message))

    def record(self) -> AnswerRecord:
        """Its data for saving."""
        written = self.written if self.request.task == "continue" else ""
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


MOST_ANSWERS = 100
INTRODUCTION = (
    "A base model continues text; it does not answer questions. Type how a text begins; Enter continues it. "
    "An empty prompt starts a new document."
)


class Transcript(VerticalScroll):
    """Receives the messages of `engine.answer`, updates their answers, and lets them bubble to the screen."""

    DEFAULT_CSS = """
    Transcript {
        height: 1fr; border: round $panel; border-title-color: $foreground; border-subtitle-color: $text-muted;
        scrollbar-size-vertical: 1;
    }
    Transcript:focus, Transcript:focus-within { border: round $border; }
    Transcript #introduction { padding: 0 1; color: $text-muted; height: auto; }
    /* At least the visible height: an anchored container scrolls to a negative offset over shorter content. */
    Transcript #turns { height: auto; min-height: 100%; }
    Transcript .turn { height: auto; }
    """

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._answers: dict[int, ChatAnswer] = {}
        self._models: Sequence[ModelChoice] = ()
        self._facts: tuple[str, ModelFacts] | None = None  # of the model with that key
        self.heat_map = False
        self._turn: Horizontal | None = None  # the newest one, if it has two answers
        self._followed_to = 0.0

    def compose(self) -> ComposeResult:
        """The introduction, shown until there is a turn."""
        with Vertical(id="turns"):
            yield Static(Text(INTRODUCTION), id="introduction")

    def on_mount(self) -> None:
        """Sets title and subtitle."""
        self.show_models([])
        self._show_legend()

    @property
    def answers(self) -> list[ChatAnswer]:
        """All answers, oldest first."""
        return list(self._answers.values())

    @property
    def last(self) -> ChatAnswer | None:
        """The newest answer."""
        return self.answers[-1] if self._answers else None

    @property
    def last_written(self) -> ChatAnswer | None:
        """The newest answer that continues a prompt."""
        return next((answer for answer in reversed(self.answers) if answer.request.task == "continue"), None)

    def add_turn(self, pairs: Iterable[tuple[AnswerRequest, ModelChoice]]) -> None:
        """Adds a turn of one answer, or of two side by side; removes the oldest answers when there are too many."""
        self.query_one("#introduction").display = False
        answers = [ChatAnswer(request, choice, heat_map=self.heat_map) for request, choice in pairs]
        self._answers |= {answer.request.number: answer for answer in answers}
        turn = Horizontal(*answers, classes="turn")
        self.query_one("#turns").mount(turn)
        while len(self._answers) > MOST_ANSWERS:
            oldest = self._answers.pop(next(iter(self._answers)))
            (oldest.parent if isinstance(oldest.parent, Horizontal) else oldest).remove()
        self._show_legend()
        self._turn = turn if len(answers) > 1 else None
        if self._turn is None:
            self.anchor()
            return
        # Following the end of the longer answer, one would not see the other.
        self.release_anchor()
        self.scroll_end(animate=False)
        self.call_after_refresh(self._begin_to_follow)

    def _begin_to_follow(self) -> None:
        self._followed_to = self.scroll_y
        self._follow_turn()

    def remove_turns(self) -> None:
        """Removes all turns."""
        self._answers.clear()
        self._turn = None
        self._show_legend()
        self.query(".turn").remove()
        self.query_one("#introduction").display = True

    def conversation_with(self, choice: ModelChoice) -> list[tuple[str, str]]:
        """(prompt, answer) of a model's turns; of a regenerated turn the last answer."""
        turns = {
            (answer.request.history, answer.request.asked): answer.turn
            for answer in self.answers
            if answer.turn is not None and answer.choice.key == choice.key and answer.failure is None
        }
        return [turn for turn in turns.values() if turn is not None]

    def records(self) -> Sequence[AnswerRecord]:
        """The data of all answers for saving."""
        return [answer.record() for answer in self.answers]

    def switch_heat_map(self) -> None:
        """Switches the heat map on or off."""
        self.heat_map = not self.heat_map
        for answer in self.answers:
            answer.token_text.heat_map = self.heat_map or answer.request.task == "score"
        self._show_legend()
        if not self.heat_map:
            if "focus-within" in self.pseudo_classes:
                self.focus()
        elif self.last is not None:
            self.last.token_text.focus()

    def focus_text(self) -> None:
        """Focuses the newest text with a heat map, so that the arrow keys move on its tokens, else the transcript."""
        coloured = [answer.token_text for answer in self.answers if answer.token_text.heat_map]
        (coloured[-1] if coloured else self).focus()

    def show_models(self, models: Sequence[ModelChoice]) -> None:
        """Shows the names of the models that answer in the title."""
        self._models = models
        self._show_title()

    def show_facts(self, choice: ModelChoice, facts: ModelFacts) -> None:
        """Shows the facts of a model in the title while it alone answers."""
        self._facts = choice.key, facts
        self._show_title()
        self._show_legend()

    def _show_title(self) -> None:
        title = " beside ".join(f"{'● ' if choice.reference is None else ''}{choice.label}" for choice in self._models)
        if self._facts is not None and [choice.key for choice in self._models] == [self._facts[0]]:
            facts = self._facts[1]
            title += f" · {compact(facts.num_parameters)} parameters · context {facts.context_length:,}"
            if facts.placement_note:  # in front, where a narrow terminal does not cut it off
                title = f"{facts.placement_note} · {title}"
        self.border_title = Content(title or "no model yet")

    @on(AnswerBegun)
    def begin_answer(self, event: AnswerBegun) -> None:
        """A model is loaded."""
        if (answer := self._answers.get(event.number)) is not None:
            answer.begin(event.facts, event.prompt_tokens)
            self._show_legend()
            self.show_facts(answer.choice, event.facts)

    @on(AnswerGrew)
    def grow_answer(self, event: AnswerGrew) -> None:
        """Adds tokens to an answer."""
        if (answer := self._answers.get(event.number)) is not None:
            answer.grow(event.tokens, event.statistics, event.seconds)
            self.call_after_refresh(self._follow_turn)

    @on(AnswerEnded)
    def end_answer(self, event: AnswerEnded) -> None:
        """Marks an answer as complete."""
        if (answer := self._answers.get(event.number)) is not None:
            answer.end(event.ending)

    @on(AnswerFailed)
    def fail_answer(self, event: AnswerFailed) -> None:
        """Shows the error in its place."""
        if (answer := self._answers.get(event.number)) is not None:
            answer.fail(event.message)

    def _show_legend(self) -> None:
        """The scale of the heat map, while a text is coloured by it."""
        coloured = [answer.token_text for answer in self.answers if answer.token_text.heat_map]
        if not coloured and not self.heat_map:
            answers = self._facts is not None and self._facts[1].template is not None
            self.border_subtitle = "this model answers prompts" if answers else ""
            return
        vocab_size = coloured[-1].vocab_size if coloured else GPT2_VOCAB_SIZE
        most = math.log2(vocab_size)
        self.border_subtitle = Content.assemble(
            "surprisal ",
            (" 0 ", "$foreground on $success 12%"),
            (f" {most / 2:.1f} ", "$foreground on $warning 40%"),
            (f" {most:.1f} bits = log2 {vocab_size:,} ", "$foreground on $error 80%"),
        )

    def _follow_turn(self) -> None:
        """Scrolls down while a turn of two grows, until its beginning is at the top, unless the user has scrolled."""
        if self._turn is not None and self._turn.is_mounted and self.scroll_y == self._followed_to:
            self.scroll_to(y=min(self._turn.virtual_region.y, self.max_scroll_y), animate=False)
            self._followed_to = self.scroll_target_y
