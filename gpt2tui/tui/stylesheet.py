"""Textual's style sheets, parsed once for each set of colours instead of each time that a screen is opened."""

from textual.cache import LRUCache
from textual.css.stylesheet import Stylesheet

MOST_SOURCES = 1024  # style sheets of files and of classes; all screens together have some 150


class ParsedOnceStylesheet(Stylesheet):
    """Textual's `App` reparses everything two or three times when it opens a screen, 20 ms to 100 ms each time.

    Its own cache is dropped each time, though the variables, which the theme defines, are the same.
    """

    def __init__(self, *, variables: dict[str, str]) -> None:
        super().__init__(variables=variables)
        self._parse_cache = LRUCache(MOST_SOURCES)

    def set_variables(self, variables: dict[str, str]) -> None:
        """Sets the variables; what is parsed is kept if they are what they were."""
        if variables != self._variables:
            super().set_variables(variables)

    def reparse(self) -> None:
        """Applies new variables. Raises StylesheetError and StylesheetParseError; then the rules stay as they are."""
        self.parse()
