"""Tiny Shakespeare on a CPU: nanoGPT's recipe trained its way and ours, and the preset `shakespeare-cpu`.

    curl -o shakespeare.txt https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt
    python tests/benchmarks/shakespeare.py shakespeare.txt [--seeds 1]

The recipe is the one that nanoGPT's README gives for a MacBook: 4 layers, 4 heads, 128 wide, 64 characters, batches of
12, 2,000 steps, no dropout. `nanogpt` is that recipe trained as nanoGPT does (fp32, eager, all logits, AdamW with its
groups, cosine to a tenth, batches at random positions); `recipe` the same settings through `gpt2tui train`. For each:
the loss over the whole validation text (the last tenth) after the last step, in nats per character, and the seconds of
its steps. Prints one JSON object.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
STEPS, BATCH, T = 2000, 12, 64
RATE, LOWEST_RATE, WARM_UP = 1e-3, 1e-4, 100
RECIPE = [
    "model.n_layer=4", "model.n_head=4", "model.n_embd=128", f"model.n_positions={T}", "model.dropout=0.0",
    f"training.sequence_length={T}", f"training.batch_size={BATCH}", f"training.num_iterations={STEPS}",
    "training.eval_frequency=500",
]  # fmt: skip


def nanogpt(path: Path, seed: int) -> tuple[float, float]:
    """(the loss over the validation text, the seconds of the steps)."""
    import torch
    import torch.nn.functional as F

    from gpt2tui.model.config import GPT2Config
    from gpt2tui.model.gpt2 import GPT2

    text = path.read_text(encoding="utf-8")
    characters = sorted(set(text))
    tokens = torch.tensor([characters.index(c) for c in text])
    train, validation = tokens[: int(0.9 * len(tokens))], tokens[int(0.9 * len(tokens)) :]
    torch.manual_seed(seed)
    config = GPT2Config(vocab_size=len(characters), n_positions=T, n_layer=4, n_head=4, n_embd=128, bias=False)
    model = GPT2(config)
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.99))
    started = time.perf_counter()
    for step in range(STEPS):
        decayed = 0.5 * (1 + math.cos(math.pi * (step - WARM_UP) / (STEPS - WARM_UP)))
        rate = RATE * (step + 1) / (WARM_UP + 1) if step < WARM_UP else LOWEST_RATE + decayed * (RATE - LOWEST_RATE)
        for group in optimizer.param_groups:
            group["lr"] = rate
        starts = torch.randint(len(train) - T, (BATCH,))
        x = torch.stack([train[i : i + T] for i in starts])
        y = torch.stack([train[i + 1 : i + 1 + T] for i in starts])
        logits = model(x)
        F.cross_entropy(logits.view(-1, logits.size(-1)), y.view(-1)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - started
    windows = (len(validation) - 1) // T
    x, y = validation[: windows * T].view(-1, T), validation[1 : windows * T + 1].view(-1, T)
    with torch.no_grad():
        return float(sum(model(a, b, reduction="sum") for a, b in zip(x.split(64), y.split(64), strict=True))) / (
            windows * T
        ), seconds


def train(path: Path, preset: str, overrides: list[str], seed: int) -> tuple[float, float]:
    """The same of a run of this program."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "gpt2tui", "--headless", "--preset", preset, "--run-dir", f"{folder}/run"]
        for setting in [*overrides, f"training.seed={seed}", f"data.source='{path.resolve()}'"]:
            command += ["--set", setting]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "GPT2TUI_CACHE": f"{folder}/cache"}
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        events = [json.loads(line) for line in Path(folder, "run", "events.jsonl").read_text().splitlines()]
    whole = [event for event in events if event["event"] == "evaluated" and event["whole"]]
    steps = [event for event in events if event["event"] == "step"]
    per_step = [event["tokens_per_second"] for event in steps if event["tokens_per_second"]]
    tokens = steps[-1]["tokens_seen"]
    return whole[-1]["val_loss"], tokens * sum(1 / rate for rate in per_step) / len(per_step)


def main() -> None:
    """Measures all three, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", choices=("nanogpt", "recipe", "shakespeare-cpu"), action="append")
    options = parser.parse_args()
    result: dict[str, list[dict[str, float]]] = {}
    for seed in range(1, options.seeds + 1):
        for name, measure in (
            ("nanogpt", partial(nanogpt, options.text, seed)),
            ("recipe", partial(train, options.text, "shakespeare-char", RECIPE, seed)),
            ("shakespeare-cpu", partial(train, options.text, "shakespeare-cpu", [], seed)),
        ):
            if name in (options.only or [name]):
                loss, seconds = measure()
                result.setdefault(name, []).append({"val_loss": round(loss, 4), "seconds": round(seconds, 1)})
                print(name, result[name][-1], file=sys.stderr, flush=True)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
