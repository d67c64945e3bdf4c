"""The estimate of memory and time of each preset against a short run of it. Prints one JSON object a preset.

    python tests/benchmarks/estimates.py [PRESET ...] [--set KEY=VALUE ...]

Every preset trains in a process of its own: three steps, with evaluations and a checkpoint, on the Python standard
library unless --set names a source. `peak_bytes` is the largest resident size that the system saw (VmHWM, or
ru_maxrss), from before the first step on where Linux lets it be reset; `step_seconds` the median of the later steps.
Goals: 15 % for memory, 25 % for time, the latter on a machine that does nothing else.
"""

import argparse
import dataclasses
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[2]
PRESETS = ("test", "small", "shakespeare-char", "default")
SHORT = (
    "training.num_iterations=3", "training.time_budget=0", "schedule.warmup_iterations=1",
    "training.checkpoint_frequency=2", "training.eval_frequency=2", "training.eval_tokens=8192",
    "training.sample_frequency=0",
)  # fmt: skip


def measure(name: str, overrides: list[str]) -> dict[str, object]:
    """Trains in this process, whose peak is the result's."""
    from gpt2tui.system.host_memory import keep_freed_memory

    keep_freed_memory()  # as a run does
    from gpt2tui.data.token_store import prepare
    from gpt2tui.device import choose_device, choose_precision
    from gpt2tui.estimate import estimate
    from gpt2tui.preset import files as preset_files
    from gpt2tui.run import folder as runs
    from gpt2tui.run.events import Step
    from gpt2tui.system.device_speed import measure as measure_device
    from gpt2tui.system.files import cache_folder
    from gpt2tui.training.trainer import Trainer
    from tests.tiny_runs import finish

    preset = preset_files.load([name], ["data.source=python-stdlib", *SHORT, *overrides]).preset
    corpus = finish(prepare(preset, cache_folder()))
    preset = preset.with_vocab_size(corpus.tokenizer.vocab_size)
    process_bytes = psutil.Process().memory_info().rss
    forget_peak()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(runs.create(name, Path(folder) / "run"), preset, corpus, preset_name=name)
        seconds = [event.step_seconds for event in trainer.train() if isinstance(event, Step)]
    measured = peak_bytes()
    device = choose_device(preset.training.device)  # measured afterwards: its matrices would stay in the heap
    speed = measure_device(device, choose_precision(preset, device))
    speed = dataclasses.replace(speed, process_bytes=process_bytes)
    costs = estimate(preset, vocab_size=preset.model.vocab_size or 0, train_tokens=None, device=speed)
    expected = (costs.seconds or 0) / costs.steps
    return {
        "preset": name,
        "precision": costs.precision,
        "memory_bytes": costs.memory.total,
        "peak_bytes": measured,
        "memory_ratio": costs.memory.total / measured,
        "memory": vars(costs.memory),
        "estimated_step_seconds": expected,
        "step_seconds": statistics.median(seconds[1:]),
        "time_ratio": expected / statistics.median(seconds[1:]),
    }


def forget_peak() -> None:
    """Makes the present size the peak, on Linux: what preparing the tokens took is not the training's."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_bytes() -> int:
    """The largest resident size of this process so far, or since `forget_peak`."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Measures the presets one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("presets", nargs="*", default=PRESETS, metavar="PRESET")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if len(options.presets) == 1:
        print(json.dumps(measure(options.presets[0], options.overrides)))
        return
    for name in options.presets:
        overrides = [argument for override in options.overrides for argument in ("--set", override)]
        subprocess.run([sys.executable, __file__, name, *overrides], check=True)


if __name__ == "__main__":
    main()
