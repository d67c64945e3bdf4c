"""The Chat screen: models on the left, their answers on the right."""

import contextlib
import threading
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.events import Event, Key, Paste, ScreenSuspend
from textual.message import Message
from textual.notifications import SeverityLevel
from textual.widget import Widget
from textual.widgets import Input, TextArea

from gpt2tui.errors import Gpt2TuiError, ResourceError
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.schema import SamplingTable
from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tui.base import ModeScreen, in_own_thread
from gpt2tui.tui.chat import exporting
from gpt2tui.tui.chat import models as chat_models
from gpt2tui.tui.chat.engine import (
    AllAnswered,
    AnswerBegun,
    AnswerFailed,
    AnswerRequest,
    ChatModels,
    ModelReady,
    ModelUnusable,
    Task,
    TemplateUse,
    answer,
    conversation,
    load_ahead,
)
from gpt2tui.tui.chat.evaluating import EvaluateScreen
from gpt2tui.tui.chat.exporting import ExportEnded, ExportProgress
from gpt2tui.tui.chat.model_list import ModelList, ModelPicker
from gpt2tui.tui.chat.models import LIVE, ModelChoice, SelectedModels
from gpt2tui.tui.chat.prompt import PromptArea
from gpt2tui.tui.chat.record import transcript_markdown
from gpt2tui.tui.chat.sampling import SamplingPanel, SeedInput
from gpt2tui.tui.chat.saving import ask_and_write
from gpt2tui.tui.chat.token_text import AlternativesLine, TokenText
from gpt2tui.tui.chat.transcript import ChatAnswer, Transcript
from gpt2tui.tui.messages import RunsChanged, SessionChanged
from gpt2tui.tui.widgets.dialogs import TextDialog
from gpt2tui.tui.widgets.key_footer import KeyFooter
from gpt2tui.tui.widgets.mode_bar import ModeBar

LONGEST_TEXT = 100_000
REFRESH_SECONDS = 5.0


def takes_letters(focused: Widget | None) -> bool:
    """Whether letters are text where the focus is. Without a focus they go to the prompt; a seed has none."""
    return focused is None or (isinstance(focused, Input | TextArea) and not isinstance(focused, SeedInput))


@dataclass
class ModelsListed(Message):
    """The checkpoints of all runs have been read."""

    choices: list[ModelChoice]


