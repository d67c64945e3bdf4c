"""The preset `small` learns to write what looks like Python."""

import json
import os
import re
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_small_learns_to_write_what_looks_like_python(tmp_path):
    command = [sys.executable, "-m", "gpt2tui", "train", "small", "--run-dir", str(tmp_path / "run")]
    command += ["--log-format", "jsonl"]
    # A number of steps instead of a time, so that every machine trains the same model.
    command += ["--set", "training.time_budget=0", "--set", "training.num_iterations=160"]
    command += ["--set", "sampling.max_length=300", "--set", "sampling.temperature=0.8"]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert result.returncode == 0, result.stderr
    events = [json.loads(line) for line in result.stdout.splitlines()]
    started, evaluated = events[0], [e for e in events if e["event"] == "evaluated"][-1]
    assert 1.3 < started["xz_bits_per_byte"] < 1.9
    assert evaluated["whole"]
    assert evaluated["step"] == 160
    assert evaluated["bits_per_byte"] < 2.2  # bytes are 8 bits, single tokens about 3.4
    text = [e for e in events if e["event"] == "sampled"][-1]["text"]
    assert len(re.findall(r"\b(self|return|def|if|None|import|for|in|not)\b", text)) >= 10
    assert "\n    " in text
