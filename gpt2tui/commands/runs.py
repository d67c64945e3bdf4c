"""`gpt2tui runs`: list and show."""

import argparse
import contextlib
from datetime import datetime
from typing import Any

from gpt2tui.commands.tables import Column, plain, print_json, print_table
from gpt2tui.run import checkpoint
from gpt2tui.run import folder as runs
from gpt2tui.run.events import SettingsChanged, change_line
from gpt2tui.run.events_file import read_events
from gpt2tui.run.summary import RunSummary, summarize
from gpt2tui.system.numbers import byte_size, compact, duration, steps_of
from gpt2tui.system.styled_output import StyledConsole


def list_runs(options: argparse.Namespace) -> int:
    """Prints a row for each run in the runs folder, oldest first."""
    summaries = [summarize(run) for run in runs.all_runs()]
    if options.json:
        print_json([summary.as_dict() for summary in summaries])
        return 0
    numbers = ("step", "best val loss", "bits/byte", "ratio to xz", "parameters", "tokens", "time", "disk")
    columns = [Column("run"), Column("state"), *(Column(header, right=True) for header in numbers)]
    print_table(columns, [(s.name, s.state, *_numbers(s)) for s in summaries])
    return 0


def show_run(options: argparse.Namespace) -> int:
    """Prints one run: its numbers, its checkpoints and what is wrong with damaged ones."""
    run = runs.find(options.run)
    summary, info = summarize(run), run.info()
    saved, problems = checkpoint.saved_in(run.checkpoints), checkpoint.problems_in(run.checkpoints)
    changes = _changes(run)
    if options.json:
        checkpoints = [
            {"step": c.step, "path": str(c.folder), "val_loss": c.val_loss, "bytes": c.bytes, "metrics": c.metrics}
            for c in saved
        ]
        print_json(
            {**summary.as_dict(), "info": info, "changes": changes, "checkpoints": checkpoints, "damaged": problems}
        )
        return 0
    print_table([Column(""), Column("", folds=True)], _details(summary, info), show_header=False)
    console = StyledConsole(highlight=False)
    for change in changes:
        console.print(plain(f"  changed at step {change['step']:,}: {change_line(change)}"), soft_wrap=True)
    for c in saved:
        loss = "" if c.val_loss is None else f"  val loss {c.val_loss:.4f}"
        console.print(plain(f"  {c.folder}  {byte_size(c.bytes)}{loss}"), soft_wrap=True)
    for problem in problems:
        console.print(plain(f"  {problem}"), soft_wrap=True)
    return 0


def _changes(run: runs.Run) -> list[dict[str, Any]]:
    """The settings that resumes have changed, each with its step, in the order of the run's history."""
    with contextlib.suppress(OSError):
        changed = [event for event in read_events(run.events_file) if isinstance(event, SettingsChanged)]
        return [{"step": event.step, **change} for event in changed for change in event.changes]
    return []


def _numbers(s: RunSummary) -> list[str]:
    """The columns of the list after name and state; empty where a number is not known."""
    ratio = s.bits_per_byte / s.xz_bits_per_byte if s.bits_per_byte is not None and s.xz_bits_per_byte else None
    return [
        steps_of(s.step, s.num_iterations),
        "" if s.best_val_loss is None else f"{s.best_val_loss:.4f}",
        "" if s.bits_per_byte is None else f"{s.bits_per_byte:.3f}",
        "" if ratio is None else f"{ratio:.2f}",
        "" if s.parameters is None else compact(s.parameters),
        "" if s.tokens_seen is None else compact(s.tokens_seen),
        "" if s.seconds is None else duration(s.seconds),
        byte_size(s.bytes),
    ]


def _details(s: RunSummary, info: dict[str, object]) -> list[tuple[str, str]]:
    """The labels and values of what is known about a run."""
    step, best, bits, _, parameters, tokens, seconds, size = _numbers(s)
    started = "" if s.started is None else f"{datetime.fromtimestamp(s.started):%Y-%m-%d %H:%M:%S}"
    sessions = info.get("sessions")
    session = sessions[-1] if isinstance(sessions, list) and sessions and isinstance(sessions[-1], dict) else info
    details = [
        ("run", s.name),
        ("state", s.state if s.message is None else f"{s.state}: {s.message}"),
        ("preset", s.preset or ""),
        ("started", started),
        ("time", seconds),
        ("step", step),
        ("best val loss", best),
        ("bits/byte", "  ".join(filter(None, (bits, s.xz_comparison)))),
        ("parameters", parameters),
        ("tokens seen", tokens),
        ("device", f"{session.get('device', '')}, {session.get('precision', '')}"),
        ("disk", size),
        ("folder", s.folder),
    ]
    return [(label, value) for label, value in details if value]
