"""Full training, LoRA and QLoRA of the same model on the same text: what each trains, takes and reaches, as a table.

    python tests/benchmarks/finetuning.py --from RUN [--data FILE] [--steps 30]

Two models: the checkpoint that --from names, such as one of `small`, and a GPT-2 of 124 million random weights, which
is there for memory and time and trained for --large-steps. Each row is a process of its own. `peak` is the largest
resident size from before the first step on (of a GPU, what torch reserved on it), `estimated` what `--dry-run` says of
that; the time of a step is the median without the first. The losses are of the whole validation text, in bits per byte,
before and after. QLoRA needs bitsandbytes and is left out without it. On a CPU, times are worth something on a machine
that does nothing else.
"""

import argparse
import dataclasses
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
WAYS = {"full": "finetune", "LoRA, rank 8": "lora", "QLoRA, rank 8": "qlora"}
COLUMNS = (
    "model", "way", "trained", "peak", "estimated", "ratio", "step", "weights", "checkpoint", "before", "after",
)  # fmt: skip


def main() -> None:
    """Prints the table, a row when it is measured; with --row measures one and prints it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="base", required=True, metavar="MODEL")
    parser.add_argument("--data", default=str(ROOT / "docs"), metavar="FILE|FOLDER")
    parser.add_argument("--steps", type=int, default=30, metavar="N")
    parser.add_argument("--large-steps", type=int, default=4, metavar="N")
    parser.add_argument("--large-length", type=int, default=256, metavar="N", help="tokens of a window of the 124M")
    parser.add_argument("--rates", type=float, nargs=2, default=(1e-3, 1e-2), metavar="RATE", help="full, adapters")
    parser.add_argument("--set", action="append", default=[], dest="overrides", metavar="KEY=VALUE")
    parser.add_argument("--row", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    if options.row:
        print(json.dumps(measure(options)))
        return
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS))
    with tempfile.TemporaryDirectory() as folder:
        large = random_124m(Path(folder) / "random-124m")
        for name, base in (("given", options.base), ("124M", str(large))):
            is_large = name == "124M"
            for way in WAYS:
                if way.startswith("QLoRA") and importlib.util.find_spec("bitsandbytes") is None:
                    print("QLoRA is left out: bitsandbytes is not installed", file=sys.stderr)
                    continue
                rate = options.rates[0 if way == "full" else 1]
                settings = [
                    *(f"--set={override}" for override in options.overrides),
                    f"--set=optimizer.lr={6.25e-5 if is_large else rate}",
                    *([f"--set=training.sequence_length={options.large_length}"] if is_large else []),
                    "--steps", str(options.large_steps if is_large else options.steps),
                ]  # fmt: skip
                words = [sys.executable, __file__, "--from", base, "--data", options.data, "--row", way, *settings]
                row = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout)
                print("| " + " | ".join([name, *shown(row)]) + " |", flush=True)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Trains in this process, whose peak is the result's."""
    from gpt2tui.system.host_memory import keep_freed_memory

    keep_freed_memory()  # as a run does
    import torch

    from gpt2tui.device import choose_device, choose_precision
    from gpt2tui.estimate import estimate
    from gpt2tui.launch import Launch, OpenedRun, drive
    from gpt2tui.preset import files as preset_files
    from gpt2tui.run import checkpoint
    from gpt2tui.run.events import Evaluated, RunStarted, Step
    from gpt2tui.system.device_speed import measure as measure_device
    from gpt2tui.training.controls import Controls
    from tests.benchmarks.estimates import forget_peak, peak_bytes

    settings = [
        f"model.init_from={options.base}", f"data.source={Path(options.data).absolute()}",
        f"training.num_iterations={options.steps}", f"training.eval_frequency={options.steps}",
        "training.eval_tokens=1000000", "training.time_budget=0", f"training.checkpoint_frequency={options.steps}",
        f"schedule.warmup_iterations={options.steps // 10}", "training.sample_frequency=0", *options.overrides,
    ]  # fmt: skip
    loaded = preset_files.load([WAYS[options.row]], settings)
    device = choose_device(loaded.preset.training.device)
    started: RunStarted | None = None
    process_bytes, seconds, losses, run = 0, [], [], None
    with tempfile.TemporaryDirectory() as folder:
        for emitted in drive(Launch(loaded, run_dir=Path(folder) / "run").open(), Controls(), fit_check="warn"):
            if isinstance(emitted, OpenedRun):
                run, preset = emitted.run, emitted.loaded.preset
                process_bytes = psutil.Process().memory_info().rss
                forget_peak()
            elif isinstance(emitted, RunStarted):
                started = emitted
            elif isinstance(emitted, Step):
                seconds.append(emitted.step_seconds)
            elif isinstance(emitted, Evaluated):
                losses.append(emitted.bits_per_byte)
        peak = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else peak_bytes()
        assert run is not None
        saved = checkpoint.newest(run.checkpoints)
    assert started is not None
    speed = measure_device(device, choose_precision(preset, device))  # afterwards: its matrices would stay in the heap
    if device.type != "cuda":
        speed = dataclasses.replace(speed, process_bytes=process_bytes)
    costs = estimate(preset, vocab_size=started.vocab_size or 0, train_tokens=None, device=speed)
    return {
        "way": options.row,
        "trained": costs.trained_parameters,
        "peak": peak,
        "estimated": costs.memory.total,
        "step": statistics.median(seconds[1:] or seconds),
        "weights": sum(file.bytes for file in saved.files.values() if file.kind == "weights"),
        "checkpoint": saved.bytes,
        "before": losses[0],
        "after": losses[-1],
    }


def shown(row: dict[str, Any]) -> list[str]:
    """The cells of a row after the model's name."""
    from gpt2tui.system.numbers import byte_size

    return [
        row["way"],
        f"{row['trained']:,}",
        byte_size(row["peak"]),
        byte_size(row["estimated"]),
        f"{row['estimated'] / row['peak']:.2f}",
        f"{row['step'] * 1000:,.0f} ms",
        byte_size(row["weights"]),
        byte_size(row["checkpoint"]),
        *("" if loss is None else f"{loss:.3f}" for loss in (row["before"], row["after"])),
    ]


def random_124m(folder: Path) -> Path:
    """A folder in Hugging Face's form with GPT-2's smallest shape, its tokenizer, and fresh weights."""
    import torch
    from safetensors.torch import save_file

    from gpt2tui.data import tokenizers
    from gpt2tui.model.config import GPT2Config
    from gpt2tui.model.gpt2 import GPT2
    from gpt2tui.model.huggingface import to_published
    from gpt2tui.model.published_config import published_config

    torch.manual_seed(0)
    tokenizer = tokenizers.gpt2()
    config = GPT2Config(vocab_size=tokenizer.vocab_size)
    folder.mkdir()
    tensors = to_published(GPT2(config).state_dict(), config)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(published_config(config, tokenizer.eot)))
    tokenizers.save(tokenizer, folder)
    return folder


if __name__ == "__main__":
    main()
