"""What `model` may import."""

import subprocess
import sys

import pytest

EVERY_MODULE = "import model.cpu, model.gpt2, model.huggingface, model.kv_cache, model.loss, model.sampling"


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        (EVERY_MODULE, ["gpt2tui", "transformers", "textual"]),
        ("import model.config", ["torch", "numpy", "gpt2tui"]),
    ],
    ids=["the network knows nothing of the program", "the configuration needs no torch"],
)
def test_imports(statement, forbidden):
    code = f"{statement}; import sys; print([name for name in {forbidden} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
