"""The Evaluate page over the Chat screen: what `gpt2tui eval` measures of the chosen model, and its table."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from rich.console import Group
from rich.table import Table
from rich.text import Text
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, OptionList, Static

from gpt2tui.errors import Gpt2TuiError, ResourceError, UsageError
from gpt2tui.evaluation.report import Item, Report, Watcher
from gpt2tui.evaluation.request import EvaluationRequest
from gpt2tui.system.host_memory import load_torch
from gpt2tui.system.shell import shell_line
from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tui.base import ModeScreen, in_own_thread
from gpt2tui.tui.chat import models as chat_models
from gpt2tui.tui.chat.engine import ChatModels, is_on_gpu
from gpt2tui.tui.chat.measures import FIELDS, MEASURES, Measure, placeholder
from gpt2tui.tui.chat.models import ModelChoice
from gpt2tui.tui.widgets.key_footer import KeyFooter
from gpt2tui.tui.widgets.mode_bar import ModeBar

if TYPE_CHECKING:
    from gpt2tui.generation import GpuUse, TextModel

SECONDS_BETWEEN_MESSAGES = 0.1


@dataclass
class EvaluationAdvanced(Message):
    """An evaluation has come so far."""

    doing: str


@dataclass
class EvaluationEnded(Message):
    """An evaluation has a report, or an error; neither when it was cancelled."""

    request: EvaluationRequest
    warnings: tuple[str, ...]
    report: Report | None = None
    error: str = ""


class CancelledError(Exception):
    """The user has cancelled an evaluation."""


@dataclass
class MessageWatcher(Watcher):
    """Posts what an evaluation does, and ends it when the user or the GPU's memory asks for it."""

    post: Callable[[Message], object]
    gpu_use: "Callable[[], GpuUse]"
    stop: threading.Event = field(default_factory=threading.Event)
    warnings: list[str] = field(default_factory=list)
    _doing: str = ""
    _on_gpu: bool = False
    _posted_at: float = 0.0

    def loaded(self, model: "TextModel") -> None:
        """Notes where the model is."""
        self._on_gpu = is_on_gpu(model)

    def say(self, text: str) -> None:
        """Posts what is done next."""
        self._doing = text
        self.post(EvaluationAdvanced(text))

    def warn(self, text: str) -> None:
        """Keeps a warning for the report."""
        self.warnings.append(text)

    def over(self, items: Iterable[Item], unit: str, total: int | None = None) -> Iterator[Item]:
        """Posts how many items there were, a few times a second. Raises CancelledError and ResourceError."""
        for number, item in enumerate(items, 1):
            if self.stop.is_set():
                raise CancelledError
            if self._on_gpu and self.gpu_use() == "none":
                raise ResourceError("a training starts and needs the GPU's memory; measured again, it is on the CPU")
            now = time.monotonic()
            if unit and now - self._posted_at >= SECONDS_BETWEEN_MESSAGES:
                self._posted_at = now
                of = f"{number:,}" if total is None else f"{number:,} of {total:,}"
                self.post(EvaluationAdvanced(f"{self._doing} · {of} {unit}"))
            yield item


def evaluate(request: EvaluationRequest, models: ChatModels, watcher: MessageWatcher) -> None:
    """The body of a worker: measures in a thread of its own, and posts EvaluationEnded."""

    def work() -> Report:
        load_torch()
        from gpt2tui.evaluation.measuring import measure

        models.make_room(1)
        return measure(request, watcher, watcher.gpu_use())

    ended = partial(EvaluationEnded, request)
    error = "an unexpected error, which the log has"
    report = None
    try:
        report = in_own_thread(work, "evaluate")
        error = "" if report.failure is None else str(report.failure)
    except CancelledError:
        error = ""
    except Gpt2TuiError as expected:
        error = str(expected)
    finally:
        watcher.post(ended(tuple(watcher.warnings), report, error))


