"""A terminal that closes while the screen is drawn."""

import os
import pty

from gpt2tui.tui.terminal import _Terminal


def test_what_is_written_to_a_closed_terminal_is_lost_without_an_error():
    ours, theirs = pty.openpty()
    terminal = _Terminal(os.fdopen(theirs, "wb", buffering=0), encoding="utf-8", errors="replace")
    terminal.write("seen")
    terminal.flush()
    assert os.read(ours, 100) == b"seen"
    os.close(ours)
    for _ in range(3):
        assert terminal.write("lost" * 10_000) == 40_000
        terminal.flush()
    terminal.close()
