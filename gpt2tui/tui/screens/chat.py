"""The Chat screen: models on the left, what they write on the right."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import ClassVar, cast

from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from gpt2tui.preset import SamplingTable
from gpt2tui.terminal_text import sanitize
from gpt2tui.tracking.number_format import compact
from gpt2tui.tui import chat_catalog
from gpt2tui.tui.chat_catalog import ModelChoice
from gpt2tui.tui.chat_model import (
    AllAnswered,
    AnswerBegun,
    AnswerEnded,
    AnswerFailed,
    AnswerGrew,
    AnswerRequest,
    ChatModel,
    ChatModels,
    ModelFacts,
    ModelReady,
    ModelUnusable,
    Task,
    answer,
    load_model,
)
from gpt2tui.tui.chat_template import conversation, spoken
from gpt2tui.tui.chat_transcript import as_markdown
from gpt2tui.tui.messages import RunsChanged, SessionChanged
from gpt2tui.tui.screen_bases import ModeScreen
from gpt2tui.tui.widgets.chat_answer import ChatAnswer
from gpt2tui.tui.widgets.dialogs import ConfirmDialog, TextDialog
from gpt2tui.tui.widgets.key_footer import KeyFooter
from gpt2tui.tui.widgets.mode_bar import ModeBar
from gpt2tui.tui.widgets.model_list import ModelList
from gpt2tui.tui.widgets.prompt_area import PromptArea
from gpt2tui.tui.widgets.rivals_line import RivalsLine
from gpt2tui.tui.widgets.sampling_panel import SamplingPanel
from gpt2tui.tui.widgets.token_text import HOTTEST_BITS, TokenText

MOST_ANSWERS = 100
LONGEST_TEXT = 100_000
REFRESH_SECONDS = 5.0
INTRODUCTION = (
    "A base model continues text; it does not answer questions. Type how a text begins, and Enter lets it go on. "
    "An empty prompt starts a new document."
)


@dataclass
class ModelsListed(Message):
    """The checkpoints of all runs have been read."""

    choices: list[ModelChoice]


class ChatScreen(ModeScreen):
    """Talks to one model, or to two side by side with the same seed. Models work in a thread that can be stopped."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "Stop", key_display="esc"),
        Binding("ctrl+r", "regenerate", "Again", tooltip="The last prompt again, with the next seed"),
        Binding("ctrl+g", "measure", "Surprise", tooltip="How surprised the model is by each token of the text typed"),
        Binding("ctrl+s", "save", "Save", tooltip="The transcript as Markdown", show=False),
        Binding("h", "heat_map", "Heat", tooltip="Each token coloured by its probability, rivals under the cursor"),
        Binding("c", "copy", "Copy", tooltip="The last text, also over ssh"),
        Binding("m", "more", "Go on", tooltip="Where the last text ended", show=False),
        Binding("s", "settings", "Settings", tooltip="Models and sliders, where there is no room for them", show=False),
        Binding("i", "focus_prompt", "Write", show=False),
        Binding("o", "open", "Open", tooltip="A folder in Hugging Face GPT-2 form, or a Hub id", show=False),
        Binding("ctrl+l", "clear", "Clear", tooltip="Forget the transcript", show=False),
    ]

    # Not ClassVar: Textual declares them as variables of an instance.
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (60, "-medium"), (100, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-short"), (16, "-tall")]  # noqa: RUF012

    CSS = """
    ChatScreen #chat { height: 1fr; }
    ChatScreen #side { width: 36; }
    ChatScreen #talk { width: 1fr; }
    ChatScreen #transcript { height: 1fr; border: round $panel; border-title-color: $foreground;
        border-subtitle-color: $text-muted; scrollbar-size-vertical: 1; }
    ChatScreen #transcript:focus, ChatScreen #transcript:focus-within { border: round $border; }
    ChatScreen #introduction { padding: 0 1; color: $text-muted; height: auto; }
    /* At least as high as there is room: an anchored container scrolls to less than 0 over a short content. */
    ChatScreen #turns { height: auto; min-height: 100%; }
    ChatScreen .turn { height: auto; }
    ChatScreen RivalsLine { display: none; }
    ChatScreen.-heat RivalsLine { display: block; }
    ChatScreen PromptArea { height: auto; min-height: 3; max-height: 8; border: round $panel; padding: 0 1;
        background: transparent; border-subtitle-color: $text-muted; border-title-color: $foreground; }
    ChatScreen PromptArea:focus { border: round $border; }
    ChatScreen.-medium #side { width: 28; }
    ChatScreen.-narrow #side, ChatScreen.-short #side { display: none; width: 1fr; }
    ChatScreen.-narrow.-choosing #side, ChatScreen.-short.-choosing #side { display: block; }
    ChatScreen.-narrow.-choosing #talk, ChatScreen.-short.-choosing #talk { display: none; }
    ChatScreen.-short #transcript, ChatScreen.-short ModelList, ChatScreen.-short SamplingPanel { border: none; }
    ChatScreen Footer { scrollbar-size-horizontal: 0; }
    ChatScreen.-short PromptArea { border: none; min-height: 1; max-height: 2; }
    """

    def __init__(self, models: ChatModels | None = None) -> None:
        super().__init__()
        self._models = models or ChatModels()
        self._saved: list[ModelChoice] = []
        self._opened: list[ModelChoice] = []
        self._first: ModelChoice | None = None
        self._second: ModelChoice | None = None
        self._wanted: str | None = None  # a reference to select as soon as it is in the list
        self._answers: dict[int, ChatAnswer] = {}
        self._next_number = 0
        self._stop: threading.Event | None = None  # of the answers under way, None while there are none
        self._heat_map = False
        self._listing = False

    # ---- parts

    @property
    def prompt(self) -> PromptArea:
        """Where one types."""
        return self.query_one(PromptArea)

    @property
    def panel(self) -> SamplingPanel:
        """The sliders."""
        return self.query_one(SamplingPanel)

    @property
    def answers(self) -> list[ChatAnswer]:
        """The transcript, oldest first."""
        return list(self._answers.values())

    def compose(self) -> ComposeResult:
        """Models and sliders beside transcript and prompt."""
        yield ModeBar()
        with Horizontal(id="chat"):
            with Vertical(id="side"):
                yield ModelList(id="models")
                yield SamplingPanel(id="sampling")
            with Vertical(id="talk"):
                with VerticalScroll(id="transcript"), Vertical(id="turns"):
                    yield Static(Text(INTRODUCTION), id="introduction")
                yield RivalsLine()
                yield PromptArea(id="prompt", placeholder="how a text begins")
        yield KeyFooter()

    def on_mount(self) -> None:
        """Reads what there is to talk to, and goes on reading while in front."""
        models = self.query_one(ModelList)
        models.border_title = "models"
        transcript = self.query_one("#transcript")
        transcript.border_title = "transcript"
        self._show_legend()
        self.prompt.border_title = "prompt"
        self.prompt.border_subtitle = "⏎ continue · \\⏎ new line · ^g surprise"
        self.set_interval(REFRESH_SECONDS, self._refresh_models)
        self._refresh_models()
        self.prompt.focus()

    def on_unmount(self) -> None:
        """The thread ends at its next token."""
        if self._stop is not None:
            self._stop.set()

    # ---- which models

    def select_model(self, reference: str | None) -> None:
        """Chooses the model that answers: a CHECKPOINT reference, or None for the live weights."""
        self._wanted = chat_catalog.LIVE if reference is None else reference
        self._take_wanted()
        self._refresh_models()
        self.prompt.focus()

    @on(RunsChanged)
    @on(SessionChanged)
    def refresh_models(self) -> None:
        """A checkpoint more, or no training any more."""
        self._refresh_models()

    def on_screen_resume(self) -> None:
        """What has happened while another mode was in front."""
        self._refresh_models()

    def _refresh_models(self) -> None:
        if self._listing or not self.is_current:
            return
        self._listing = True
        self.run_worker(self._list_models, thread=True, group="models", exit_on_error=False)

    def _list_models(self) -> None:
        try:
            choices = chat_catalog.saved_models()
        except OSError:
            choices = []
        self.post_message(ModelsListed(choices))

    @on(ModelsListed)
    def show_models(self, event: ModelsListed) -> None:
        """Shows them, and settles on one where none is chosen."""
        self._listing = False
        self._saved = event.choices
        if self._wanted is not None:
            self._take_wanted(listed=True)
        self._show_models()

    def _live(self) -> ModelChoice | None:
        session = self.workbench.session
        if session.state not in ("running", "pausing", "paused") or session.run is None:
            return None
        return chat_catalog.live(session.run.name, session.progress.step)

    def _choices(self) -> list[ModelChoice]:
        live = self._live()
        return [*([live] if live else []), *self._opened, *self._saved]

    def _show_models(self) -> None:
        choices = self._choices()
        by_key = {choice.key: choice for choice in choices}
        # A choice that has gone (pruned, deleted, the training has ended) gives way to the first of the list.
        self._first = by_key.get(self._first.key) if self._first else None
        self._second = by_key.get(self._second.key) if self._second else None
        if self._first is None:
            self._first, self._second = self._second or next(iter(choices), None), None
        models = self.query_one(ModelList)
        models.show(choices, self._first, self._second)
        models.border_subtitle = "o opens a folder"

    def _take_wanted(self, listed: bool = False) -> None:
        wanted = self._wanted
        choice: ModelChoice | None
        if wanted is None:
            return
        if wanted == chat_catalog.LIVE:
            choice = self._live()
            if choice is None:
                self._wanted = None
                self._say("no training is running: these are the saved checkpoints", "warning")
                return
        else:
            choice = chat_catalog.meant_by(wanted, self._choices())
            if choice is None and not listed:
                return  # perhaps in a moment, when the runs have been read
            if choice is None:
                choice = chat_catalog.opened(wanted)
                self._opened = [choice, *(c for c in self._opened if c != choice)]
        self._wanted = None
        self._choose(choice)

    @on(ModelList.Chosen)
    def choose(self, event: ModelList.Chosen) -> None:
        """Enter: this model answers. Space: it answers beside the first, or no longer."""
        if not event.second:
            self._choose(event.choice)
            self.remove_class("-choosing")
            self.prompt.focus()
            return
        if self._second is not None and event.choice.key == self._second.key:
            self._second = None
        elif self._first is None or event.choice.key != self._first.key:
            self._second = event.choice
            self._load_ahead(event.choice)
        self._show_models()

    def _choose(self, choice: ModelChoice) -> None:
        if self._second is not None and choice.key == self._second.key:
            self._second = None
        self._first = choice
        self._load_ahead(choice)
        self._show_models()

    def _load_ahead(self, choice: ModelChoice) -> None:
        if choice.reference is not None:
            work = partial(load_model, choice.reference, self._models, self.post_message)
            self.run_worker(work, thread=True, group="load", exit_on_error=False)

    @on(ModelReady)
    def show_facts(self, event: ModelReady) -> None:
        """The model that was chosen is there: its size, and the settings it comes with."""
        if self._first is not None and event.reference == self._first.reference:
            self.panel.suggest(event.facts.sampling)
            self._show_facts(event.facts)

    @on(ModelUnusable)
    def explain_model(self, event: ModelUnusable) -> None:
        """A dialog; a folder that a person named leaves the list again."""
        self._opened = [choice for choice in self._opened if choice.reference != event.reference]
        self._show_models()
        self.workbench.show_error("This model cannot be used", event.message)

    def _show_facts(self, facts: ModelFacts) -> None:
        size = f"{compact(facts.num_parameters)} parameters · context {facts.n_positions:,}"
        self.query_one("#transcript").border_title = Content(f"transcript · {size}")

    def action_open(self) -> None:
        """Asks for a folder or a Hub id."""
        dialog = TextDialog(
            "Open a model", "A folder in Hugging Face GPT-2 form, a checkpoint, a run, or a Hub id (gpt2 is one)."
        )
        self.app.push_screen(dialog, lambda reference: self._open(reference))

    def _open(self, reference: str | None) -> None:
        if reference and reference.strip():
            self.select_model(str(Path(reference.strip()).expanduser()))

    # ---- asking

    @on(PromptArea.Sent)
    def send(self, event: PromptArea.Sent) -> None:
        """Continues what was typed."""
        asked = event.text if self.panel.template and event.text else None
        if self._ask("write", event.text, self.panel.sampling, asked=asked, converse=asked is not None):
            self.prompt.remember(event.text)

    def action_measure(self) -> None:
        """Rates the typed text token by token; without one, the last text of the transcript."""
        text = self.prompt.text or (self.answers[-1].whole if self._answers else "")
        if not text:
            self._say("type or paste a text first; then ^g shows how surprised the model is by it", "warning")
            return
        if len(text) > LONGEST_TEXT:
            self._say(f"only the first {LONGEST_TEXT:,} characters are read")
        if self._ask("read", text[:LONGEST_TEXT], self.panel.sampling) and self.prompt.text:
            self.prompt.remember(text)

    def action_regenerate(self) -> None:
        """The last prompt again, with the next seed."""
        last = next((answer for answer in reversed(self.answers) if answer.request.task == "write"), None)
        if last is None:
            self._say("nothing has been written yet", "warning")
            return
        if self._stop is None:
            self.panel.seed += 1
            self._ask("write", last.request.prompt, self.panel.sampling, asked=last.request.asked)
        else:
            self._say("still writing; esc stops", "warning")

    def action_more(self) -> None:
        """Prompt and continuation become the next prompt."""
        last = next((answer for answer in reversed(self.answers) if answer.request.task == "write"), None)
        if last is not None and last.done:
            self._ask("write", last.continued, self.panel.sampling)

    def _ask(
        self, task: Task, prompt: str, sampling: SamplingTable, *, asked: str | None = None, converse: bool = False
    ) -> bool:
        if self._stop is not None:
            self._say("still writing; esc stops", "warning")
            return False
        if self._first is None:
            self._say("there is no model yet: train one (f3), or open a folder with o", "warning")
            return False
        pairs = []
        for choice in self._asked():
            whole = conversation(self._history(choice), prompt) if converse else prompt
            pairs.append((self._request(choice, task, whole, sampling, asked), choice))
        self._show_turn(pairs)
        self._stop = threading.Event()
        requests = [request for request, _ in pairs]
        work = partial(answer, requests, self._models, self.post_message, self._stop)
        self.run_worker(work, thread=True, group="answer", exit_on_error=False)
        return True

    def _asked(self) -> list[ModelChoice]:
        live = self._live()
        chosen = [choice for choice in (self._first, self._second) if choice is not None]
        return [live if choice.reference is None and live else choice for choice in chosen]

    def _history(self, choice: ModelChoice) -> list[tuple[str, str]]:
        """The conversation with a model so far; of a turn that was written again, the last one counts."""
        turns = {
            shown.request.prompt: (shown.request.asked, spoken(shown.written))
            for shown in self.answers
            if shown.request.asked is not None and shown.choice.key == choice.key and shown.failure is None
        }
        return [(asked, answered) for asked, answered in turns.values() if asked is not None]

    def _request(
        self, choice: ModelChoice, task: Task, prompt: str, sampling: SamplingTable, asked: str | None
    ) -> AnswerRequest:
        live: Future[ChatModel] | None = None
        if choice.reference is None:
            # A Future is only read here, so that one of a TextModel is one of a ChatModel.
            live = cast("Future[ChatModel]", self.workbench.session.copy_weights())
        self._next_number += 1
        return AnswerRequest(self._next_number, task, prompt, sampling, choice.reference, live, asked)

    def _show_turn(self, pairs: Sequence[tuple[AnswerRequest, ModelChoice]]) -> None:
        transcript = self.query_one("#transcript", VerticalScroll)
        self.query_one("#introduction").display = False
        answers = [ChatAnswer(request, choice, heat_map=self._heat_map) for request, choice in pairs]
        for (request, _), shown in zip(pairs, answers, strict=True):
            self._answers[request.number] = shown
        self.query_one("#turns").mount(Horizontal(*answers, classes="turn"))
        while len(self._answers) > MOST_ANSWERS:
            oldest = self._answers.pop(next(iter(self._answers)))
            (oldest.parent if isinstance(oldest.parent, Horizontal) else oldest).remove()
        transcript.anchor()

    # ---- being answered

    @on(AnswerBegun)
    def begin_answer(self, event: AnswerBegun) -> None:
        """A model is there."""
        if (shown := self._answers.get(event.number)) is not None:
            shown.begin(event.facts, event.prompt_tokens)
            self._show_facts(event.facts)

    @on(AnswerGrew)
    def grow_answer(self, event: AnswerGrew) -> None:
        """Some tokens more."""
        if (shown := self._answers.get(event.number)) is not None:
            shown.grow(event.tokens, event.statistics, event.seconds)

    @on(AnswerEnded)
    def end_answer(self, event: AnswerEnded) -> None:
        """It is complete."""
        if (shown := self._answers.get(event.number)) is not None:
            shown.end(event.ending)

    @on(AnswerFailed)
    def fail_answer(self, event: AnswerFailed) -> None:
        """Said where the answer would be, and in a dialog."""
        if (shown := self._answers.get(event.number)) is not None:
            shown.fail(event.message)
        self.workbench.show_error("The model could not answer", event.message)

    @on(AllAnswered)
    def be_ready(self) -> None:
        """The next question can come."""
        self._stop = None

    def action_stop(self) -> None:
        """Stops what is being written; else a step back: from the prompt to the transcript, and back."""
        if self._stop is not None:
            self._stop.set()
        elif self.has_class("-choosing"):
            self.action_settings()
        elif self.prompt.has_focus:
            self.query_one("#transcript").focus()
        else:
            self.prompt.focus()

    # ---- looking, keeping

    @on(TokenText.Pointed)
    def show_rivals(self, event: TokenText.Pointed) -> None:
        """What could have stood there."""
        self.set_class(True, "-heat")
        self.query_one(RivalsLine).token = event.token

    def action_heat_map(self) -> None:
        """Colours all texts by probability, or no longer."""
        self._heat_map = not self._heat_map
        self.set_class(self._heat_map, "-heat")
        self._show_legend()
        for shown in self.answers:
            shown.token_text.heat_map = self._heat_map or shown.request.task == "read"
        if self._heat_map and self._answers:
            self.answers[-1].token_text.focus()
        elif not self._heat_map:
            self.query_one("#transcript").focus()

    def _show_legend(self) -> None:
        transcript = self.query_one("#transcript")
        if self._heat_map:
            transcript.border_subtitle = Content.assemble(
                (" certain ", "$foreground on $success 12%"),
                (" surprising ", "$foreground on $warning 40%"),
                (f" {HOTTEST_BITS:g} bits ", "$foreground on $error 80%"),
            )
        else:
            transcript.border_subtitle = "a base model continues text"

    def action_settings(self) -> None:
        """On a small screen: models and sliders instead of the transcript, and back."""
        choosing = not self.has_class("-choosing")
        self.set_class(choosing, "-choosing")
        (self.query_one(ModelList) if choosing else self.prompt).focus()

    def action_copy(self) -> None:
        """Copies the text that has the focus, else the last one."""
        shown = next((a for a in self.answers if a.token_text.has_focus), self.answers[-1] if self._answers else None)
        if shown is None:
            self._say("nothing has been written yet", "warning")
            return
        text = sanitize(shown.whole)
        self.app.copy_to_clipboard(text)
        self._say(f"copied {len(text):,} characters")

    def action_clear(self) -> None:
        """Forgets the transcript, once nothing is being written."""
        if self._stop is None:
            self._answers.clear()
            self.query(".turn").remove()
            self.query_one("#introduction").display = True
            self.prompt.focus()

    def action_focus_prompt(self) -> None:
        """To where one types."""
        self.prompt.focus()

    def action_save(self) -> None:
        """Asks for a file name."""
        if not self._answers:
            self._say("there is nothing to save yet", "warning")
            return
        name = f"chat-{datetime.now():%Y-%m-%d-%H%M%S}.md"
        dialog = TextDialog("Save the transcript", "As Markdown, into the file", name, validate=_unfit_for_a_file)
        self.app.push_screen(dialog, lambda path: self._save(path))

    def _save(self, name: str | None) -> None:
        if not name:
            return
        path = Path(name.strip()).expanduser()
        if path.exists():
            dialog = ConfirmDialog("Overwrite?", f"{path} exists already.", "Keep it", "!Overwrite")
            self.app.push_screen(dialog, lambda choice: self._write(path) if choice == "!Overwrite" else None)
        else:
            self._write(path)

    def _write(self, path: Path) -> None:
        text = as_markdown([shown.record() for shown in self.answers], datetime.now())
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        except (OSError, ValueError) as error:
            self.workbench.show_error("The transcript was not saved", f"{path}: {error}")
            return
        self._say(f"saved {path}")

    def _say(self, text: str, severity: str = "information") -> None:
        notify = partial(self.app.notify, sanitize(text, keep_newlines=False), markup=False)
        notify(severity="warning") if severity == "warning" else notify()


def _unfit_for_a_file(name: str) -> str | None:
    if not name.strip():
        return "a file needs a name"
    return "this is a folder" if Path(name.strip()).expanduser().is_dir() else None