class EvaluateScreen(ModeScreen):
    """What to measure on the left, and the reports, which are kept until the page is closed."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Back", key_display="esc", tooltip="cancel what is measured, else close the page"),
        Binding("ctrl+r", "measure", "Measure", tooltip="measure the model; so does enter in a list or field"),
        Binding("c", "copy", "Copy", tooltip="copy the command line that measures the same"),
        Binding("j", "down", "Down", show=False),
        Binding("k", "up", "Up", show=False),
    ]
    CSS_PATH = "evaluating.tcss"

    # Not ClassVar: Textual declares them as variables of an instance.
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012

    def __init__(self, choice: ModelChoice, models: ChatModels) -> None:
        super().__init__()
        assert choice.reference is not None
        self._reference, self._label = choice.reference, choice.label
        self._models = models
        self._watcher: MessageWatcher | None = None  # of the evaluation in progress

    def compose(self) -> ComposeResult:
        """The list over the fields, beside the reports."""
        yield ModeBar()
        with Horizontal(id="evaluate"):
            with Vertical(id="asked") as asked:
                asked.border_title = Content(f"Evaluate {self._label}")
                yield OptionList(*(each.name for each in MEASURES), id="measures", markup=False)
                yield Static(id="meaning", markup=False)
                for name, label in FIELDS.items():
                    with Horizontal(classes="field", id=f"field-{name.replace('_', '-')}"):
                        yield Static(label, markup=False)
                        yield Input(compact=True, id=f"input-{name.replace('_', '-')}")
                yield Static(id="doing", markup=False)
            with VerticalScroll(id="reports") as reports:
                reports.border_title = "Results"
                yield Static("⏎ measures · c copies the command line that does the same", id="no-report", markup=False)
        yield KeyFooter()

    def on_mount(self) -> None:
        """Begins with the validation text."""
        self.query_one("#measures", OptionList).highlighted = 0
        self.query_one("#measures").focus()

    def on_unmount(self) -> None:
        """An evaluation in progress ends at its next window or row."""
        self._cancel()

    @property
    def measure(self) -> Measure:
        """What is chosen."""
        return MEASURES[self.query_one("#measures", OptionList).highlighted or 0]

    @on(OptionList.OptionHighlighted)
    def show_fields(self) -> None:
        """Shows the fields of what is chosen, and what they are when empty."""
        measure = self.measure
        self.query_one("#meaning", Static).update(measure.meaning)
        for name in FIELDS:
            self.query_one(f"#field-{name.replace('_', '-')}").display = name in measure.fields
            self.query_one(f"#input-{name.replace('_', '-')}", Input).placeholder = placeholder(measure, name)
        if self._watcher is None:
            self._show_doing("")

    def _request(self) -> EvaluationRequest:
        """What the fields ask for. Raises UsageError."""
        inputs = {name: self.query_one(f"#input-{name.replace('_', '-')}", Input).value for name in FIELDS}
        return self.measure.request(self._reference, inputs)

    @on(OptionList.OptionSelected)
    @on(Input.Submitted)
    def action_measure(self) -> None:
        """Measures the model in a thread."""
        if self._watcher is not None:
            self.notify("still measuring; esc cancels", severity="warning", markup=False)
            return
        try:
            request = self._request()
        except UsageError as error:
            self._show_doing(str(error), is_error=True)
            return
        session = self.workbench.session
        self._watcher = MessageWatcher(self.post_message, lambda: chat_models.gpu_use_beside(session))
        self._show_doing("reading the model")
        work = partial(evaluate, request, self._models, self._watcher)
        self.run_worker(work, thread=True, group="evaluate", exit_on_error=False)

    @on(EvaluationAdvanced)
    def show_progress(self, event: EvaluationAdvanced) -> None:
        """Shows what is being done."""
        if self._watcher is not None and not self._watcher.stop.is_set():
            self._show_doing(event.doing)

    @on(EvaluationEnded)
    def end(self, event: EvaluationEnded) -> None:
        """Shows the report above the earlier ones, or the error."""
        self._watcher = None
        done = "" if event.report else "cancelled"
        self._show_doing(event.error or done, is_error=bool(event.error))
        if event.report is not None:
            self.query("#no-report").remove()
            report = Static(rendered(event.report, event.warnings), classes="report")
            report.border_title = Content(shell_line(event.request.words()))
            self.query_one("#reports").mount(report, before=0)
        if not self.is_current:
            self.notify(sanitize(event.error) or f"Evaluate: {self._label} is measured", markup=False)

    def _show_doing(self, text: str, *, is_error: bool = False) -> None:
        doing = self.query_one("#doing", Static)
        doing.update(Content(sanitize(text)))
        doing.set_class(is_error, "-error")

    def action_back(self) -> None:
        """Cancels what is measured; otherwise closes the page."""
        if self._watcher is None:
            self.dismiss(None)
        elif not self._watcher.stop.is_set():
            self._cancel()
            self._show_doing("cancelling")

    def _cancel(self) -> None:
        if self._watcher is not None:
            self._watcher.stop.set()

    def action_copy(self) -> None:
        """Copies the command line that measures the same."""
        try:
            line = shell_line(self._request().words())
        except UsageError as error:
            self._show_doing(str(error), is_error=True)
            return
        self.app.copy_to_clipboard(line)
        self.notify(sanitize(f"copied: {line}"), markup=False)

    def action_down(self) -> None:
        """The next line of the list."""
        self.query_one("#measures", OptionList).action_cursor_down()

    def action_up(self) -> None:
        """The line before it."""
        self.query_one("#measures", OptionList).action_cursor_up()


def rendered(report: Report, warnings: Iterable[str] = ()) -> Group:
    """The lines, the table and the notes that `gpt2tui eval` prints, after its warnings."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in report.headings:
        table.add_column(heading.text, justify="right" if heading.right else "left", overflow="fold")
    for row in report.rows:
        table.add_row(*(Text(sanitize(cell)) for cell in row))
    texts = [Text(sanitize(line)) for line in report.lines]
    notes = [Text(sanitize(note), "dim") for note in report.notes]
    return Group(*(Text(sanitize(f"warning: {warning}"), "bold") for warning in warnings), *texts, table, *notes)
