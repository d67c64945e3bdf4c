"""WikiText-103 from its files to prepared tokens and a first training: time, peak memory and disk of each stage.

    python tests/benchmarks/wikitext.py [--megabytes 540] [--folder DIR] [--tokenizer gpt2] [--steps 20]

The text is generated, of about the published size, line lengths and articles, in the layout of Salesforce/wikitext on
the Hub: wikitext-103-raw-v1/train-00000-of-00002.parquet and so on, one row a line. `peak` is the largest resident size
of the process and those that it starts, `disk` what the stage leaves below the cache folders. The corpus is read twice:
as the Hub's layout, and as .jsonl files of articles, which several processes share. Times are worth something on a
machine that does nothing else.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow
import pyarrow.parquet

ROOT = Path(__file__).parents[2]
CONFIG = "wikitext-103-raw-v1"
TRAIN_FILES = 2  # as on the Hub
HELD_OUT = 1 / 450  # of the training text: 1.1 MB of 540
LINES_OF_AN_ARTICLE = 40
ROWS_OF_A_GROUP = 50_000
JSONL_FILES = 8
POLL_SECONDS = 0.05


def main() -> None:
    """Generates the files, runs the stages and prints a table, a row when its stage is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=540.0, metavar="N", help="of training text (default: 540)")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="where to work, and what to keep (default: a new one)"
    )
    parser.add_argument("--tokenizer", default="gpt2", help="data.tokenizer (default: gpt2)")
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="of the training (default: 20)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        measure(options, options.folder or Path(temporary))


def measure(options: argparse.Namespace, folder: Path) -> None:
    """Prints the table."""
    folder.mkdir(parents=True, exist_ok=True)
    repository, rows = folder / "wikitext", folder / "articles"
    if not (repository / "README.md").exists():
        generate(repository, rows, int(options.megabytes * 1e6))
    print(f"text: {size_of(repository):,} bytes of parquet, {size_of(rows):,} bytes of jsonl, {os.cpu_count()} cores")
    print("| stage | seconds | peak MB | disk MB |\n|---|---|---|---|")
    hub, files = f"hf:{repository}:{CONFIG}", str(rows)
    settings = [f"data.tokenizer={options.tokenizer}", "model.vocab_size=auto"]
    training = [f"training.num_iterations={options.steps}", "training.time_budget=0", "schedule.warmup_iterations=0"]
    small = ["training.batch_size=2", "training.sequence_length=128", "model.n_positions=128"]
    stages = {
        "prepare, Hub's layout": ["prepare", "test", f"data.source={hub}", *settings],
        "prepare again": ["prepare", "test", f"data.source={hub}", *settings],
        "prepare, jsonl, 1 process": ["prepare", "test", f"data.source={files}", *settings, "--processes=1"],
        "prepare, jsonl, all cores": ["prepare", "test", f"data.source={files}", *settings],
        f"train {options.steps} steps": ["train", "test", f"data.source={hub}", *settings, *training, *small],
    }
    for number, (stage, command) in enumerate(stages.items()):
        # What was prepared before must not help, where that is not the question.
        cache = folder / ("cache-jsonl-" + str(number) if "jsonl" in stage else "cache")
        environment = {
            **os.environ,
            "GPT2TUI_CACHE": str(cache),
            "GPT2TUI_RUNS": str(folder / "runs"),
            "HF_DATASETS_CACHE": str(cache / "datasets"),
        }
        before = size_of(cache)
        seconds, peak = run([sys.executable, "-m", "gpt2tui", *command], environment)
        print(f"| {stage} | {seconds:.1f} | {peak / 1e6:,.0f} | {(size_of(cache) - before) / 1e6:,.0f} |", flush=True)


