"""The way out, in a terminal of its own: what the process leaves behind on it, on disk, and as its exit code."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

from gpt2tui.system.files import cache_folder, runs_folder

PROGRAM = """
import sys
from gpt2tui.tui import app, start
from tests.tui.fake_training import FakeTraining, launch
from tests.tui.plain_workbench import PlainWorkbench

fake = FakeTraining({fake})
app.WorkbenchApp = lambda **arguments: PlainWorkbench(fake, **arguments | {{"launch": launch()}})
{extra}
sys.exit(start.run_workbench())
"""
HANGING = """
def hang(launch, controls):
    import time
    time.sleep(1000)
    yield
fake.__class__.__call__ = lambda self, launch, controls: hang(launch, controls)
"""
CRASHING = """
from textual.widgets import Static
class Crashing(Static):
    def render(self):
        raise ZeroDivisionError("in render")
original = PlainWorkbench.on_mount
async def on_mount(self):
    await original(self)
    self.set_timer(0.5, lambda: self.screen.mount(Crashing()))
PlainWorkbench.on_mount = on_mount
"""
NOISE = """
import os
original = PlainWorkbench.on_mount
async def on_mount(self):
    await original(self)
    os.system("echo from a child; echo to stderr >&2")
PlainWorkbench.on_mount = on_mount
"""


class Terminal:
    """A process that owns a pty of 100 x 30, and everything that it has written there."""

    def __init__(self, fake="", extra="", controlling=True):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.slave = slave
        self.before = termios.tcgetattr(slave)
        self.output = b""
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM.format(fake=fake, extra=extra)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=(lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)) if controlling else None,
            env={**os.environ, "TERM": "xterm-256color"},
        )

    def read(self, seconds=0.05):
        if select.select([self.master], [], [], seconds)[0]:
            with contextlib.suppress(OSError):
                self.output += os.read(self.master, 1 << 16)

    def until(self, text, seconds=60):
        end = time.monotonic() + seconds
        while text.encode() not in self.output:
            assert time.monotonic() < end, self.output[-2000:]
            assert self.process.poll() is None, self.output[-2000:]
            self.read()

    def press(self, keys):
        os.write(self.master, keys)

    def exit_code(self, seconds=60):
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < end, self.output[-2000:]
            self.read()
        self.read()
        return self.process.returncode

    def is_restored(self):
        """No alternate screen, no mouse reports, no bracketed paste, a cursor, and the line settings of before."""
        last = {mode: self.output.rfind(f"\x1b[?{mode}".encode()) for mode in (1049, 1000, 1003, 2004, 25)}
        off = {
            mode: self.output[at : at + 12].startswith(f"\x1b[?{mode}{'h' if mode == 25 else 'l'}".encode())
            for mode, at in last.items()
        }
        return all(off.values()) and termios.tcgetattr(self.slave) == self.before

    def close(self):
        self.process.kill()
        self.process.wait()
        for descriptor in (self.master, self.slave):
            with contextlib.suppress(OSError):
                os.close(descriptor)


@pytest.fixture
def terminal():
    opened = []

    def start(**arguments):
        opened.append(Terminal(**arguments))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def saved():
    return [path.name for path in runs_folder().glob("*/checkpoints/step-*")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGHUP", "SIGTERM", "SIGINT"])
def test_a_signal_saves_restores_the_terminal_and_tells_its_number(terminal, name):
    number = getattr(signal, name)
    screen = terminal()
    screen.until("TRAINING")
    assert not screen.is_restored()  # the check sees the difference
    screen.process.send_signal(number)
    assert screen.exit_code() == 128 + number
    assert screen.is_restored()
    assert len(saved()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("controlling", [True, False], ids=["which sends SIGHUP", "which sends nothing"])
def test_a_terminal_that_is_closed_saves_too(terminal, controlling):
    screen = terminal(controlling=controlling)
    screen.until("TRAINING")
    os.close(screen.slave)
    os.close(screen.master)
    assert screen.process.wait(60) == 129
    assert len(saved()) == 1


@pytest.mark.slow
def test_a_screen_that_crashes_saves_says_so_and_ends_with_one(terminal):
    screen = terminal(extra=CRASHING)
    assert screen.exit_code() == 1
    assert screen.is_restored()
    left = screen.output[screen.output.rfind(b"\x1b[?1049l") :].decode()
    assert "a bug ended the workbench: ZeroDivisionError: in render" in left
    assert f"the traceback is in {cache_folder() / 'workbench.log'}" in left
    assert len(saved()) == 1
    assert "ZeroDivisionError" in (cache_folder() / "workbench.log").read_text()


@pytest.mark.slow
def test_quit_stops_and_saves(terminal):
    screen = terminal()
    screen.until("TRAINING")
    screen.press(b"\x11")
    screen.until("Keep training")
    screen.press(b"\r")
    assert screen.exit_code() == 0
    assert screen.is_restored()
    assert len(saved()) == 1


def test_a_preparation_that_hangs_does_not_hold_the_program(terminal):
    screen = terminal(extra=HANGING)
    screen.until("PREPARING")
    screen.press(b"\x11")
    screen.until("Keep preparing")
    screen.press(b"\r")
    screen.until("CANCELLING")
    screen.press(b"\x11")
    assert screen.exit_code() == 0
    assert screen.is_restored()


@pytest.mark.slow
def test_what_others_write_goes_to_the_log_and_not_to_the_screen(terminal):
    screen = terminal(extra=NOISE)
    screen.until("TRAINING")
    log = cache_folder() / "workbench.log"
    end = time.monotonic() + 60
    while "to stderr" not in (log.read_text() if log.exists() else ""):
        assert time.monotonic() < end
        screen.read()
    assert "from a child" in log.read_text()
    assert b"from a child" not in screen.output


def test_no_color_is_honoured(terminal, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    screen = terminal()
    screen.until("TRAINING")
    for red, green, blue in re.findall(rb"[34]8;2;(\d+);(\d+);(\d+)", screen.output):
        assert red == green == blue


def test_without_a_terminal_it_says_how_to_train_without_a_screen():
    done = subprocess.run([sys.executable, "-m", "gpt2tui"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert "--headless" in done.stderr
    assert "Traceback" not in done.stderr
