"""What a long training uses stays the same: memory, descriptors, threads, and the disk except for its events.

GPT2TUI_STEPS is the number of steps, 400 by default, of the network of the preset `test` on short windows. Every tenth
of them is followed by an evaluation, a sample and a checkpoint, in a run of 100,000 every hundredth.
"""

import contextlib
import os
import statistics
import threading
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import psutil
import pytest

from gpt2tui.launch import drive, new_run
from gpt2tui.preset import files as preset_files
from gpt2tui.run.events import RunFinished, Step
from gpt2tui.training.controls import Controls
from tests import tiny_runs

STEPS = int(os.environ.get("GPT2TUI_STEPS", "400"))
MEASUREMENTS = 40


@dataclass(frozen=True)
class Usage:
    """What the process and the run folder use after a step."""

    memory: int
    descriptors: int
    threads: int
    disk: int
    """Without events.jsonl."""


MOST_GROWTH = Usage(memory=8 << 20, descriptors=2, threads=1, disk=12 << 20)
"""From the second quarter of the measurements to the last, by their medians: allocators and caches have room, and the
best checkpoint is kept beside the newest, each of 3 MB."""


def usage(run):
    process = psutil.Process()
    sizes = []
    for folder, _, names in os.walk(run):  # unlike Path.rglob it passes over a checkpoint that is removed meanwhile
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # a checkpoint that is being written
                sizes += [Path(folder, name).stat().st_size] if name != "events.jsonl" else []
    return Usage(
        process.memory_info().rss,
        len(list(Path("/proc/self/fd").iterdir())),
        threading.active_count(),
        sum(sizes),
    )


def growth(measured):
    """From the median of the second quarter to that of the last quarter."""
    quarter = len(measured) // 4
    columns = list(zip(*map(astuple, measured), strict=True))
    return Usage(*(int(statistics.median(c[-quarter:]) - statistics.median(c[quarter : 2 * quarter])) for c in columns))


def grown(measured):
    """The names of what has grown by more than MOST_GROWTH."""
    found = growth(measured)
    return [f.name for f in fields(Usage) if getattr(found, f.name) > getattr(MOST_GROWTH, f.name)]


@pytest.mark.slow
@pytest.mark.timeout(300 if STEPS <= 400 else 0)
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors are counted on Linux")
def test_a_long_training_uses_what_a_short_one_uses(tmp_path):
    frequency = max(10, STEPS // 1000)
    short_windows = ("training.batch_size=1", "training.sequence_length=16", "training.eval_tokens=256")
    every = [f"training.{what}_frequency={frequency}" for what in ("eval", "sample", "checkpoint")]
    corpus = f"data.source={tiny_runs.corpus_file(tmp_path)}"
    settings = [corpus, "data.tokenizer=byte", "sampling.max_length=8", f"training.num_iterations={STEPS}"]
    loaded = preset_files.load(["test"], [*settings, *short_windows, *every])
    run = tmp_path / "run"
    measured = []
    for emitted in drive(new_run(loaded, run), Controls(), lambda message: None):
        if isinstance(emitted, Step) and emitted.step % (STEPS // MEASUREMENTS) == STEPS // MEASUREMENTS // 2:
            measured.append(usage(run))
            print(emitted.step, measured[-1], flush=True)
    assert isinstance(emitted, RunFinished)
    print(growth(measured))
    assert len(measured) == MEASUREMENTS
    assert grown(measured) == []
    events = (run / "events.jsonl").stat().st_size
    assert events / STEPS < 600, "bytes of events for a step"


@pytest.mark.parametrize("name", [f.name for f in fields(Usage)])
def test_the_comparison_sees_a_leak(name):
    most = getattr(MOST_GROWTH, name)
    level = {"memory": 500 << 20, "descriptors": 10, "threads": 2, "disk": 1 << 22}
    steady = [Usage(**level | {name: level[name] + number % 2 * most}) for number in range(MEASUREMENTS)]
    assert grown(steady) == []
    leaking = [
        Usage(**level | {name: level[name] + 6 * most * number // MEASUREMENTS}) for number in range(MEASUREMENTS)
    ]
    assert grown(leaking) == [name]
