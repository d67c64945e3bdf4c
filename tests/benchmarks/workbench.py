"""How fast the workbench is, and what it costs the training beside it. Prints one JSON object.

    python tests/benchmarks/workbench.py [--preset small] [--seconds 30] [--presses 200] [--rounds 2]

first_paint_seconds       from starting the process to its first line on the terminal; median of five (goal: 0.5)
key_to_screen_ms          from writing a letter into the terminal to that letter coming back, while the preset trains
                          (goal: p99 of 50), and without a training
tokens_per_second         median over the steps, with a screen and headless, in turns; their ratio (goal: 0.97)
many_runs, long_run       from the key to 1,000 runs in the list, and to the curves of 1,000,000 steps (goal: 1 s),
                          with the longest wait of a key press while the rest is read
memory                    resident bytes of the workbench after thousands of step events (goal: flat)

Each part needs a machine that does nothing else. Nothing outside a temporary folder is written.
"""

import argparse
import asyncio
import contextlib
import json
import os
import pty
import random
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
GOALS = {"opening_seconds": 1.0, "first_paint_seconds": 0.5, "key_to_screen_ms_p99": 50.0, "speed_ratio": 0.97}
LETTER = "ж"  # nothing else on the screen has it


class Workbench:
    """The program in a pseudo-terminal; every byte it writes is kept with the time at which it came."""

    def __init__(self, *arguments: str, width: int = 120, height: int = 36) -> None:
        import fcntl
        import termios

        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gpt2tui", *arguments], stdin=theirs, stdout=theirs, stderr=theirs,
            start_new_session=True, env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"},
        )  # fmt: skip
        os.close(theirs)
        self.terminal = ours
        self.output: list[tuple[float, bytes]] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self.terminal, 1 << 16):
                self.output.append((time.perf_counter(), data))

    def press(self, keys: str) -> float:
        """Writes the keys; returns when."""
        now = time.perf_counter()
        os.write(self.terminal, keys.encode())
        return now

    def when(self, text: str, since: int = 0, timeout: float = 120.0) -> float:
        """When the text came, looking from the chunk `since` on."""
        wanted, end, seen = text.encode(), time.perf_counter() + timeout, b""
        while time.perf_counter() < end:
            while since < len(self.output):
                came, data = self.output[since]
                seen = seen[-200:] + data
                since += 1
                if wanted in seen:
                    return came
            time.sleep(0.0005)
        raise TimeoutError(f"{text!r} never came; the last output: {seen[-500:]!r}")

    def close(self) -> None:
        """Ends it as a closing terminal does, which saves."""
        self.process.send_signal(signal.SIGHUP)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
        os.close(self.terminal)


def first_paint(rounds: int = 5) -> list[float]:
    """Seconds to the first line, once the files are in the page cache."""
    seconds = []
    for _ in range(rounds + 1):
        workbench = Workbench()
        seconds.append(workbench.when("Presets") - workbench.started)
        workbench.when("Quit")
        workbench.close()
    return seconds[1:]


def train_on_screen(preset: str) -> Workbench:
    """The workbench with a training that has taken its first steps."""
    workbench = Workbench("--preset", preset)
    workbench.when("Estimate")
    time.sleep(4)  # the form is filled in and checked
    workbench.press("\x14")  # ^t
    steps_of_newest_run(at_least=10)
    return workbench


def key_to_screen(preset: str, presses: int, training: bool = True) -> list[float]:
    """Milliseconds from each letter typed into the filter of the presets to its echo, beside a training or not."""
    workbench = train_on_screen(preset) if training else Workbench()
    workbench.when("Quit")
    workbench.press("\x1bOQ")  # f2
    time.sleep(4)
    workbench.press("\x1b")  # out of the form
    time.sleep(1)
    workbench.press("/")
    time.sleep(1)
    times, chance = [], random.Random(0)
    for _ in range(presses):
        time.sleep(chance.uniform(0.05, 0.15))
        since = len(workbench.output)
        pressed = workbench.press(LETTER)
        times.append(1000 * (workbench.when(LETTER, since, timeout=10) - pressed))
        time.sleep(0.05)
        workbench.press("\x7f")
    workbench.close()
    return times


def speed_on_screen(preset: str, seconds: float) -> float:
    """Median tokens a second on the Train screen."""
    workbench = train_on_screen(preset)
    time.sleep(seconds)
    workbench.close()
    return median_speed()


def speed_headless(preset: str, seconds: float) -> float:
    """Median tokens a second without a screen."""
    command = [sys.executable, "-m", "gpt2tui", "--headless", "--preset", preset, "--log-format", "jsonl"]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    steps_of_newest_run(at_least=10)
    time.sleep(seconds)
    process.send_signal(signal.SIGTERM)
    process.wait(120)
    return median_speed()


def steps_of_newest_run(at_least: int, timeout: float = 300.0) -> list[dict]:
    """The step events of the newest run, once there are `at_least` of them."""
    started, end = time.time(), time.monotonic() + timeout
    while time.monotonic() < end:
        files = sorted(Path(os.environ["GPT2TUI_RUNS"]).glob("*/events.jsonl"), key=lambda path: path.stat().st_mtime)
        # One that another measurement has left is older than this call.
        if files and (at_least == 0 or files[-1].stat().st_mtime > started):
            lines = files[-1].read_text().splitlines()[:-1]
            steps = [event for line in lines if (event := json.loads(line))["event"] == "step"]
            if len(steps) >= at_least:
                return steps
        time.sleep(0.2)
    raise TimeoutError("no training began")


def median_speed() -> float:
    """Of the newest run, without the first steps, in which memory is allocated."""
    return statistics.median(step["tokens_per_second"] for step in steps_of_newest_run(at_least=0)[10:])


