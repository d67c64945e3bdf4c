"""Textual's footer, made anew only when the keys it shows have changed.

Textual's own is made anew, with a layout of the whole screen, at every step of the focus from field to field.
"""

from typing import Any

from textual.events import Resize
from textual.screen import Screen
from textual.widgets import Footer

NARROW = 100


class KeyFooter(Footer):
    """The keys that act now; where there is little room, without the palette's, which is the same everywhere."""

    _shown: object = None

    def on_resize(self, event: Resize) -> None:
        """Tells the style how wide the terminal is."""
        self.set_class(event.size.width < NARROW, "-narrow")

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
