"""The examples and the Python of docs/python.md run as they are, on a preset `test` of a few thousand parameters."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gpt2tui
from gpt2tui.preset import files as preset_files
from tests import tiny_runs

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"


@pytest.fixture(autouse=True)
def tiny_test_preset(tmp_path, monkeypatch):
    """A user's preset hides the shipped one of its name, so that the examples train in a second."""
    folder = preset_files.user_folder()
    folder.mkdir(parents=True)
    (folder / "test.toml").write_text(preset_files.dumps(tiny_runs.preset(tmp_path)))
    monkeypatch.chdir(tmp_path)


def code_cells():
    notebook = json.loads((EXAMPLES / "first_run.ipynb").read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_has_the_form_of_nbformat_4_5_and_no_outputs():
    notebook = json.loads((EXAMPLES / "first_run.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"]["language_info"]["name"] == "python"
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", each) for each in ids)
    for cell in notebook["cells"]:
        assert all(isinstance(line, str) for line in cell["source"])
        if cell["cell_type"] == "code":
            assert set(cell) == {"cell_type", "execution_count", "id", "metadata", "outputs", "source"}
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
        else:
            assert (cell["cell_type"], set(cell)) == ("markdown", {"cell_type", "id", "metadata", "source"})


@pytest.mark.slow
def test_the_cells_of_the_notebook_run_in_their_order(capsys):
    names = {}
    for source in code_cells():
        exec(source, names)
    out = capsys.readouterr().out
    assert "step 60: loss" in out
    assert names["run"].name in out
    assert len(names["model"].logprobs("import os\n")) == 10
    assert gpt2tui.find_run("latest").checkpoints[-1].step == 60


@pytest.mark.slow
def test_the_sweep_trains_three_runs_and_ends_with_a_table(tmp_path):
    command = [sys.executable, EXAMPLES / "sweep.py", "8"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    header, *rows = done.stdout.partition("\n\n")[2].splitlines()
    assert header.split() == ["run", "lr", "steps", "val_loss", "bits/byte"]
    losses = [float(row.split()[3]) for row in rows]
    assert losses == sorted(losses)
    assert {float(row.split()[1]) for row in rows} == {1e-3, 3e-3, 1e-2}


def test_the_python_of_the_documentation_runs(capsys):
    """Block after block in one namespace; the page shows the output of the shipped preset, which has other numbers."""
    names, page = {}, (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) > 5
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    assert "bits per byte" in capsys.readouterr().out
