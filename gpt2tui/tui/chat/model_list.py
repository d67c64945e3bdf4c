"""The list of models: live weights first, then the checkpoints under the names of their runs."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import set_cell_size
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option

from gpt2tui.system.numbers import compact
from gpt2tui.system.terminal_text import sanitize
from gpt2tui.tui.chat.models import ModelChoice
from gpt2tui.tui.widgets.field_input import FieldInput
from gpt2tui.tui.widgets.mode_bar import shorten_middle

RUN_NAME = re.compile(r"(\d{4})-(\d{2})-(\d{2})-(\d{2})(\d{2})(\d{2})-(.+)")
SIGNS = {"live": "●", "best val loss": "★", "newest": "▸"}


class ModelList(OptionList):
    """Enter or a click chooses the model that answers; space, a second one beside it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select", "Choose"),
        Binding("space", "pick_second", "Compare", tooltip="A second model answers side by side, with the same seed"),
        Binding("j", "cursor_down", "Down", show=False),
        Binding("k", "cursor_up", "Up", show=False),
    ]

    DEFAULT_CSS = """
    ModelList { height: 1fr; min-height: 3; padding: 0 1; border: round $panel; border-title-color: $foreground;
        border-subtitle-color: $text-muted; background: transparent; scrollbar-size-vertical: 1;
        text-wrap: nowrap; text-overflow: ellipsis; overflow-x: hidden; scrollbar-gutter: stable; }
    ModelList:focus { border: round $border; background: transparent; background-tint: transparent; }
    ModelList > .option-list--option-disabled { color: $text-muted; text-style: none; }
    ModelList > .option-list--option { padding: 0; }
    """

    @dataclass
    class Chosen(Message):
        """A model was chosen; `second`: to answer beside the first."""

        choice: ModelChoice
        second: bool

    def __init__(self) -> None:
        super().__init__(markup=False)
        self._choices: dict[str, ModelChoice] = {}
        self._shown: tuple[tuple[ModelChoice, ...], ModelChoice | None, ModelChoice | None, str, int] | None = None

    def show(
        self,
        choices: Sequence[ModelChoice],
        first: ModelChoice | None,
        second: ModelChoice | None,
        empty: str = "no checkpoint yet",
    ) -> None:
        """Shows these models, `first` and `second` marked, or `empty`; the highlight stays on the model it was on."""
        width = max(12, self.scrollable_content_region.width)
        shown = (tuple(choices), first, second, empty, width)
        if shown == self._shown:
            return
        self._shown = shown
        self._choices = {choice.key: choice for choice in choices}
        before = self.highlighted_choice
        options: list[Option] = []
        group = ""
        lines = group_lines(list(dict.fromkeys(choice.group for choice in choices)), width)
        for choice in choices:
            if choice.group != group:
                group = choice.group
                options.append(Option(Content(lines[group]), disabled=True))
            mark = _mark(choice, first, second)
            options.append(Option(_line(choice, mark, width), id=choice.key))
        if not choices:
            options.append(Option(empty, disabled=True))
        self.clear_options()
        self.add_options(options)
        key = before.key if before is not None else first.key if first is not None else None
        if key in self._choices:
            self.highlighted = self.get_option_index(str(key))

    def on_resize(self) -> None:
        """Lays out the columns again."""
        if self._shown is not None:
            self.show(*self._shown[:4])

    @property
    def highlighted_choice(self) -> ModelChoice | None:
        """The model under the cursor."""
        option = self.highlighted_option
        return self._choices.get(option.id) if option is not None and option.id is not None else None

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Chooses the model that answers."""
        event.stop()
        if event.option_id in self._choices:
            self.post_message(self.Chosen(self._choices[str(event.option_id)], second=False))

    def action_pick_second(self) -> None:
        """Chooses or removes the model that answers beside the first."""
        if (choice := self.highlighted_choice) is not None:
            self.post_message(self.Chosen(choice, second=True))


def _mark(choice: ModelChoice, first: ModelChoice | None, second: ModelChoice | None) -> str:
    is_first = first is not None and choice.key == first.key
    if is_first:
        return "A" if second is not None else "✓"
    return "B" if second is not None and choice.key == second.key else ""


def group_lines(groups: Sequence[str], width: int) -> dict[str, str]:
    """A line for each run: its name, cut in the middle, then its date, with seconds where lines would be equal."""
    lines = {group: _group_line(group, width, "{1}-{2} {3}:{4}") for group in groups}
    count = Counter(lines.values())
    return {
        group: line if count[line] == 1 else _group_line(group, width, "{1}-{2} {3}:{4}:{5}")
        for group, line in lines.items()
    }


def _group_line(group: str, width: int, form: str) -> str:
    name = sanitize(group, keep_newlines=False)
    if (found := RUN_NAME.fullmatch(name)) is None:
        return shorten_middle(name, width)
    *digits, name = found.groups()
    date = form.format(*digits)
    room = max(width - len(date) - 2, 8)
    return f"{set_cell_size(shorten_middle(name, room), room)}  {date}"[:width]


def _line(choice: ModelChoice, mark: str, width: int) -> Content:
    """`A ★ best val loss  1,200  2.913`: mark, kind, step, val_loss; on a narrow list a shorter kind, then no loss."""
    sign = f"{mark or ' '} {SIGNS.get(choice.kind, ' ')}"
    if choice.reference is not None and choice.step is None:
        line = f"{mark or ' '}   published layout"
    else:
        step = f"{choice.step:,}" if choice.step is not None else ""
        loss = f"{choice.val_loss:.3f}" if choice.val_loss is not None else "·"
        # A fixed column for the losses where the width allows it.
        ways = [(f"{sign} {choice.kind}", f"{step}{loss:>8}"), (f"{sign} {choice.kind}", f"{step} {loss}")]
        short = f"{sign} {choice.kind.partition(' ')[0]}"
        ways += [
            (short, f"{step}{loss:>8}"),
            (short, f"{step} {loss}"),
            (sign, f"{step} {loss}"),
            (sign, step),
            (sign, compact(choice.step or 0)),
        ]
        left, right = next((way for way in ways if sum(map(len, way)) + 1 <= width), ways[-1])
        line = set_cell_size(left, max(len(left) + 1, width - len(right))) + right
    line = set_cell_size(line, width)
    style = "bold $text-success" if choice.reference is None else "bold" if mark else ""
    return Content.styled(line, style)


# ---- the list with its filter


class ModelPicker(Vertical):
    """Posts `ModelList.Chosen`. `open_filter` shows only the models whose run, kind or step has all words."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "close_filter", "All models", show=False)]

    DEFAULT_CSS = """
    ModelPicker { height: 1fr; }
    ModelPicker Input { display: none; height: 1; border: none; padding: 0 1; background: $surface; }
    ModelPicker.-filtering Input { display: block; }
    """

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self._choices: Sequence[ModelChoice] = ()
        self._first: ModelChoice | None = None
        self._second: ModelChoice | None = None

    def compose(self) -> ComposeResult:
        """The filter over the list."""
        yield FieldInput(placeholder="words; esc shows all", compact=True)
        yield ModelList()

    def on_mount(self) -> None:
        """Sets title and subtitle."""
        models = self.query_one(ModelList)
        models.border_subtitle = "/ filter · o open"

    def show(self, choices: Sequence[ModelChoice], first: ModelChoice | None, second: ModelChoice | None) -> None:
        """Shows those of the models that match the filter, `first` and `second` marked."""
        self._choices, self._first, self._second = choices, first, second
        words = self.query_one(Input).value.strip()
        shown = [choice for choice in choices if matches_words(choice, words)]
        models = self.query_one(ModelList)
        models.show(shown, first, second, "none matches" if words and choices else "no checkpoint yet")
        models.border_title = f"models · {len(shown)} of {len(choices)}" if words else "models · val loss"

    def open_filter(self) -> None:
        """Shows the filter."""
        self.add_class("-filtering")
        self.screen.set_focus(self.query_one(Input))  # at once: `focus` would come after keys that wait already

    def action_close_filter(self) -> None:
        """Shows all models again."""
        self.query_one(Input).value = ""
        self.remove_class("-filtering")
        self.query_one(ModelList).focus()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Without an open filter, escape is the screen's."""
        return action != "close_filter" or self.has_class("-filtering")

    @on(Input.Changed)
    def filter(self, event: Input.Changed) -> None:
        """Shows the matching models."""
        event.stop()
        self.show(self._choices, self._first, self._second)

    @on(Input.Submitted)
    def leave(self, event: Input.Submitted) -> None:
        """Focuses the list; closes an empty filter."""
        event.stop()
        if not event.value.strip():
            self.action_close_filter()
        models = self.query_one(ModelList)
        models.focus()
        if models.highlighted is None:
            models.action_first()


def matches_words(choice: ModelChoice, words: str) -> bool:
    """Whether every word is in the model's name, kind or step, in any case."""
    text = f"{choice.label} {choice.kind} {choice.step if choice.step is not None else ''}".casefold()
    return all(word in text for word in words.casefold().split())