def run(command: list[str], environment: dict[str, str]) -> tuple[float, int]:
    """The seconds that a command takes, and the largest resident size of it and its processes, in bytes."""
    started = time.perf_counter()
    with subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        peak, done = 0, threading.Event()

        def watch() -> None:
            nonlocal peak
            while not done.wait(POLL_SECONDS):
                peak = max(peak, resident(process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        code = process.wait()
        done.set()
        watcher.join()
    if code:
        sys.exit(f"{' '.join(command)} ended with {code}")
    return time.perf_counter() - started, peak


def resident(pid: int) -> int:
    """The resident size of a process and those that it has started, in bytes; shared pages count once for each."""
    total = 0
    try:
        process = psutil.Process(pid)
        for each in [process, *process.children(recursive=True)]:
            total += each.memory_info().rss
    except psutil.NoSuchProcess:
        pass
    return total


def size_of(folder: Path) -> int:
    """What the files below a folder take on the disk, in bytes."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


# ---- the text


def generate(repository: Path, rows: Path, train_bytes: int) -> None:
    """Writes the parquet files in the Hub's layout, and the training articles as .jsonl files."""
    words = vocabulary(random.Random(0))
    splits = {"train": train_bytes, "validation": int(train_bytes * HELD_OUT), "test": int(train_bytes * HELD_OUT)}
    lines = ["---", "configs:", f"- config_name: {CONFIG}", "  data_files:"]
    rows.mkdir(parents=True, exist_ok=True)
    for split, size in splits.items():
        lines += [f"  - split: {split}", f"    path: {CONFIG}/{split}-*.parquet"]
        count = TRAIN_FILES if split == "train" else 1
        for number in range(count):
            path = repository / CONFIG / f"{split}-{number:05}-of-{count:05}.parquet"
            articles = articles_of(random.Random(f"{split} {number}"), words, size // count)
            write_parquet(path, articles)
    for number in range(JSONL_FILES):
        with (rows / f"{number:02}.jsonl").open("w", encoding="utf-8") as file:
            for article in articles_of(random.Random(f"rows {number}"), words, train_bytes // JSONL_FILES):
                file.write(json.dumps({"text": "".join(line or " \n" for line in article)}) + "\n")
    (repository / "README.md").write_text("\n".join([*lines, "---", ""]), encoding="utf-8")


def vocabulary(rng: random.Random) -> list[str]:
    """Words of 1 to 12 letters, of which the first are the most frequent (Zipf's law, by `articles_of`)."""
    syllables = [a + b for a in "bcdfghjklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er", "in", "on", "es")]
    return ["".join(rng.choices(syllables, k=rng.choice((1, 2, 2, 3, 3, 4)))) for _ in range(60_000)]


def articles_of(rng: random.Random, words: list[str], size: int) -> Iterator[list[str]]:
    """Articles of about `size` bytes together; each is lines as the data set has them, empty ones as nothing."""
    weights = [1 / (rank + 3) for rank in range(len(words))]
    cumulative, total = [], 0.0
    for weight in weights:
        total += weight
        cumulative.append(total)
    written = 0
    while written < size:
        title = " ".join(word.capitalize() for word in rng.choices(words, cum_weights=cumulative, k=2))
        article = ["", f" = {title} = \n", ""]
        for _ in range(rng.randint(LINES_OF_AN_ARTICLE // 4, LINES_OF_AN_ARTICLE)):
            chosen = rng.choices(words, cum_weights=cumulative, k=rng.randint(20, 160))
            article.append(f" {' '.join(chosen)} . \n")
            if rng.random() < 0.2:
                article += ["", f" = = {chosen[0].capitalize()} = = \n", ""]
        written += sum(map(len, article))
        yield article


def write_parquet(path: Path, articles: Iterator[list[str]]) -> None:
    """Writes lines as rows, in groups, so that memory stays small."""
    path.parent.mkdir(parents=True, exist_ok=True)
    schema = pyarrow.schema([("text", pyarrow.string())])
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        rows: list[str] = []
        for article in articles:
            rows += article
            if len(rows) >= ROWS_OF_A_GROUP:
                writer.write_table(pyarrow.table({"text": rows}, schema=schema))
                rows = []
        writer.write_table(pyarrow.table({"text": rows}, schema=schema))


if __name__ == "__main__":
    main()
