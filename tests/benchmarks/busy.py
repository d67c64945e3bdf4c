"""What a training step takes alone and beside busy processes, by how its threads wait. Prints one JSON object.

    python tests/benchmarks/busy.py [--seconds 6] [--rounds 2] [--shape NAME ...] [--way NAME=SETTING,... ...]

Company: none; `one`, a process with one busy thread; `training`, a process that trains with a thread per core and
torch's own way of waiting; `bursts`, four processes that compute for 10 ms in every 40, as a browser does; `chat`, a
thread of the same process that writes text without a pause. The median milliseconds of a step, and the ratio to
`none`, per shape and way. A way is environment variables, such as `brief=GOMP_SPINCOUNT=1000`; `ours` sets none, so
that the program's own apply, and `torch` takes torch's. Each round is a process of its own; the ways take turns.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from gpt2tui.system.waiting_threads import WAITING, wait_briefly  # noqa: E402 it loads no torch

CHARACTERS = [
    "model.n_layer=4", "model.n_embd=128", "model.n_head=4", "model.n_positions=64",
    'data.tokenizer="char"', 'model.vocab_size="auto"',
    "training.sequence_length=64", "training.batch_size=12", 'optimizer.name="adamw"',
]  # fmt: skip
WIDE = [
    "model.n_layer=6", "model.n_embd=384", "model.n_head=6", "model.n_positions=256",
    'data.tokenizer="gpt2"', 'model.vocab_size="auto"',
    "training.sequence_length=256", "training.batch_size=4", 'optimizer.name="adamw"',
]  # fmt: skip
SHAPES: dict[str, tuple[str, list[str]]] = {
    "test": ("test", []),
    "4/128": ("test", CHARACTERS),
    "small": ("small", []),
    "6/384": ("test", WIDE),
}
COMPANY = ("none", "one", "training", "bursts", "chat")
BURSTS = """
import os, time
for _ in range(3):
    if not os.fork():
        break
while True:
    end = time.perf_counter() + 0.01
    while time.perf_counter() < end:
        pass
    time.sleep(0.03)
"""
VARIABLES = (*WAITING, "OMP_NUM_THREADS")


def train(shape: str, seconds: float, chat: bool) -> None:
    """Trains for some seconds, says so when it begins, and prints the seconds of each step."""
    if os.environ.get("WAY") != "torch":
        wait_briefly()
    import torch

    from gpt2tui.benchmark.generation import our_generation
    from gpt2tui.benchmark.job import Job
    from gpt2tui.benchmark.subject import resolve
    from gpt2tui.benchmark.training import training_candidate
    from gpt2tui.preset import files
    from gpt2tui.system.threads import lower_priority

    name, overrides = SHAPES[shape]
    subject = resolve(files.load([name], overrides))
    _, steps_for = training_candidate(Job("train", "gpt2tui", subject.preset, subject.tokens, warm_up_rounds=False))
    if chat:
        generate, _ = our_generation(subject.preset, subject.device)
        prompt = torch.zeros(1, 8, dtype=torch.long)

        def write_for_ever() -> None:
            lower_priority()
            while True:
                generate(prompt, 32)

        threading.Thread(target=write_for_ever, daemon=True).start()
    print("begun", flush=True)
    print(json.dumps(steps_for(seconds).seconds["step"]), flush=True)
    os._exit(0)  # whatever the other thread does


@contextlib.contextmanager
def company(kind: str) -> Iterator[None]:
    """Another process beside this one, from here on busy."""
    if kind in ("none", "chat"):
        yield
        return
    alone = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    command = [sys.executable, "-c", "while True: pass"]
    if kind == "training":
        command = [sys.executable, __file__, "--train", "6/384", "--seconds", "3600"]
    if kind == "bursts":
        command = [sys.executable, "-c", BURSTS]
    other = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**alone, "WAY": "torch"}, start_new_session=True
    )
    try:
        if kind == "training":
            assert other.stdout is not None
            other.stdout.readline()
        yield
    finally:
        os.killpg(other.pid, signal.SIGKILL)
        other.wait()


def step_ms(shape: str, way: str, settings: Sequence[str], seconds: float, chat: bool) -> float:
    """The median of a step in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment |= dict(setting.split("=", 1) for setting in settings) | {"WAY": way}
    command = [sys.executable, __file__, "--train", shape, "--seconds", str(seconds), *(["--chat"] if chat else [])]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return 1000 * statistics.median(json.loads(output.splitlines()[-1]))


def main() -> None:
    """Measures what is asked for and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--shape", choices=list(SHAPES), action="append")
    parser.add_argument("--way", action="append", default=[])
    parser.add_argument("--company", choices=COMPANY, action="append", help="beside none")
    parser.add_argument("--train", help=argparse.SUPPRESS)
    parser.add_argument("--chat", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train(options.train, options.seconds, options.chat)
        return
    ways = {"torch": [], "ours": []} | {w.split("=", 1)[0]: w.split("=", 1)[1].split(",") for w in options.way}
    result: dict[str, object] = {"cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2)}
    company_kinds = ["none", *(options.company or COMPANY[1:])]
    for shape in options.shape or SHAPES:
        times: dict[str, dict[str, list[float]]] = {way: {kind: [] for kind in company_kinds} for way in ways}
        for kind in company_kinds:
            with company(kind):
                for _ in range(options.rounds):
                    for way, settings in ways.items():
                        times[way][kind].append(step_ms(shape, way, settings, options.seconds, kind == "chat"))
            time.sleep(1)
        rows = {way: {kind: statistics.median(each) for kind, each in row.items()} for way, row in times.items()}
        result[shape] = {
            way: {kind: [round(ms, 1), round(ms / row["none"], 2)] for kind, ms in row.items()}
            for way, row in rows.items()
        }
        print(shape, json.dumps(result[shape]), file=sys.stderr, flush=True)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
