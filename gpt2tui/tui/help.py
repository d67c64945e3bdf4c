"""The help of a screen: its keys, read from the bindings, and its definitions."""

from typing import Any, ClassVar

from rich.table import Table
from rich.text import Text
from textual.actions import parse
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.widgets import Input, Static, TextArea

from gpt2tui.tui.widgets.dialogs import Dialog

# Textual's own bindings, which need no explanation or get one of their own below.
SKIPPED = ("screen.copy_text", "app.focus_next", "app.focus_previous", "command_palette")
KEYS_WIDTH = 14  # of "tab  shift+tab"
PLACES = ("This screen", "Focused part", "Everywhere")


class HelpScreen(Dialog[None]):
    """Help for a screen; closes on escape, ? or q."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,f1,q", "dismiss(None)", "Back"),
    ]

    def __init__(self, screen: Screen[Any]) -> None:
        super().__init__()
        self._groups = bindings_by_place(screen)
        self._definitions = (screen.HELP or "").strip()

    def compose(self) -> ComposeResult:
        """A table of keys for each place, then the definitions."""
        with VerticalScroll(id="help-box") as box:
            box.border_title = "Help"
            box.border_subtitle = "esc closes"
            for place, keys in self._groups.items():
                yield Static(Text(place), classes="help-place")
                table = Table.grid(padding=(0, 2))
                table.add_column(min_width=KEYS_WIDTH, no_wrap=True)
                table.add_column()
                for key, what, acts in keys:
                    name, _, more = what.partition(" (")
                    text = Text.assemble(name, (f" ({more}" if more else "", "dim"))
                    table.add_row(Text(key, "bold" if acts else "dim"), text if acts else Text(what, "dim"))
                yield Static(table)
            if self._definitions:
                yield Static(Text("Definitions"), classes="help-place")
                yield Static(self._definitions, markup=False)

    def on_mount(self) -> None:
        """Focuses the text, so that the arrow keys scroll it."""
        self.query_one("#help-box").focus()


def bindings_by_place(screen: Screen[Any]) -> dict[str, list[tuple[str, str, bool]]]:
    """The bindings with a description: the screen's, the focused widget's, the app's.

    Each as (keys, description, whether they act now). Keys of one action share a line, and so do all keys with which
    Textual edits text.
    """
    places: dict[str, dict[str, list[str]]] = {}
    editing = False
    active_bindings = [(active.binding, active.node, active.enabled) for active in screen.active_bindings.values()]
    there = {(binding.action, node) for binding, node, _ in active_bindings}
    active_bindings += [
        (binding, screen, False)
        for binding in Binding.make_bindings(screen.BINDINGS)
        if (binding.action, screen) not in there and screen.check_action(*parse(binding.action)[1:]) in (False, None)
    ]
    acting: set[tuple[str, str]] = set()
    for binding, node, enabled in active_bindings:
        if not binding.description or binding.action in SKIPPED:
            continue
        if _edits_text(binding, node):
            editing = True
            continue
        place = "Everywhere" if node is screen.app else "This screen" if node is screen else "Focused part"
        what = f"{binding.description}" + (f" ({binding.tooltip})" if binding.tooltip else "")
        keys = places.setdefault(place, {}).setdefault(what, [])
        if enabled:
            acting.add((place, what))
        display = screen.app.get_key_display(binding)
        if display not in keys:
            keys.append(display)
    if editing:
        places.setdefault("Focused part", {})["Edit text (as in a shell)"] = ["^w ^u ^k …"]
        acting.add(("Focused part", "Edit text (as in a shell)"))
    places.setdefault("Everywhere", {}).update(
        {
            "Palette: all commands, by name": [screen.app.COMMAND_PALETTE_DISPLAY or "^p"],
            "Next, previous part of the screen": ["tab", "shift+tab"],
        }
    )
    acting |= {("Everywhere", what) for what in places["Everywhere"]}
    return {
        place: [("  ".join(keys), what, (place, what) in acting) for what, keys in places[place].items()]
        for place in PLACES
        if place in places
    }


def _edits_text(binding: Binding, node: object) -> bool:
    """Whether a binding is one of those that every text input of Textual has."""
    for kind in (Input, TextArea):
        if isinstance(node, kind):
            return any(own.action == binding.action for own in kind.BINDINGS if isinstance(own, Binding))
    return False
