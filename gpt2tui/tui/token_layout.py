"""Where each token of a text stands on the screen: lines of runs, each run a stretch of one token."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from rich.cells import cell_len, chop_cells

TAB = "    "


class Run(NamedTuple):
    """A stretch of one token on one line."""

    text: str
    token: int


@dataclass
class TokenLayout:
    """Tokens laid out in a width; more can be added at the end without laying out the rest again.

    Breaks at newlines, else after the last space that fits, else within a word. White space is kept as it is,
    since in code it means something; the one space at which a line is broken may hang beyond the width.
    """

    width: int

    def __post_init__(self) -> None:
        self.lines: list[list[Run]] = [[]]
        self._column = 0
        self._tokens = 0

    def add(self, texts: Iterable[str]) -> None:
        """Lays out further tokens after those already there."""
        for text in texts:
            for number, part in enumerate(text.replace("\t", TAB).split("\n")):
                if number:
                    self._break()
                self._place(part)
            self._tokens += 1

    @property
    def height(self) -> int:
        """How many lines there are."""
        return len(self.lines)

    def place_of(self, token: int) -> tuple[int, int] | None:
        """(line, column) where a token begins; None when it has nothing to see."""
        for y in range(self.height):
            for found, x in self.starts(y):
                if found == token:
                    return y, x
        return None

    def starts(self, y: int) -> list[tuple[int, int]]:
        """(token, column) of each run of a line."""
        columns = accumulate((cell_len(run.text) for run in self.lines[y]), initial=0)
        return [(run.token, column) for run, column in zip(self.lines[y], columns, strict=False)]

    def token_at(self, x: int, y: int) -> int | None:
        """The token at a place; right of a line's end its last one. None where there is none."""
        if not 0 <= y < len(self.lines):
            return None
        found = None
        for run in self.lines[y]:
            found = run.token
            x -= cell_len(run.text)
            if x < 0:
                break
        return found

    def _place(self, text: str) -> None:
        while text:
            room = self.width - self._column
            if cell_len(text) <= room:
                self._put(text)
                return
            fitting = chop_cells(text, room)[0] if room > 0 else ""
            if cell_len(fitting) > room:  # a wide character in a single column
                fitting = ""
            hanging = text.startswith(" ", len(fitting))
            cut = len(fitting) + 1 if hanging else fitting.rfind(" ") + 1
            if cut == 0:
                if self._carry_word():
                    continue
                cut = len(fitting) or (0 if self._column else 1)  # one word as long as the line
            self._put(text[:cut])
            text = text[cut:]
            self._break()

    def _put(self, text: str) -> None:
        if text:
            self.lines[-1].append(Run(text, self._tokens))
            self._column += cell_len(text)

    def _break(self) -> None:
        self.lines.append([])
        self._column = 0

    def _carry_word(self) -> bool:
        """Takes the word that the line ends with, which goes on, to a new line; False when it is the whole line."""
        line = self.lines[-1]
        whole = "".join(run.text for run in line)
        start = whole.rfind(" ") + 1
        if start == 0 or not whole[:start].strip():  # indentation alone stays with its word
            return False
        carried: list[Run] = []
        while line and len(whole) > start:
            run = line.pop()
            begin = len(whole) - len(run.text)
            whole = whole[:begin]
            if begin < start:
                line.append(Run(run.text[: start - begin], run.token))
                run = Run(run.text[start - begin :], run.token)
            if run.text:
                carried.insert(0, run)
        self.lines.append(carried)
        self._column = sum(cell_len(run.text) for run in carried)
        return True
