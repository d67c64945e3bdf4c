"""`gpt2tui bench`: the speed of training, generation and tokenization here, also of other implementations."""

import argparse
import contextlib
import importlib.util
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt2tui.benchmark.comparison import compare, read_saved
from gpt2tui.errors import ResourceError, UsageError
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.files import LoadedPreset
from gpt2tui.system.terminal_text import print_on_stderr

DEFAULT_PRESET = "small"
PARTS = ("train", "generate", "tokenize", "data")


def bench(options: argparse.Namespace) -> int:
    """Measures each preset and prints the results. Returns 0, or 6 when nothing could be measured."""
    parts = _parts(options)
    if not (math.isfinite(options.seconds) and options.seconds > 0):
        raise UsageError("--seconds must be a number above 0")
    if "transformers" in options.against and importlib.util.find_spec("transformers") is None:
        raise UsageError("--against transformers needs the package transformers: pip install transformers")
    loaded = _presets(options)
    saved = read_saved(Path(options.compare)) if options.compare else None

    with _exit_on_interrupt():
        from gpt2tui.benchmark import machine
        from gpt2tui.benchmark.measure import measure
        from gpt2tui.benchmark.ranks import measure_ranks
        from gpt2tui.benchmark.subject import resolve
        from gpt2tui.commands import bench_report as report
        from gpt2tui.commands.tables import print_json

    documents: list[dict[str, Any]] = []
    for subject in sorted(map(resolve, loaded), key=lambda each: each.facts["parameters"]):
        described = machine.describe(subject.device)
        document: dict[str, Any] = {**subject.facts, **dict.fromkeys((*PARTS, "ranks"))}
        documents.append(document)
        if not options.json:
            if len(documents) == 1:
                report.print_machine(described)
            report.print_subject(document)
        others = machine.OtherPrograms()
        if options.ranks:
            document["ranks"] = measure_ranks(subject, options.ranks, options.seconds, print_on_stderr)
            if not options.json:
                report.print_part("ranks", document["ranks"])
        for part, document[part] in measure(subject, parts, options.against, options.seconds):
            if not options.json:
                report.print_part(part, document[part])
        document["other_programs_cores"] = others.cores()
        document["note"] = machine.busy_note(document["other_programs_cores"])
        if document["note"] and not options.json:
            print(f"\n  note: {document['note']}", flush=True)
    result = {"machine": described, "seconds": options.seconds, "presets": documents}
    if saved is not None:
        changes, notes = compare(saved, result)
        if not options.json:
            report.print_changes(changes, notes)
        result["compared"] = {"changes": [change.as_json() for change in changes], "notes": notes}
    if options.json:
        print_json(result)
    return 0 if any(_has_results(document) for document in documents) else ResourceError.exit_code


@contextlib.contextmanager
def _exit_on_interrupt() -> Iterator[None]:
    """Exits at once on SIGINT. While large packages are imported: some swallow KeyboardInterrupt or break on it."""

    def exit_at_once(number: int, frame: object) -> None:
        os.write(2, b"gpt2tui: interrupted\n")
        os._exit(130)

    before = signal.signal(signal.SIGINT, exit_at_once)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _has_results(document: dict[str, Any]) -> bool:
    """Whether any part was measured for gpt2tui itself, the first row of each table."""
    results = [document[part] for part in (*PARTS, "ranks") if document[part] and not document[part]["skipped"]]
    return any("rows" not in result or result["rows"][0]["count"] for result in results)


def _parts(options: argparse.Namespace) -> list[str]:
    """The parts to measure, in the order of the report; none of them with --ranks. Raises UsageError for others."""
    if options.ranks:
        if options.parts or options.against or options.all:
            raise UsageError(
                "--ranks measures the training steps of one preset; leave out --parts, --against and --all"
            )
        return []
    requested = list(PARTS)
    if options.parts is not None:
        requested = [part.strip() for part in options.parts.split(",") if part.strip()]
    unknown = [part for part in requested if part not in PARTS]
    if unknown or not requested:
        problem = f"{', '.join(map(repr, unknown))} is not a part" if unknown else "no part is named"
        raise UsageError(f"--parts: {problem}; choose from {', '.join(PARTS)}, separated by commas")
    return [part for part in PARTS if part in requested]


def _presets(options: argparse.Namespace) -> list[LoadedPreset]:
    """The presets to measure. Raises PresetError, or UsageError for --all with --preset."""
    if not options.all:
        return [preset_files.load(options.preset or [DEFAULT_PRESET], options.overrides)]
    if options.preset:
        raise UsageError("--all measures every shipped preset; leave out --all or --preset")
    shipped = [source.path for source in preset_files.available() if source.shipped]
    return [preset_files.load([path], options.overrides) for path in shipped]