def memory(events: int = 100_000, parts: int = 10) -> dict[str, int]:
    """Resident bytes of a workbench that receives `events` step events, after each tenth of them."""
    import psutil

    from gpt2tui.preset import files as preset_files
    from gpt2tui.tui.app import WorkbenchApp
    from gpt2tui.tui.session import TrainingSession
    from tests.tui.fake_training import FakeTraining

    measured: dict[str, int] = {}

    async def run() -> None:
        session = TrainingSession(FakeTraining(steps=events, seconds=0.0001))
        app = WorkbenchApp(session=session)
        async with app.run_test(size=(120, 36)) as pilot:
            app.start_training(preset_files.load(["test"]))
            for part in range(1, parts + 1):
                while session.progress.step < events * part // parts and (session.active or part == 1):
                    await pilot.pause(0.05)
                measured[f"{events * part // parts // 1000}k"] = psutil.Process().memory_info().rss
            session.stop()
            session.join(10)

    asyncio.run(run())
    return measured


def write_many_runs(count: int = 1000) -> None:
    """Run folders of 200 steps each."""
    import shutil

    from tests.tui.fake_runs import write_run

    first = write_run("2026-01-01-000000-first", steps=200, total=200, checkpoints=(200,))
    for number in range(1, count):
        shutil.copytree(first.folder, first.folder.with_name(f"2026-01-{1 + number % 28:02}-{number:06}-copy"))


def write_long_run(steps: int = 1_000_000) -> None:
    """A run with the events of that many steps, and an evaluation every 1,000."""
    from gpt2tui.run import events
    from tests.tui.fake_runs import START, loss_at, write_run

    run = write_run("2026-01-01-000000-long", steps=1, total=steps, ending="crashed")
    values = {"grad_norm": 0.8, "tokens_per_second": 2e4, "step_seconds": 0.1, "mfu": None, "learning_rate": 1e-3}
    memory = {"device_memory_bytes": None, "host_memory_bytes": 700_000_000}
    with run.events_file.open("a", encoding="ascii") as file:
        for step in range(2, steps + 1):
            time_of, loss = START + step * 0.1, loss_at(step % 1000)
            event = {
                "v": 1,
                "event": "step",
                "time": time_of,
                "step": step,
                "train_loss": loss,
                "tokens_seen": step * 64,
            }
            file.write(json.dumps(event | values | memory) + "\n")
            if step % 1000 == 0:
                evaluated = events.Evaluated(
                    time=time_of, step=step, val_loss=loss, perplexity=9.0, bits_per_byte=loss / 2
                )
                file.write(evaluated.as_json() + "\n")
        file.write(events.RunFinished(time=time_of, step=steps, best_val_loss=2.0, seconds=steps / 10).as_json() + "\n")


def opening(keys: str, shown: str, watch: str = "") -> dict[str, float]:
    """Seconds from the last key to the text, and the slowest of the mode keys pressed after it, in milliseconds."""
    workbench = Workbench(width=160, height=50)
    workbench.when("Quit")
    time.sleep(4)
    since = len(workbench.output)
    pressed = workbench.press(keys)
    if watch:
        workbench.when(watch, since)
        time.sleep(1)
        since = len(workbench.output)
        pressed = workbench.press("\r")
    seconds = workbench.when(shown, since) - pressed
    waits = []
    for _ in range(20):
        since = len(workbench.output)
        key = workbench.press("?")
        waits.append(1000 * (workbench.when("esc closes", since, timeout=30) - key))
        time.sleep(0.1)
        workbench.press("\x1b")
        time.sleep(0.3)
    workbench.close()
    return {"seconds": seconds, "slowest_key_ms": max(waits)}


def percentile(values: list[float], share: float) -> float:
    """The value below which that share of the values lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main() -> None:
    """Measures what is asked for and prints it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--presses", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", choices=("paint", "keys", "speed", "memory", "opening"), action="append")
    options = parser.parse_args()
    wanted = options.only or ["paint", "keys", "speed", "memory", "opening"]
    result: dict[str, object] = {"goals": GOALS, "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2)}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("RUNS", "CACHE", "CONFIG"):
            os.environ[f"GPT2TUI_{name}"] = str(Path(folder) / name.lower())
        if "paint" in wanted:
            seconds = first_paint()
            result["first_paint_seconds"] = {"median": statistics.median(seconds), "all": seconds}
        if "keys" in wanted:
            times = key_to_screen(options.preset, options.presses)
            result["key_to_screen_ms"] = {"p50": percentile(times, 0.5), "p99": percentile(times, 0.99)}
            idle = key_to_screen(options.preset, options.presses, training=False)
            result["key_to_screen_ms_idle"] = {"p50": percentile(idle, 0.5), "p99": percentile(idle, 0.99)}
        if "speed" in wanted:
            pairs = [
                (speed_headless(options.preset, options.seconds), speed_on_screen(options.preset, options.seconds))
                for _ in range(options.rounds)
            ]
            result["tokens_per_second"] = [{"headless": h, "screen": s, "ratio": s / h} for h, s in pairs]
            result["speed_ratio"] = statistics.median(s / h for h, s in pairs)
        if "opening" in wanted:
            for name, write, options_of in (
                ("many_runs", write_many_runs, {"keys": "\x1b[18~", "shown": "1000 runs"}),
                ("long_run", write_long_run, {"keys": "\x1b[18~", "shown": "smoothed", "watch": "1 run"}),
            ):
                os.environ["GPT2TUI_RUNS"] = str(Path(folder) / name)
                write()
                result[name] = opening(**options_of)
            os.environ["GPT2TUI_RUNS"] = str(Path(folder) / "runs")
        if "memory" in wanted:
            result["memory"] = memory()
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
