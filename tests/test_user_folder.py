"""What is in the user's folder never gets in the way: a model.py, presets/, tests/, as nanoGPT's root has them."""

import os
import pty
import select
import subprocess
import sys
import time

import pytest

from gpt2tui.preset import files as preset_files
from tests import tiny_runs

LIBRARIES = ("datasets", "tokenizers", "numpy", "textual", "model", "data", "train")


@pytest.fixture
def folder(tmp_path):
    """A folder with a preset to train, and with modules that end every program that imports them."""
    (tmp_path / "model.py").write_text('raise SystemExit("the model.py of the user was imported")')
    for name in ("presets", "tests"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f'raise SystemExit("{name} of the user was imported")')
    (tmp_path / "presets" / "small.toml").write_text("this is no preset")
    (tmp_path / "tiny.toml").write_text(preset_files.dumps(tiny_runs.preset(tmp_path)))
    return tmp_path


def program(folder, *words, **environment):
    return subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, env={**os.environ, **environment}
    )


@pytest.mark.slow
def test_the_command_line_trains_where_the_users_modules_come_first(folder):
    done = program(folder, "-m", "gpt2tui", "--headless", "--preset", "tiny.toml", PYTHONPATH=".")
    assert done.returncode == 0, done.stdout[-500:] + done.stderr
    done = program(folder, "-c", "import model", PYTHONPATH=".")
    assert "was imported" in done.stderr  # the check sees what it looks for


@pytest.mark.slow
def test_modules_that_are_named_like_libraries_are_not_taken_for_them(folder):
    for name in LIBRARIES:
        (folder / f"{name}.py").write_text(f'raise SystemExit("the {name}.py of the user was imported")')
    done = program(folder, "-m", "gpt2tui", "--headless", "--preset", "tiny.toml")
    assert done.returncode == 0, done.stdout[-500:] + done.stderr


@pytest.mark.slow
def test_a_script_beside_a_model_py_trains_and_loads(folder):
    script = """
import gpt2tui
from gpt2tui.model.gpt2 import GPT2
training = gpt2tui.train("tiny.toml")
list(training)
model = gpt2tui.load(training.run)
assert isinstance(model.network, GPT2)
print(gpt2tui.load_preset("small").model.n_embd, len(model.logprobs("fox")))
"""
    (folder / "script.py").write_text(script)
    done = program(folder, "script.py")
    assert (done.returncode, done.stdout) == (0, "128 3\n"), done.stderr


def test_the_workbench_opens_and_ends(folder):
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "LINES": "36", "COLUMNS": "120"}
    process = subprocess.Popen(
        [sys.executable, "-m", "gpt2tui"], cwd=folder, stdin=slave, stdout=slave, stderr=slave, env=environment
    )
    try:
        output, end, asked = b"", time.monotonic() + 120, False
        while process.poll() is None:
            assert time.monotonic() < end, output[-2000:]
            if select.select([master], [], [], 0.05)[0]:
                output += os.read(master, 1 << 16)
            if b"Presets" in output and not asked:
                asked = True
                os.write(master, b"\x11")
        assert (process.returncode, asked) == (0, True), output[-2000:]
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)
