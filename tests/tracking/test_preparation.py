import io
import re
from dataclasses import dataclass

import pytest
from rich.cells import cell_len

from gpt2tui.tracking import console as preparation
from gpt2tui.tracking.console import show_preparation


@dataclass(frozen=True)
class Progress:
    stage: str
    done: int
    total: int | None
    unit: str


def prepare(error=None):
    for done in (0, 280, 560):
        yield Progress("read the corpus", done, 560, "files")
    for done in (0, 2000, 4096):
        yield Progress("train \x1b[2J[bold]", done, None, "merges")
    if error:
        raise error
    for done in (0, 10_500_000):
        yield Progress("tokenize", done, 10_500_000, "bytes")
    return "the corpus"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def xterm(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")


def test_what_the_preparation_returns_is_returned():
    assert show_preparation(prepare(), io.StringIO()) == "the corpus"
    assert show_preparation(prepare(), Terminal()) == "the corpus"


def test_elsewhere_than_on_a_terminal_each_stage_is_one_line():
    file = io.StringIO()
    show_preparation(prepare(), file)
    assert file.getvalue() == "read the corpus: 560 files\ntrain ␛[2J[bold]\ntokenize: 10.5 MB\n"


def test_on_a_terminal_each_stage_ends_as_a_full_bar():
    file = Terminal()
    show_preparation(prepare(), file)
    assert drawn(file) == [
        "read the corpus      ━━━━━━━━━━━━━━━━━━━━━━━━ 100% of 560 files",
        "train ␛[2J[bold]     ━━━━━━━━━━━━━━━━━━━━━━━━ 4.1k merges",
        "tokenize             ━━━━━━━━━━━━━━━━━━━━━━━━ 100% of 10.5 MB",
    ]
    assert file.getvalue().rindex("\x1b[?25h") > file.getvalue().rindex("\x1b[?25l")


@pytest.mark.parametrize("file", [io.StringIO(), Terminal()])
def test_an_error_passes_through_and_the_cursor_comes_back(file):
    with pytest.raises(ValueError, match="no text"):
        show_preparation(prepare(ValueError("no text")), file)
    assert file.getvalue().rfind("\x1b[?25h") >= file.getvalue().rfind("\x1b[?25l")


def test_a_preparation_that_has_nothing_to_do_says_nothing():
    def ready():
        return 7
        yield

    file = io.StringIO()
    assert preparation.show_preparation(ready(), file) == 7
    assert file.getvalue() == ""


def drawn(file):
    """What the terminal shows at the end, line by line."""
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", file.getvalue().split("\r")[-1])
    return [line.rstrip() for line in last.splitlines() if line.strip()]


@pytest.mark.parametrize("width", [1, 10, 40, 80, 200])
def test_a_stage_is_one_line_that_fits_the_width(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    file = Terminal()
    show_preparation(prepare(), file)
    lines = drawn(file)
    assert len(lines) <= 3
    assert all(cell_len(line) <= width for line in lines)
    if width >= 40:
        assert [line.split()[0] for line in lines] == ["read", "train", "tokenize"]


def test_an_empty_stage_is_done():
    def empty():
        yield Progress("tokenize", 0, 0, "bytes")

    file = Terminal()
    show_preparation(empty(), file)
    assert "100% of 0 B" in drawn(file)[0]


def test_a_terminal_without_utf_8_or_colour_shows_what_it_can(monkeypatch):
    class Ascii(Terminal):
        encoding = "ascii"

    monkeypatch.setenv("NO_COLOR", "1")
    file = Ascii()
    show_preparation(prepare(), file)
    assert "\x1b[3" not in file.getvalue()
    (line,) = [line for line in drawn(file) if line.startswith("tokenize")]
    assert line.isascii()
    assert line.endswith("100% of 10.5 MB")
