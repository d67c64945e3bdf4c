"""Rich's console for our own colours and live displays, in which text from elsewhere can do nothing to the terminal."""

from collections.abc import Iterable
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from gpt2tui.system.terminal_text import sanitize, unguarded


class StyledConsole(Console):
    """Writes past the guard of stdout and stderr: the styles are ours, and the text in them is sanitized here."""

    def __init__(self, file: TextIO | None = None, **options: Any) -> None:
        super().__init__(file=None if file is None else unguarded(file), markup=False, emoji=False, **options)

    @property
    def file(self) -> Any:
        """The stream it writes to."""
        return unguarded(Console.file.fget(self))  # type: ignore[attr-defined]

    @file.setter
    def file(self, new: Any) -> None:
        Console.file.fset(self, new)  # type: ignore[attr-defined]

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of a renderable, with harmless text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(sanitize(segment.text), segment.style)