class ChatScreen(ModeScreen):
    """One model answers, or two side by side with the same seed, in a thread that can be stopped."""

    AUTO_FOCUS = ""  # `on_mount` focuses the prompt and replays what was typed before

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "Stop", key_display="esc"),
        Binding("escape", "back", "Back", key_display="esc", tooltip="One step back: from a part to the transcript"),
        Binding("ctrl+r", "regenerate", "Again", tooltip="The last prompt again, with the next seed"),
        Binding("ctrl+g", "score", "Surprisal", tooltip="The surprisal of each token of the typed text"),
        Binding("ctrl+s", "save", "Save", tooltip="The transcript as Markdown", show=False),
        Binding(
            "h,ctrl+t", "heat_map", "Heat", tooltip="Tokens coloured by probability, alternatives under the cursor"
        ),
        Binding("c", "copy", "Copy", tooltip="Copy the last text, also over ssh"),
        Binding("m", "more", "More", tooltip="Continue the last text", show=False),
        Binding("s", "settings", "Settings", tooltip="Models and sliders, on a small terminal", show=False),
        # Handled before other keys: what is typed after it belongs in the prompt.
        Binding("i", "focus_prompt", "Write", show=False, priority=True),
        Binding("o", "open", "Open", tooltip="A folder in Hugging Face GPT-2 form, or a Hub id", show=False),
        Binding(
            "e",
            "evaluate",
            "Evaluate",
            tooltip="Measure the chosen model: perplexity, tasks, known answers",
            show=False,
        ),
        Binding("x", "export", "Export", tooltip="The chosen model for another program", show=False),
        Binding("slash", "filter", "Filter the models", key_display="/", show=False),
        Binding("ctrl+l", "clear", "Clear", tooltip="Remove the transcript", show=False),
    ]
    CSS_PATH = "screen.tcss"

    # Not ClassVar: Textual declares them as variables of an instance.
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (60, "-medium"), (100, "-wide"), (150, "-huge")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-short"), (16, "-tall")]  # noqa: RUF012

    def __init__(self, models: ChatModels | None = None) -> None:
        super().__init__()
        self._models = models or ChatModels()
        self.chosen = SelectedModels()
        """The listed models, and which of them answer."""
        self._next_number = 0
        self._stop: threading.Event | None = None  # stops the answers in progress; None while there are none
        self._listing = False
        self._exporting = False
        self._typed_early: list[Event] | None = []  # None once the prompt is mounted
        self._sent_early: PromptArea.Sent | None = None  # sent before the models were listed
        self._suggested_for: str | None = None  # the key of the model whose settings were suggested last

    # ---- parts

    @property
    def prompt(self) -> PromptArea:
        """The text to continue."""
        return self.query_one(PromptArea)

    @property
    def panel(self) -> SamplingPanel:
        """The sampling settings."""
        return self.query_one(SamplingPanel)

    @property
    def transcript(self) -> Transcript:
        """The prompts and their answers."""
        return self.query_one(Transcript)

    @property
    def answers(self) -> list[ChatAnswer]:
        """The answers in the transcript, oldest first."""
        return self.transcript.answers

    def compose(self) -> ComposeResult:
        """Models and sliders beside transcript and prompt."""
        yield ModeBar()
        with Horizontal(id="chat"):
            with Vertical(id="side"):
                yield ModelPicker(id="models")
                yield SamplingPanel(id="sampling")
            with Vertical(id="talk"):
                yield Transcript(id="transcript")
                yield AlternativesLine()
                yield PromptArea(id="prompt", placeholder="how a text begins")
        yield KeyFooter()

    def on_mount(self) -> None:
        """Lists the models now and repeatedly while the screen is in front."""
        self.prompt.border_title = "prompt"
        self.prompt.border_subtitle = "⏎ continue · \\⏎ new line · ^g surprisal"
        self.set_interval(REFRESH_SECONDS, self._refresh_models)
        self._refresh_models()
        self.set_focus(self.prompt)
        typed, self._typed_early = self._typed_early or [], None
        for event in typed:
            self.prompt._forward_event(event)

    def _forward_event(self, event: Event) -> None:
        """Sends keys to the prompt while no widget has the focus, so that no letter of a text acts as a command.

        No widget has it while the screen is being made, and after a click outside all widgets.
        """
        if not isinstance(event, Key | Paste):
            super()._forward_event(event)
        elif self._typed_early is not None:
            self._typed_early.append(event)
        elif self.prompt.focusable:
            self.set_focus(self.prompt)
            self.prompt._forward_event(event)
        else:
            super()._forward_event(event)

    @on(ScreenSuspend)
    def leave(self) -> None:
        """Focuses the prompt when another mode comes to the front; after a dialog the focus stays as it was."""
        if self.app.screen_stack[0] is not self and self.prompt.focusable:
            self.set_focus(self.prompt)

    def on_unmount(self) -> None:
        """The thread ends at its next token."""
        if self._stop is not None:
            self._stop.set()

    # ---- models

    def select_model(self, reference: str | None) -> None:
        """Chooses the model that answers: a CHECKPOINT reference, or None for the live weights."""
        self.chosen.want(reference)
        self._take_wanted(listed=False)
        self._refresh_models()
        self.prompt.focus()

    @on(RunsChanged)
    @on(SessionChanged)
    def refresh_models(self) -> None:
        """A checkpoint was saved or deleted, or the training has changed its state."""
        self._follow_training()
        self._refresh_models()

    def on_screen_resume(self) -> None:
        """Lists the models again."""
        self._refresh_models()

    def _follow_training(self) -> None:
        """Leaves the GPU's memory to the training of this process, also while another mode is in front."""
        gpu_use = chat_models.gpu_use_beside(self.workbench.session)
        if gpu_use != self._models.gpu_use:
            self._models.gpu_use = gpu_use
            self.run_worker(self._models.forget_misplaced, thread=True, group="place", exit_on_error=False)

    def _refresh_models(self) -> None:
        if self._listing or not self.is_current:
            return
        self._listing = True
        self.run_worker(self._list_models, thread=True, group="models", exit_on_error=False)

    def _list_models(self) -> None:
        try:
            choices = chat_models.saved_models()
        except OSError:
            choices = []
        self.post_message(ModelsListed(choices))

    @on(ModelsListed)
    def show_models(self, event: ModelsListed) -> None:
        """Shows the models, chooses one if none is chosen, and sends a prompt that waited."""
        self._listing = False
        self._update_chosen(event.choices)
        self._take_wanted(listed=True)
        self._show_models()
        if self._sent_early is not None:
            sent, self._sent_early = self._sent_early, None
            self.send(sent)

    def _update_chosen(self, saved: list[ModelChoice] | None = None) -> None:
        run, before = self.workbench.session.run, self.chosen.answering
        self.chosen.update(self._live(), saved, run.name if run else None)
        self._suggest_sampling()
        listed = {choice.key for choice in self.chosen.all}
        for choice in before:
            if choice.key not in listed and choice.key != LIVE and len(before) > 1:
                self._say(f"{choice.label} is no longer there and does not answer beside the other", "warning")

    def _suggest_sampling(self) -> None:
        """Takes the settings of the first model's preset, before it is loaded; once for each model."""
        first, loaded = self.chosen.first, self.workbench.session.loaded
        if first is None or first.key == self._suggested_for:
            return
        self._suggested_for = first.key
        if first.reference is not None:
            with contextlib.suppress(Gpt2TuiError, OSError):  # models of other programs have no preset
                self.panel.suggest(preset_files.load_frozen(Path(first.reference) / "preset.toml").sampling)
        elif loaded is not None:
            self.panel.suggest(loaded.preset.sampling)

    def _live(self) -> ModelChoice | None:
        session = self.workbench.session
        if session.state not in ("training", "pausing", "paused") or session.run is None:
            return None
        return chat_models.live_weights(session.run.name, session.progress.step)

    def _take_wanted(self, listed: bool) -> None:
        self._update_chosen()
        taken = self.chosen.take_wanted(listed)
        if isinstance(taken, ModelChoice):
            self._load_ahead(taken)
            self._show_models()
        elif taken == "no training":
            self._say("no training is running: these are the saved checkpoints", "warning")

    def _show_models(self) -> None:
        self.query_one(ModelPicker).show(self.chosen.all, self.chosen.first, self.chosen.second)
        self.transcript.show_models(self.chosen.answering)

    @on(ModelList.Chosen)
    def choose(self, event: ModelList.Chosen) -> None:
        """Enter: this model answers. Space: it answers beside the first, or no longer."""
        if not event.second:
            self.chosen.choose(event.choice)
            self._load_ahead(event.choice)
            self.remove_class("-choosing")
            self.prompt.focus()
        elif self.chosen.choose_second(event.choice):
            self._load_ahead(event.choice)
        self._show_models()

    def _load_ahead(self, choice: ModelChoice) -> None:
        if choice.reference is not None:
            self._follow_training()
            work = partial(load_ahead, choice.reference, self._models, self.post_message)
            self.run_worker(partial(in_own_thread, work, "load"), thread=True, group="load", exit_on_error=False)

    @on(ModelReady)
    def show_facts(self, event: ModelReady) -> None:
        """Shows the facts of the chosen model, and takes its sampling settings."""
        if self.chosen.first is not None and event.reference == self.chosen.first.reference:
            self.panel.suggest(event.facts.sampling)
            self.panel.suggest_template(event.facts.template is not None)
            self.transcript.show_facts(self.chosen.first, event.facts)

    @on(ModelUnusable)
    def explain_model(self, event: ModelUnusable) -> None:
        """Shows the error; a folder that the user named is removed from the list."""
        self.chosen.forget_opened(event.reference)
        self._update_chosen()
        self._show_models()
        self.workbench.show_error("This model cannot be used", event.message)

    def action_filter(self) -> None:
        """Filters the models by words."""
        if self.has_class("-narrow") or self.has_class("-short"):
            self.add_class("-choosing")
        self.query_one(ModelPicker).open_filter()

    def action_open(self) -> None:
        """Asks for a folder or a Hub id."""
        dialog = TextDialog(
            "Open a model", "A folder in Hugging Face GPT-2 form, a checkpoint, a run, or a Hub id (gpt2 is one)."
        )
        self.app.push_screen(dialog, self._open)

    def _open(self, reference: str | None) -> None:
        if reference and reference.strip():
            self.select_model(str(Path(reference.strip()).expanduser()))

    # ---- prompts

    @on(PromptArea.Sent)
    def send(self, event: PromptArea.Sent) -> None:
        """Continues the prompt, once the models are listed."""
        if self._listing and not self.chosen.answering:
            if self._sent_early is not None:
                self.prompt.put_back(event.text)
            self._sent_early = self._sent_early or event
            return
        use = self.panel.template if event.text else "off"
        asked = None if use == "off" else event.text
        if not self._ask("continue", event.text, self.panel.sampling, asked=asked, use=use):
            self.prompt.put_back(event.text)

    def action_score(self) -> None:
        """Scores the typed text token by token; without one, the last text of the transcript."""
        last = self.transcript.last
        text = self.prompt.text or (last.whole if last else "")
        if not text:
            self._say("type or paste a text first; then ^g shows the surprisal of its tokens", "warning")
            return
        if len(text) > LONGEST_TEXT:
            self._say(f"only the first {LONGEST_TEXT:,} characters are scored")
        if self._ask("score", text[:LONGEST_TEXT], self.panel.sampling) and self.prompt.text:
            self.prompt.remember(text)
            self.prompt.text = ""

    def action_regenerate(self) -> None:
        """The last prompt again, with the next seed."""
        last = self.transcript.last_written
        if last is None:
            self._say("nothing has been written yet", "warning")
        elif self._stop is None:
            self.panel.seed += 1
            self._ask("continue", last.request.prompt, self.panel.sampling, again=last.request)
        else:
            self._say("still writing; esc stops", "warning")

    def action_more(self) -> None:
        """Prompt and continuation become the next prompt."""
        last = self.transcript.last_written
        if last is not None and last.done:
            self._ask("continue", last.text_to_continue, self.panel.sampling)

    def _ask(
        self,
        task: Task,
        prompt: str,
        sampling: SamplingTable,
        *,
        asked: str | None = None,
        use: TemplateUse = "off",
        again: AnswerRequest | None = None,
    ) -> bool:
        if self._stop is not None:
            self._say("still writing; esc stops", "warning")
            return False
        self._update_chosen()
        if not self.chosen.answering:
            self._say("there is no model yet: train one (f3), or open a folder with o", "warning")
            return False
        pairs = []
        for choice in self.chosen.answering:
            request = self._request(choice, task, prompt, sampling)
            if again is not None:
                request = replace(request, asked=again.asked, template=again.template, history=again.history)
            elif asked is not None:
                history = tuple(self.transcript.conversation_with(choice))
                whole = conversation(history, prompt) if use == "on" else prompt
                request = replace(request, prompt=whole, asked=asked, template=use, history=history)
            pairs.append((request, choice))
        self.transcript.add_turn(pairs)
        self._follow_training()
        self._stop = threading.Event()
        self.refresh_bindings()
        requests = [request for request, _ in pairs]
        work = partial(answer, requests, self._models, self.transcript.post_message, self._stop)
        self.run_worker(partial(in_own_thread, work, "answer"), thread=True, group="answer", exit_on_error=False)
        return True

    def _request(self, choice: ModelChoice, task: Task, prompt: str, sampling: SamplingTable) -> AnswerRequest:
        live = self.workbench.session.copy_weights() if choice.reference is None else None
        self._next_number += 1
        return AnswerRequest(self._next_number, task, prompt, sampling, choice.reference, live)

    @on(AnswerBegun)
    def show_template(self, event: AnswerBegun) -> None:
        """Shows whether the first model has a template of its own."""
        first = self.chosen.first
        if first is not None and any(
            a.request.number == event.number and a.choice.key == first.key for a in self.answers
        ):
            self.panel.suggest_template(event.facts.template is not None)

    @on(AnswerFailed)
    def explain_failure(self, event: AnswerFailed) -> None:
        """Shows the error in a dialog; the transcript shows it as well."""
        self.workbench.show_error("The model could not answer", event.message)

    @on(AllAnswered)
    def be_ready(self) -> None:
        """Allows the next prompt."""
        self._stop = None
        self.refresh_bindings()

    def action_stop(self) -> None:
        """Stops the answers."""
        if self._stop is not None:
            self._stop.set()

    def action_back(self) -> None:
        """Closes the settings of a small screen, else moves to the transcript, where letters act."""
        if self.has_class("-choosing"):
            self.action_settings()
        elif self.transcript.has_focus or self.transcript.has_focus_within:
            self._say("i or tab: write a prompt")
        else:
            self.transcript.focus_text()

    # ---- the transcript: heat map, copy, save

    @on(TokenText.Pointed)
    def show_alternatives(self, event: TokenText.Pointed) -> None:
        """Shows the alternatives of the token under the cursor."""
        self.set_class(True, "-heat")
        self.query_one(AlternativesLine).token = event.token

    def action_heat_map(self) -> None:
        """Switches the heat map on or off."""
        self.transcript.switch_heat_map()
        self.set_class(self.transcript.heat_map, "-heat")

    def action_settings(self) -> None:
        """On a small screen: models and sliders instead of the transcript, and back."""
        choosing = not self.has_class("-choosing")
        self.set_class(choosing, "-choosing")
        (self.query_one(ModelList) if choosing else self.prompt).focus()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """In a text field, i is a letter; escape stops answers while there are any."""
        if action in ("stop", "back"):
            return (action == "stop") == (self._stop is not None)
        return action != "focus_prompt" or not takes_letters(self.focused)

    def action_focus_prompt(self) -> None:
        """Focuses the prompt."""
        self.set_focus(self.prompt)

    def action_clear(self) -> None:
        """Removes the transcript, unless a model is answering."""
        if self._stop is None:
            self.transcript.remove_turns()
            self.prompt.focus()

    def action_copy(self) -> None:
        """Copies the text that has the focus, else the last one."""
        shown = next((a for a in self.answers if a.token_text.has_focus), self.transcript.last)
        if shown is None:
            self._say("nothing has been written yet", "warning")
            return
        text = sanitize(shown.whole)
        self.app.copy_to_clipboard(text)
        self._say(f"copied {len(text):,} characters")

    @work(exit_on_error=False)
    async def action_save(self) -> None:
        """Writes the transcript into a file that the user names."""
        if not self.answers:
            self._say("there is nothing to save yet", "warning")
            return
        now = datetime.now()
        title, text, suggested = "Save the transcript", "As Markdown, into the file", f"chat-{now:%Y-%m-%d-%H%M%S}.md"
        try:
            path = await ask_and_write(
                self.app, title, text, suggested, lambda: transcript_markdown(self.transcript.records(), now)
            )
        except ResourceError as error:
            self.workbench.show_error("The transcript was not saved", str(error))
            return
        if path is not None:
            self._say(f"saved {path}")

    # ---- evaluation and export

    def action_evaluate(self) -> None:
        """Opens the Evaluate page for the chosen model."""
        choice = self.chosen.first
        if choice is None or choice.reference is None:
            self._say("choose a saved model to measure; live weights are saved as a checkpoint first", "warning")
            return
        self.app.push_screen(EvaluateScreen(choice, self._models))

    @work(exit_on_error=False)
    async def action_export(self) -> None:
        """Exports the chosen model, an adapter with its base, in a format and to a place that the user chooses."""
        choice = self.chosen.first
        if choice is None or choice.reference is None:
            self._say("choose a saved model to export; live weights are saved as a checkpoint first", "warning")
            return
        if self._exporting:
            self._say("still exporting", "warning")
            return
        try:
            is_adapter = exporting.is_adapter_reference(choice.reference)
        except Gpt2TuiError as error:
            self._say(str(error), "warning")
            return
        asked = await exporting.ask(self.app, choice.group, is_adapter)
        if asked is not None:
            self._exporting = True
            work = partial(exporting.export_model, choice.reference, is_adapter, *asked, self.post_message)
            self.run_worker(work, thread=True, group="export", exit_on_error=False)

    @on(ExportProgress)
    def show_export(self, event: ExportProgress) -> None:
        """Shows what is being done above the prompt."""
        self.prompt.border_title = f"prompt · exporting: {event.doing}"

    @on(ExportEnded)
    def end_export(self, event: ExportEnded) -> None:
        """Shows where the model is and how it was checked, or the error."""
        self._exporting = False
        self.prompt.border_title = "prompt"
        if event.error:
            self.workbench.show_error("The model was not exported", event.error)
        else:
            self._say("; ".join([f"exported to {event.to}", *event.checks]))

    def _say(self, text: str, severity: SeverityLevel = "information") -> None:
        self.notify(sanitize(text, keep_newlines=False), severity=severity, markup=False)
