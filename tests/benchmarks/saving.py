"""How long saving a checkpoint holds up training: written beside it, and before the next step. Prints one JSON object.

    python tests/benchmarks/saving.py [--preset default] [--rounds 3]

Seconds of the steps that save, less the mean of the steps before and behind (the one behind shares the machine with the
writing); medians over the checkpoints of each way, taken in turns in one process. The goal is 0.5 s for 12 layers of
768.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from tests.tiny_runs import finish  # noqa: E402

EVERY = 12
STEPS = 2 * EVERY + 2  # the one behind the second that saves


def stalls(preset_name: str, folder: Path) -> tuple[list[float], float, int]:
    """What the checkpoints of a short run cost, in seconds; the median time of its other steps; bytes of one."""
    from gpt2tui.data.token_store import prepare
    from gpt2tui.preset import files as preset_files
    from gpt2tui.run import folder as runs
    from gpt2tui.run.events import CheckpointSaved, Step
    from gpt2tui.system.files import cache_folder
    from gpt2tui.training.trainer import Trainer

    overrides = [
        "data.source=python-stdlib", f"training.num_iterations={STEPS + 1}", f"training.checkpoint_frequency={EVERY}",
        "training.eval_frequency=0", "training.sample_frequency=0", "training.keep_checkpoints=1",
    ]  # fmt: skip
    preset = preset_files.load([preset_name], overrides).preset
    corpus = finish(prepare(preset, cache_folder()))
    preset = preset.with_vocab_size(corpus.tokenizer.vocab_size)
    trainer = Trainer(runs.create(preset_name, folder), preset, corpus, preset_name=preset_name)
    times, size = {}, 0
    for event in trainer.train():
        if isinstance(event, Step):
            times[event.step] = time.perf_counter()
        elif isinstance(event, CheckpointSaved):
            size = event.bytes
        if len(times) == STEPS:
            break
    gaps = {step: times[step] - times[step - 1] for step in times if step > 2}
    saving = [step for step in gaps if (step - 1) % EVERY == 0]
    extra = [gaps[step] - (gaps[step - 1] + gaps[step + 1]) / 2 for step in saving]
    return extra, statistics.median(gap for step, gap in gaps.items() if step not in saving), size


def main() -> None:
    """Measures both ways in turns and prints what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="default")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    from gpt2tui.training import saving

    share = saving.SHARE_OF_FREE_MEMORY
    found: dict[str, list[float]] = {"beside": [], "before_the_next_step": []}
    for _ in range(options.rounds):
        for way, costs in found.items():
            saving.SHARE_OF_FREE_MEMORY = share if way == "beside" else 0.0
            with tempfile.TemporaryDirectory() as folder:
                some, step_seconds, size = stalls(options.preset, Path(folder) / "run")
            costs += some
    print(json.dumps({
        "preset": options.preset, "checkpoint_bytes": size, "step_seconds": step_seconds,
        "extra_seconds": {way: {"median": statistics.median(c), "all": c} for way, c in found.items()},
    }, indent=2))  # fmt: skip


if __name__ == "__main__":
    main()
