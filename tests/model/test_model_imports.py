"""What the network may import: nothing of the program around it."""

import subprocess
import sys

import pytest

NAMES = ("cpu", "gpt2", "huggingface", "kv_cache", "loss", "sampling")
EVERY_MODULE = f"import {', '.join(f'gpt2tui.model.{name}' for name in NAMES)}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        (EVERY_MODULE, ["transformers", "textual"]),
        ("import gpt2tui.model.config", ["torch", "numpy"]),
    ],
    ids=["the network knows nothing of the program", "the configuration needs no torch"],
)
def test_imports(statement, forbidden):
    code = f"""
{statement}
import sys
ours = [name for name in sys.modules if name.startswith("gpt2tui.") and not name.startswith("gpt2tui.model")]
ours.remove("gpt2tui.version")  # of the package itself
print(ours + [name for name in {forbidden} if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
