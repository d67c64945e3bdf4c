"""The keys, as the bindings have them, and what a screen says of itself."""

from typing import Any, ClassVar

from rich.table import Table
from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.widgets import Input, Static, TextArea

from gpt2tui.tui.widgets.dialogs import Dialog

# Textual's own, which everybody knows or which the place that has them explains.
SKIPPED = ("screen.copy_text", "app.focus_next", "app.focus_previous", "command_palette")
KEYS_WIDTH = 14  # of "tab  shift+tab"
ORDER = ("This screen", "What has the focus", "Everywhere")


class HelpScreen(Dialog[None]):
    """Help for a screen; closes on escape, ? or q."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,f1,q", "dismiss(None)", "Back"),
    ]

    def __init__(self, of: Screen[Any]) -> None:
        super().__init__()
        self._groups = bindings_by_place(of)
        self._words = (of.HELP or "").strip()

    def compose(self) -> ComposeResult:
        """A table of keys for each place, then the screen's own words."""
        with VerticalScroll(id="help-box") as box:
            box.border_title = "Help"
            box.border_subtitle = "esc closes"
            for place, keys in self._groups.items():
                yield Static(Text(place), classes="help-place")
                table = Table.grid(padding=(0, 2))
                table.add_column(min_width=KEYS_WIDTH, no_wrap=True)
                table.add_column()
                for key, what in keys:
                    name, _, more = what.partition(" (")
                    table.add_row(Text(key, "bold"), Text.assemble(name, (f" ({more}" if more else "", "dim")))
                yield Static(table)
            if self._words:
                yield Static(Text("Words and numbers"), classes="help-place")
                yield Static(self._words, markup=False)

    def on_mount(self) -> None:
        """Lets the arrow keys scroll."""
        self.query_one("#help-box").focus()


def bindings_by_place(screen: Screen[Any]) -> dict[str, list[tuple[str, str]]]:
    """The described bindings that act on a screen now: the screen's, the focused widget's, the app's.

    Several keys for one thing are one line; so are all those with which Textual edits text.
    """
    places: dict[str, dict[str, list[str]]] = {}
    editing = False
    for active in screen.active_bindings.values():
        binding, node = active.binding, active.node
        if not binding.description or binding.action in SKIPPED:
            continue
        if _edits_text(binding, node):
            editing = True
            continue
        place = "Everywhere" if node is screen.app else "This screen" if node is screen else "What has the focus"
        what = f"{binding.description}" + (f" ({binding.tooltip})" if binding.tooltip else "")
        keys = places.setdefault(place, {}).setdefault(what, [])
        display = screen.app.get_key_display(binding)
        if display not in keys:
            keys.append(display)
    if editing:
        places.setdefault("What has the focus", {})["Edit text (words, ends, deleting, as in a shell)"] = ["^w ^u ^k …"]
    places.setdefault("Everywhere", {}).update(
        {
            "Palette: everything one can do, by name": [screen.app.COMMAND_PALETTE_DISPLAY or "^p"],
            "Next, previous part of the screen": ["tab", "shift+tab"],
        }
    )
    return {
        place: [("  ".join(keys), what) for what, keys in places[place].items()] for place in ORDER if place in places
    }


def _edits_text(binding: Binding, node: object) -> bool:
    """Whether a binding is one of the many that every text input of Textual has."""
    for kind in (Input, TextArea):
        if isinstance(node, kind):
            return any(own.action == binding.action for own in kind.BINDINGS if isinstance(own, Binding))
    return False
