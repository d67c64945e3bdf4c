"""`gpt2tui runs`: list, show, compare, rename, delete, and control runs that train."""

import argparse
import contextlib
import sys
import time
from datetime import datetime
from typing import Any

from gpt2tui.commands.tables import Column, plain, print_json, print_table
from gpt2tui.commands.worst import show_worst
from gpt2tui.errors import Gpt2TuiError, ResourceError, RunLockedError, UsageError
from gpt2tui.preset.files import load_frozen
from gpt2tui.run import aliases, checkpoint, notes, query, requests, tidying
from gpt2tui.run import folder as runs
from gpt2tui.run.events import METRICS, STOP_RULES, SettingsChanged, change_line
from gpt2tui.run.events_file import read_events
from gpt2tui.run.requests import NotTakenError
from gpt2tui.run.summary import RunSummary, summarize
from gpt2tui.run.summary_cache import SummaryCache
from gpt2tui.system.files import runs_folder
from gpt2tui.system.numbers import byte_size, compact, duration, steps_of
from gpt2tui.system.styled_output import StyledConsole
from gpt2tui.system.terminal_text import print_on_stderr

NUMBERS = ("step", "best val loss", "bits/byte", "ratio to xz", "parameters", "tokens", "time", "disk")


def list_runs(options: argparse.Namespace) -> int:
    """Prints a row for each run in the runs folder, oldest first, or as --sort, --filter and --columns want it."""
    filters = [condition for text in options.filter for condition in query.conditions(text)]
    keys = [query.full_key(name.strip()) for name in options.columns.split(",")] if options.columns else []
    if options.sort:
        query.full_key(options.sort.removeprefix("-"))
    cache = SummaryCache()
    every = [query.QueriedRun(run, cache.summarized(run).summary) for run in runs.all_runs()]
    cache.save()
    found = query.chosen(every, filters)
    if options.sort:
        found = query.in_order(found, options.sort)
    if options.json:
        print_json([{key: run.value(key) for key in keys} if keys else run.summary.as_dict() for run in found])
    elif not found:
        where = runs_folder().absolute()
        what = f"none of the {len(every)} runs" if every else "there are no runs"
        what += f" in {where}" + (" is like that" if every else "; gpt2tui train small trains one")
        print_on_stderr(what)
    elif keys:
        names = ["run" if key == "name" else key for key in keys]
        cells = [[run.value(key) for key in keys] for run in found]
        right = [any(query.is_number(row[at]) for row in cells) for at in range(len(keys))]
        columns = [Column(name, right=is_right) for name, is_right in zip(names, right, strict=True)]
        print_table(columns, [[_cell(key, value) for key, value in zip(keys, row, strict=True)] for row in cells])
    else:
        columns = [Column("run"), Column("state"), *(Column(header, right=True) for header in NUMBERS)]
        print_table(columns, [(s.name, _state(s), *_numbers(s)) for s in (run.summary for run in found)])
    return 0


def _cell(key: str, value: Any) -> str:
    """A value of a column as the default table shows it."""
    if value is None:
        return ""
    match key:
        case "started" | "last_event":
            return f"{datetime.fromtimestamp(value):%Y-%m-%d %H:%M:%S}"
        case "seconds":
            return duration(value)
        case "bytes":
            return byte_size(value)
        case "train_loss" | "val_loss" | "best_val_loss":
            return f"{value:.4f}"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}" if isinstance(value, float) else str(value)


def _state(s: RunSummary) -> str:
    """The state; for a run of another machine with the age of its last event."""
    if s.reason in STOP_RULES:
        return f"{s.state} ({s.reason})"
    if s.state != "unknown" or s.last_event is None:
        return s.state
    return f"on another machine, last event {duration(max(0.0, time.time() - s.last_event))} ago"


COMPARED = ("state", "step", "best_val_loss", "bits_per_byte", "parameters", "tokens_seen", "seconds")


