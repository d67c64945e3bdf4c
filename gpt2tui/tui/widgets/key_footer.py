"""Textual's footer with as many keys as fit, rebuilt only when they change.

Textual's own is rebuilt, with a layout of the whole screen, whenever the focus moves.
"""

from typing import Any

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.events import Resize
from textual.screen import Screen
from textual.widgets import Footer
from textual.widgets._footer import FooterKey

NARROW = 100
MOST_WHERE_NARROW = 7
ALWAYS = ("quit", "help")
"""Actions whose keys are always shown."""


class KeyFooter(Footer):
    """The enabled keys; without room the screen's last ones are left out, and in a narrow footer the palette."""

    _shown: object = None
    _width = 0

    def compose(self) -> ComposeResult:
        """The keys that fit."""
        keys = [key for key in super().compose() if isinstance(key, FooterKey)]
        self._width = self.app.size.width
        narrow = self._width < NARROW
        palette = [key for key in keys if key.has_class("-command-palette") and not narrow]
        always = [key for key in keys if key.action in ALWAYS]
        others = [key for key in keys if key.action not in ALWAYS and not key.has_class("-command-palette")]
        if narrow:
            others = others[: MOST_WHERE_NARROW - len(always)]
        while others and sum(map(_width, (*others, *always, *palette))) > self._width:
            others.pop()
        yield from (*others, *always, *palette)

    def on_resize(self, event: Resize) -> None:
        """Rebuilds the footer, as other keys may fit."""
        if self._shown is not None and event.size.width != self._width:
            self.call_after_refresh(self.recompose)

    def bindings_changed(self, screen: Screen[Any]) -> None:
        """Rebuilds the footer when the enabled keys have changed."""
        shown = [
            (key, active.binding.description, active.enabled)
            for key, active in screen.active_bindings.items()
            if active.binding.show
        ]
        if shown != self._shown and screen.app.app_focus:
            self._shown = shown
            super().bindings_changed(screen)


def _width(key: FooterKey) -> int:
    return cell_len(f" {key.key_display} {key.description} ")
