"""The text report of a benchmark: tables in which every number has its unit; a column without values is left out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gpt2tui.benchmark.comparison import Change
from gpt2tui.commands.tables import Column, plain, print_table
from gpt2tui.estimate import approximate_duration
from gpt2tui.system.numbers import byte_size, compact, counted, exact_percent

LEGEND = {
    "nanogpt": "our network trained as nanoGPT does: all logits at once, torch's AdamW; on a CPU fp32 and not compiled",
    "transformers": "GPT2LMHeadModel with its defaults: fp32, not compiled, its own loss and generate(), torch's AdamW",
    "transformers-best": "GPT2LMHeadModel with our precision, compiled if ours is, fused AdamW",
}
TITLES = {"train": "training", "generate": "generation", "tokenize": "tokenization", "data": "data", "ranks": "ranks"}
Row = Mapping[str, Any]
Cell = tuple[str, Callable[[Row], str | None]]


def print_machine(m: Row) -> None:
    """The hardware and the versions of the packages."""
    cores = f"{m['physical_cores'] or m['logical_cores']} cores, torch threads: {m['torch_threads']}"
    memory = f"{byte_size(m['memory_bytes'])} memory"
    _print_line(f"machine    {m['cpu'] or 'unknown CPU'}, {cores}, {memory}, {m['platform']}")
    if m["gpu"]:
        _print_line(f"GPU        {m['gpu']}, {byte_size(m['gpu_memory_bytes'])}")
    _print_line("versions   " + ", ".join(f"{name} {version}" for name, version in m["versions"].items() if version))


def print_subject(facts: Row) -> None:
    """The preset: its model, step, precision and tokens."""
    model = facts["model"]
    shape = f"{counted(model['n_layer'], 'layer')}, {model['n_embd']} wide, vocabulary of {model['vocab_size']:,}"
    _print_line(f"\n{facts['preset']}: {facts['parameters']:,} parameters ({shape})")
    accumulated = f" x {facts['gradient_accumulation']}" if facts["gradient_accumulation"] > 1 else ""
    step = f"{facts['batch_size']} x {facts['sequence_length']}{accumulated} = {facts['tokens_per_step']:,} tokens"
    _print_line(f"  step       {step}, {facts['optimizer']}, on {facts['device']}")
    _print_line(f"  precision  {facts['precision']} ({facts['precision_reason']})")
    random = f"random, because {facts['source']} is streamed or not prepared on this machine"
    _print_line(f"  tokens     {random if facts['tokens'] == 'random' else facts['source'] + ', prepared'}")


def print_part(part: str, result: Row) -> None:
    """The results of one part, or why it was skipped."""
    _print_line("")
    if result["skipped"]:
        _print_line(f"  {TITLES[part]}: skipped: {result['skipped']}")
    elif part == "data":
        share = f"{_number(result['ms']['median'])} ms, {exact_percent(result['percent_of_step'] / 100)} of a step"
        _print_line(f"  data: reading a step's batch takes {share}")
    elif part == "ranks":
        _print_line(f"  training over ranks ({result['strategy']}; ms/step of the slowest rank: median, percentiles)")
        _table(result["rows"], _RANKS)
    elif part == "tokenize":
        text = f"{result['text']}, {byte_size(result['text_bytes'])}, {compact(result['tokens'])} tokens"
        _print_line(f"  tokenization with {result['tokenizer']}, vocabulary of {result['vocab_size']:,} ({text})")
        rates = (result[key] for key in ("megabytes_per_second", "megabytes_per_second_parallel"))
        single, parallel = (f"{_number(rate)} MB/s" for rate in rates)
        _print_line(
            f"    {single} in one thread, {parallel} in {result['threads']} threads, as when a corpus is prepared"
        )
    else:
        sampling = ", ".join(f"{key} {result[key]:g}" for key in ("temperature", "top_k", "top_p") if key in result)
        title = "training (ms/step: median, 10th and 90th percentile)"
        if part == "generate":
            title = (
                f"generation ({result['new_tokens']} tokens after a prompt of {result['prompt_tokens']}; {sampling})"
            )
        _print_line(f"  {title}")
        _table(result["rows"], _TRAINING if part == "train" else _GENERATION)
        limit = next((row for row in result["rows"] if row.get("limit_flops")), None)
        if limit:
            _print_line(
                f"    the limit, measured beside the steps: {_number(limit['limit_flops'] / 1e9)} GFLOP/s in "
                f"{limit['precision']} (a product of {limit['limit_size']} x {limit['limit_size']}), "
                f"{_number(limit['limit_copied_bytes'] / 1e9)} GB/s copied"
            )


def print_changes(changes: Sequence[Change], notes: Sequence[str]) -> None:
    """What got faster or slower since a saved result, and what cannot be compared."""
    _print_line("\n  compared with the saved result (faster or slower: by more than twice the noise)")
    columns = [Column("")] + [Column(header, right=True) for header in ("then", "now", "now / then", "noise")]
    rows = [
        (
            f"    {change.preset} {change.part}, {change.what}",
            _number(change.then),
            _number(change.now),
            f"{change.ratio:.3f}",
            "unknown" if change.noise is None else f"± {change.noise:.3f}",
            {"same": "", "unknown": ""}.get(change.verdict, change.verdict),
        )
        for change in changes
    ]
    if rows:
        print_table([*columns, Column("")], rows)
    for note in notes:
        _print_line(f"    {note}")


def _table(rows: Sequence[Row], cells: Sequence[Cell]) -> None:
    """Prints the measured rows without empty columns, then which candidates failed and what each of them is."""
    measured = [row for row in rows if row["count"]]
    columns = [(header, [cell(row) for row in measured]) for header, cell in cells]
    known = [(header, values) for header, values in columns if any(value is not None for value in values)]
    if known:
        row_values = zip(*([value or "" for value in values] for _, values in known), strict=True)
        print_table([Column(header, right=bool(header)) for header, _ in known], list(row_values))
    notes = {f"{_name(row)} failed: {row['failed']}": None for row in rows if row["failed"]}
    notes |= {f"{row['candidate']}: {row['note']}": None for row in rows if row.get("note")}
    notes |= {f"{row['candidate']}: {LEGEND[row['candidate']]}": None for row in rows if _name(row) in LEGEND}
    for note in notes:
        _print_line(f"    {note}")


_LEADING: list[Cell] = [
    ("", lambda row: "    " + row["candidate"]),
    ("batch", lambda row: str(row["batch_size"]) if "batch_size" in row else None),
    ("tokens/s", lambda row: _number(row["tokens_per_second"])),
    ("gpt2tui is", lambda row: None if row["speed_ratio"] is None else f"{row['speed_ratio']:.2f}x as fast"),
]
_MEMORY: list[Cell] = [
    ("GPU memory", lambda row: _size(row["memory"]["device_allocated_bytes"])),
    ("GPU reserved", lambda row: _size(row["memory"]["device_reserved_bytes"])),
    ("peak memory", lambda row: _size(row["memory"]["host_bytes"])),
    ("precision", lambda row: row["precision"]),
]
_TRAINING: list[Cell] = [
    *_LEADING,
    ("ms/step", lambda row: _number(row["ms"]["median"])),
    ("p10 ms", lambda row: _number(row["ms"]["p10"])),
    ("p90 ms", lambda row: _number(row["ms"]["p90"])),
    ("steps", lambda row: f"{row['count']:,}"),
    ("MFU", lambda row: None if row["mfu"] is None else exact_percent(row["mfu"])),
    ("of the limit", lambda row: None if row["limit_share"] is None else exact_percent(row["limit_share"])),
    *_MEMORY,
    ("optimizer", lambda row: row["optimizer"]),
    (
        "compiled in",
        lambda row: None if row["compile_seconds"] is None else approximate_duration(row["compile_seconds"]),
    ),
    ("first loss", lambda row: None if row["first_loss"] is None else f"{row['first_loss']:.4f} nats"),
]
_GENERATION: list[Cell] = [
    *_LEADING,
    ("first token ms", lambda row: _number(row["ms_to_first_token"])),
    *_MEMORY,
]


_RANKS: list[Cell] = [
    ("", lambda row: "    " + _name(row)),
    ("tokens/s", lambda row: _number(row["tokens_per_second"])),
    ("speed-up", lambda row: None if row["speedup"] is None else f"{row['speedup']:.2f}x"),
    ("ms/step", lambda row: _number(row["ms"]["median"])),
    ("p10 ms", lambda row: _number(row["ms"]["p10"])),
    ("p90 ms", lambda row: _number(row["ms"]["p90"])),
    (
        "communication",
        lambda row: None if row["communication_percent"] is None else f"{row['communication_percent']:.0f} %",
    ),
    ("steps", lambda row: f"{row['count']:,}"),
    ("threads each", lambda row: str(row["threads"])),
]


def _name(row: Row) -> str:
    """The candidate, or the number of ranks."""
    return row["candidate"] if "candidate" in row else counted(row["ranks"], "rank")


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"


def _size(count: int | None) -> str | None:
    return None if count is None else byte_size(count)


def _print_line(line: str) -> None:
    print(plain(line), flush=True)
