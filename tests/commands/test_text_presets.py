"""`shakespeare-cpu` and `tinystories` train as they are shipped, on stand-ins for the texts that they download."""

import json

import pyarrow as pa
import pytest
from pyarrow import parquet

from gpt2tui.__main__ import main

NAMES = ("Lily", "Tom", "Mia", "Ben", "Sue")
PLACES = ("park", "house", "garden", "forest", "shop", "lake")


def stories(count):
    """Short texts that differ from each other."""
    return [
        f"Once upon a time {NAMES[n % 5]} went to the {PLACES[n % 6]}. There were {n} birds, and {NAMES[n % 3]} "
        f"said: I like the {PLACES[n % 4]}! They played for {n % 7} days and went home to the {PLACES[n % 5]}."
        for n in range(count)
    ]


def evaluations(run):
    events = [json.loads(line) for line in (run / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    return [event for event in events if event["event"] == "evaluated"], events


@pytest.mark.slow
def test_tinystories_streams_a_data_set_in_the_layout_of_the_hub(tmp_path):
    folder = tmp_path / "stories" / "data"
    folder.mkdir(parents=True)
    for name, texts in (("train", stories(4000)), ("validation", stories(4400)[4000:])):
        parquet.write_table(pa.table({"text": texts}), folder / f"{name}-00000-of-00001.parquet")
    settings = [f"data.source=hf:{folder.parent}", "model.vocab_size=300", "training.time_budget=0"]
    settings += ["training.num_iterations=30", "training.eval_tokens=2048", "training.batch_size=2"]
    assert main(["train", "tinystories", *settings, "--run-dir", str(tmp_path / "run")]) == 0
    evaluated, events = evaluations(tmp_path / "run")
    assert evaluated[-1]["step"] == 30
    assert evaluated[-1]["val_loss"] < 4.5  # ln 300 is 5.7
    assert "the" in [event for event in events if event["event"] == "sampled"][-1]["text"]


@pytest.mark.slow
def test_shakespeare_cpu_reads_the_text_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shakespeare.txt").write_text("\n".join(stories(800)), encoding="utf-8")
    settings = ["training.num_iterations=40", "training.eval_tokens=2048"]
    assert main(["train", "shakespeare-cpu", *settings, "--run-dir", str(tmp_path / "run")]) == 0
    evaluated, events = evaluations(tmp_path / "run")
    assert evaluated[-1]["val_loss"] < 2.0  # of about 40 characters, ln of which is 3.7
    assert len([event for event in events if event["event"] == "sampled"][-1]["text"]) > 100