def compare_runs(options: argparse.Namespace) -> int:
    """Prints a column for each run: its numbers, and every setting whose value is not the same in all."""
    found = [query.QueriedRun.read(run) for run in dict.fromkeys(runs.find(name) for name in options.runs)]
    if len(found) < 2:
        raise UsageError("a comparison needs two runs or more")
    values = {key: [run.settings.get(key) for run in found] for key in found[0].settings or found[1].settings}
    different = {key: row for key, row in values.items() if any(value != row[0] for value in row)}
    if options.json:
        print_json({"runs": [run.summary.as_dict() for run in found], "differences": different})
        return 0
    columns = [Column(""), *(Column(run.summary.name, folds=True, right=True) for run in found)]
    measured = [name for name in METRICS if any(run.value(name) is not None for run in found)]
    numbers = [(key, *(_cell(key, run.value(key)) for run in found)) for key in (*COMPARED, *measured)]
    print_table(columns, [*numbers, *((key, *(_cell(key, value) for value in row)) for key, row in different.items())])
    return 0


def rename_run(options: argparse.Namespace) -> int:
    """Gives a run's folder another name."""
    run = runs.find(options.run)
    renamed = tidying.rename_run(run, options.name)
    print_on_stderr(f"{run.name} is now {renamed.folder}")
    return 0


def delete_runs(options: argparse.Namespace) -> int:
    """Deletes runs, after a question. Raises UsageError when nobody can be asked."""
    found = list(dict.fromkeys(runs.find(reference) for reference in options.runs))
    for run in found:
        if runs.is_locked(run):
            raise RunLockedError(f"{run.name} is being trained; stop it first: gpt2tui runs stop {run.name}")
    if not options.yes:
        if not sys.stdin.isatty():
            raise UsageError("stdin is no terminal that could be asked; add --yes to delete without a question")
        for run in found:
            s = summarize(run)
            print_on_stderr(f"{run.folder}  {byte_size(s.bytes)}, {s.checkpoints} checkpoints, {_state(s)}")
        print_on_stderr(f"Delete {'this run' if len(found) == 1 else f'these {len(found)} runs'} for good? [y/N]")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            print_on_stderr("nothing was deleted")
            return 0
    for run in found:
        tidying.delete_run(run)
        print_on_stderr(f"deleted {run.folder}")
    return 0


def control_run(options: argparse.Namespace) -> int:
    """Asks the process that trains a run for a pause, an evaluation..., and prints its answer."""
    run = runs.find(options.run)
    try:
        print(requests.ask(run, options.request, options.timeout))
    except (NotTakenError, ResourceError) as error:
        if options.request != "stop":
            raise
        pid = tidying.stop_run(run)
        print_on_stderr(f"{error}\nSIGTERM was sent to the process {pid} instead: it saves a checkpoint and exits")
    return 0


def show_run(options: argparse.Namespace) -> int:
    """Prints one run: its numbers, its checkpoints and what is wrong with damaged ones; or its worst passages."""
    if options.worst:
        return show_worst(options)
    if options.passage is not None:
        raise UsageError("--passage goes with --worst")
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
            {
                **summary.as_dict(),
                "info": info,
                "settings": _settings(run),
                "changes": changes,
                "note": notes.read_note(run) or None,
                "checkpoints": checkpoints,
                "damaged": problems,
            }
        )
        return 0
    details = _details(summary, info)
    if text := notes.read_note(run):
        details.append(("note", text))
    print_table([Column(""), Column("", folds=True)], details, show_header=False)
    console = StyledConsole(highlight=False)
    for change in changes:
        console.print(plain(f"  changed at step {change['step']:,}: {change_line(change)}"), soft_wrap=True)
    for c in saved:
        loss = "" if c.val_loss is None else f"  val loss {c.val_loss:.4f}"
        tags = "".join(f"  @{alias.name}" for alias in aliases.aliases_of(run.folder) if alias.step == c.step)
        console.print(plain(f"  {c.folder}  {byte_size(c.bytes)}{loss}{tags}"), soft_wrap=True)
    for problem in problems:
        console.print(plain(f"  {problem}"), soft_wrap=True)
    return 0


def _settings(run: runs.Run) -> dict[str, Any] | None:
    """The run's preset, table by table; None where it cannot be read."""
    with contextlib.suppress(Gpt2TuiError, OSError, ValueError):
        return load_frozen(run.preset_file).model_dump()
    return None


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
        ("state", _state(s) if s.message is None else f"{_state(s)}: {s.message}"),
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
