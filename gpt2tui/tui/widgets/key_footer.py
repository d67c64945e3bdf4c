"""Textual's footer, with as many keys as fit, and made anew only when those have changed.

Textual's own is made anew, with a layout of the whole screen, at every step of the focus from field to field.
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
"""Actions whose keys stay while others go: the way out, and to the rest."""


class KeyFooter(Footer):
    """The keys that act now; the last of the screen's own go first. Narrow, the palette's is left to the help."""

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
        """Other keys may fit."""
        if self._shown is not None and event.size.width != self._width:
            self.call_after_refresh(self.recompose)

    def bindings_changed(self, screen: Screen[Any]) -> None:
        """Other keys may act now."""
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
