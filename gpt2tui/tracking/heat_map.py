"""A passage as a heat map of its tokens' losses: in colours, or with digits where there are none."""

import sys
from collections.abc import Iterable, Iterator

from rich.cells import cell_len
from rich.text import Text

from gpt2tui.run.worst_passages import Passage
from gpt2tui.system.terminal_text import printable, sanitize

SURPRISING = 3
"""How many tokens of a passage are shown with what the model expected in their places."""
COLOURS = (
    (8.0, "white on #800026"),
    (6.0, "white on #bd0026"),
    (4.0, "black on #fd8d3c"),
    (2.0, "black on #fed976"),
    (1.0, "black on #ffffcc"),
)
"""From this loss in nats on; below the last the terminal's own colours. Darker for a higher loss."""


def expectation(passage: Passage, index: int) -> str:
    """The loss of a token, and what the model would have written in its place."""
    written, expected = (printable(repr(text or ""), 40) for text in (passage.texts[index], passage.expected[index]))
    return f"{passage.losses[index]:.1f} nats for {written}, where the model would have written {expected}"


def heat_map(passage: Passage, width: int, is_coloured: bool) -> Iterator[Text]:
    """The lines of a passage: tokens coloured by their loss, or a line of digits below each line of text."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    for line in _lines(zip(passage.texts, passage.losses, strict=True), width):
        text, digits = Text(), ""
        for piece, loss in line:
            shown = piece.encode(encoding, "replace").decode(encoding)
            text.append(shown, style=_colour(loss) if is_coloured else "")
            digits += _digit(loss).ljust(cell_len(shown)) if shown else ""
        yield text
        if not is_coloured:
            yield Text(digits.rstrip())


def _lines(tokens: Iterable[tuple[str, float | None]], width: int) -> Iterator[list[tuple[str, float | None]]]:
    """Tokens in lines of at most `width` cells; a line ends after a newline, which is shown."""
    line: list[tuple[str, float | None]] = []
    column = 0
    for text, loss in tokens:
        shown = sanitize(text.replace("\t", "    "), keep_newlines=False)
        for start in range(0, len(shown), width // 2):  # a token longer than the line, of wide characters
            piece = shown[start : start + width // 2]
            if column + cell_len(piece) > width:
                yield line
                line, column = [], 0
            line.append((piece, loss))
            column += cell_len(piece)
        if text.endswith("\n"):
            yield line
            line, column = [], 0
    if line:
        yield line


def _colour(loss: float | None) -> str:
    return next((style for least, style in COLOURS if loss is not None and loss >= least), "")


def _digit(loss: float | None) -> str:
    return " " if loss is None else str(min(9, int(loss)))
