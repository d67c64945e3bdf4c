"""`gpt2tui bench`: how fast this machine trains, writes and tokenizes, and how that compares with others."""

import argparse
import contextlib
import importlib.util
import math
import os
import signal
from collections.abc import Iterator
from typing import Any

from gpt2tui.errors import ResourceError, UsageError
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.files import LoadedPreset

DEFAULT_PRESET = "small"
PARTS = ("train", "generate", "tokenize", "data")


def bench(options: argparse.Namespace) -> int:
    """Measures each preset and prints what was found. Returns 0, or 6 when nothing could be measured."""
    parts = _parts(options.parts)
    if not (math.isfinite(options.seconds) and options.seconds > 0):
        raise UsageError("--seconds must be a number above 0")
    if "transformers" in options.against and importlib.util.find_spec("transformers") is None:
        raise UsageError("--against transformers needs that package: pip install transformers")
    loaded = _presets(options)

    with _interrupt_leaves_at_once():
        from gpt2tui.benchmark import machine
        from gpt2tui.benchmark.measure import measure
        from gpt2tui.benchmark.subject import resolve
        from gpt2tui.commands import bench_report as report
        from gpt2tui.commands.train import print_json

    documents: list[dict[str, Any]] = []
    for subject in sorted(map(resolve, loaded), key=lambda each: each.facts["parameters"]):
        described = machine.describe(subject.device)
        document: dict[str, Any] = {**subject.facts, **dict.fromkeys(PARTS)}
        documents.append(document)
        if not options.json:
            if len(documents) == 1:
                report.print_machine(described)
            report.print_subject(document)
        others = machine.OtherPrograms()
        for part, document[part] in measure(subject, parts, options.against, options.seconds):
            if not options.json:
                report.print_part(part, document[part])
        document["other_programs_cores"] = others.cores()
        document["note"] = machine.busy_note(document["other_programs_cores"])
        if document["note"] and not options.json:
            print(f"\n  note: {document['note']}", flush=True)
    if options.json:
        print_json({"machine": described, "seconds": options.seconds, "presets": documents})
    return 0 if any(_measured(document) for document in documents) else ResourceError.exit_code


@contextlib.contextmanager
def _interrupt_leaves_at_once() -> Iterator[None]:
    """While large packages are imported: some of them swallow a KeyboardInterrupt, or break half way in."""

    def leave(number: int, frame: object) -> None:
        os.write(2, b"gpt2tui: interrupted\n")
        os._exit(130)

    before = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _measured(document: dict[str, Any]) -> bool:
    """Whether anything of ours has numbers."""
    results = [document[part] for part in PARTS if document[part] and not document[part]["skipped"]]
    return any("rows" not in result or result["rows"][0]["count"] for result in results)


def _parts(text: str) -> list[str]:
    """The parts that are asked for, in the order of the report. Raises UsageError naming what does not exist."""
    asked = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [part for part in asked if part not in PARTS]
    if unknown or not asked:
        what = f"knows no {', '.join(map(repr, unknown))}" if unknown else "names nothing"
        raise UsageError(f"--parts {what}; choose among {', '.join(PARTS)}, with commas between them")
    return [part for part in PARTS if part in asked]


def _presets(options: argparse.Namespace) -> list[LoadedPreset]:
    """The presets to measure. Raises PresetError, or UsageError when they are named twice over."""
    if not options.all:
        return [preset_files.load(options.preset or [DEFAULT_PRESET], options.overrides)]
    if options.preset:
        raise UsageError("--all measures every shipped preset; --preset does not go with it")
    shipped = [source.path for source in preset_files.available() if source.shipped]
    return [preset_files.load([path], options.overrides) for path in shipped]
