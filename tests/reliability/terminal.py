"""A real terminal to run the workbench in: tmux, which emulates one and says what state it is in."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

PATIENCE = float(os.environ.get("GPT2TUI_TEST_PATIENCE", "60"))  # seconds; a machine that is busy needs more

needs_tmux = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is the terminal of these tests")


class Terminal:
    """A tmux server of its own with one window, in which a shell runs one command."""

    def __init__(self, folder, width=120, height=36):
        self.socket = Path(folder) / "tmux"
        self.pid_file = Path(folder) / "pid"
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("TMUX", "COLUMNS", "LINES"))},
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        server = ["tmux", "-S", self.socket, "-f", "/dev/null"]
        session = ["new-session", "-d", "-x", str(width), "-y", str(height), "sh"]
        subprocess.run([*server, *session], check=True, env=environment, cwd=folder)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        subprocess.run(["tmux", "-S", self.socket, "kill-server"], check=False, capture_output=True)

    def tmux(self, *words):
        done = subprocess.run(["tmux", "-S", self.socket, *words], check=True, capture_output=True)
        return done.stdout.decode("utf-8", "replace")

    def start(self, *arguments):
        """Runs `gpt2tui ARGUMENTS` in the shell, which then says how it ended."""
        command = shlex.join([sys.executable, "-m", "gpt2tui", *map(str, arguments)])
        inner = shlex.quote(f"echo $$ > {shlex.quote(str(self.pid_file))}; exec {command}")
        self.type(f"clear; sh -c {inner}; echo ended=$?")
        self.keys("Enter")

    @property
    def pid(self):
        return int(self.pid_file.read_text())

    def type(self, text):
        self.tmux("send-keys", "-l", text)

    def keys(self, *keys):
        self.tmux("send-keys", *keys)

    def click(self, text):
        """A click of the left button on the first letter of a text, as a terminal reports it."""
        row, line = next((row, line) for row, line in enumerate(self.screen().splitlines()) if text in line)
        place = f"0;{line.index(text) + 1};{row + 1}"
        self.type(f"\x1b[<{place}M\x1b[<{place}m")

    def resize(self, width, height):
        self.tmux("resize-window", "-x", str(width), "-y", str(height))

    def screen(self, colours=False):
        return self.tmux("capture-pane", "-p", *(["-e"] if colours else []))

    def bold_text(self):
        """The bold text of the first line, such as the mode in front."""
        text, bold = "", False
        for part in re.split(r"(\x1b\[[0-9;]*m)", self.screen(colours=True).partition("\n")[0]):
            if not part.startswith("\x1b["):
                text += part if bold else ""
                continue
            for code in re.findall(r"[34]8;2;\d+;\d+;\d+|[34]8;5;\d+|\d+", part) or ["0"]:
                bold = code == "1" or (bold and code not in ("0", "22"))
        return text

    def wait_for(self, text, seconds=PATIENCE):
        """Until the text, or one of a tuple of texts, stands on the screen."""
        wanted = (text,) if isinstance(text, str) else text
        return self.wait_until(
            lambda: any(word in self.screen() for word in wanted), f"{text!r} on the screen", seconds
        )

    def wait_until(self, condition, what, seconds=PATIENCE):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if value := condition():
                return value
            time.sleep(0.1)
        raise AssertionError(f"waited {seconds:g} s for {what}; the screen:\n{self.screen()}")

    def state(self):
        """The alternate screen, mouse reporting, a visible cursor, and bracketed paste as far as tmux tells."""
        flags = self.tmux("display-message", "-p", "#{alternate_on} #{mouse_any_flag} #{cursor_flag}").split()
        return dict(zip(("alternate screen", "mouse reporting", "cursor"), flags, strict=True))


AS_BEFORE = {"alternate screen": "0", "mouse reporting": "0", "cursor": "1"}
IN_THE_WORKBENCH = {"alternate screen": "1", "mouse reporting": "1"}
