"""`gpt2tui runs`: tags of checkpoints, where they come from, notes, pruning, and the numbers of a run as CSV."""

import argparse
import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gpt2tui.commands.figure import write_figure
from gpt2tui.commands.tables import Column, plain, print_json, print_table
from gpt2tui.errors import CheckpointError, ResourceError, UsageError
from gpt2tui.run import aliases, checkpoint, events, notes
from gpt2tui.run import folder as runs
from gpt2tui.run.checkpoint import Checkpoint
from gpt2tui.run.events_file import read_events
from gpt2tui.run.folder import Run
from gpt2tui.run.lineage import Ancestor, lineage
from gpt2tui.system.numbers import byte_size
from gpt2tui.system.styled_output import StyledConsole
from gpt2tui.system.terminal_text import print_on_stderr, printable

STEP_COLUMNS = ("train_loss", "learning_rate", "grad_norm", "tokens_seen", "tokens_per_second", "step_seconds")
EVALUATION_COLUMNS = ("val_loss", "perplexity", "bits_per_byte")


def _named_checkpoint(reference: str) -> tuple[Run, Checkpoint]:
    """The checkpoint that RUN@STEP, a tag or a folder means; of a run its best one."""
    run, saved = runs.find_with_checkpoint(reference)
    if saved is None:
        is_newest = reference.endswith(f"@{runs.LATEST}")
        saved = checkpoint.newest(run.checkpoints) if is_newest else checkpoint.best(run.checkpoints)
    return run, saved


def tag(options: argparse.Namespace) -> int:
    """Gives a checkpoint a name, which then stands for it everywhere as @NAME."""
    name = options.name.removeprefix("@")
    run, saved = _named_checkpoint(options.checkpoint)
    before = aliases.set_alias(name, run.folder, saved.step)
    if not checkpoint.is_unchanged(saved):  # a training has deleted it meanwhile
        aliases.remove_alias(name)
        raise CheckpointError(f"{saved.folder} has just been deleted by the training; tag a newer checkpoint")
    moved = "" if before is None else f"; before it was {before.run.name}@{before.step}"
    print_on_stderr(f"@{name} is now {run.name}@{saved.step}{moved}")
    return 0


def untag(options: argparse.Namespace) -> int:
    """Takes a name away from a checkpoint, which stays."""
    alias = aliases.remove_alias(options.name.removeprefix("@"))
    print_on_stderr(f"@{alias.name} was {alias.run.name}@{alias.step}; the checkpoint is no longer kept by it")
    return 0


def list_tags(options: argparse.Namespace) -> int:
    """Prints every tag with its checkpoint, and whether that is there."""
    rows = []
    for alias in aliases.read_aliases():
        saved = _saved_at(Run(alias.run), alias.step)
        rows.append(
            {
                "name": alias.name,
                "run": alias.run.name,
                "step": alias.step,
                "path": str(saved.folder) if saved else None,
                "val_loss": saved.val_loss if saved else None,
                "exists": saved is not None,
            }
        )
    if options.json:
        print_json(rows)
    elif not rows:
        print_on_stderr("no checkpoint has a tag; gpt2tui runs tag RUN@STEP NAME gives one")
    else:
        columns = [Column("tag"), Column("checkpoint"), Column("val loss", right=True), Column("")]
        cells = [
            (
                f"@{row['name']}",
                f"{row['run']}@{row['step']}",
                "" if row["val_loss"] is None else f"{row['val_loss']:.4f}",
                "" if row["exists"] else "is no longer there",
            )
            for row in rows
        ]
        print_table(columns, cells)
    return 0


def _saved_at(run: Run, step: int) -> Checkpoint | None:
    return next((saved for saved in checkpoint.saved_in(run.checkpoints) if saved.step == step), None)


def show_lineage(options: argparse.Namespace) -> int:
    """Prints a checkpoint and, each below the one it led to, the checkpoints that it comes from."""
    run, saved = _named_checkpoint(options.checkpoint)
    line = lineage(run, saved)
    if options.json:
        print_json([_ancestor_as_dict(each) for each in line])
        return 0
    console = StyledConsole(highlight=False)
    for depth, each in enumerate(line):
        console.print(plain(f"{_branch(depth)}{_ancestor_line(each)}"), soft_wrap=True)
    beginning = line[-1].began_with or "unknown: what it began with is not recorded, or is no longer there"
    console.print(plain(f"{_branch(len(line))}{beginning}"), soft_wrap=True)
    return 0


def _branch(depth: int) -> str:
    return "" if depth == 0 else f"{'   ' * (depth - 1)}└─ from "


def _ancestor_line(each: Ancestor) -> str:
    name = each.run.name if each.run else f"unknown run {printable(each.run_id, 32)}"
    if each.saved is None:
        return f"{name}@{each.step}  the checkpoint is no longer there"
    tags = (
        "".join(f"  @{alias.name}" for alias in aliases.aliases_of(each.run.folder) if alias.step == each.step)
        if each.run
        else ""
    )
    loss = "unknown" if each.saved.val_loss is None else f"{each.saved.val_loss:.4f}"
    data = (each.saved.data_fingerprint or "unknown")[:12]
    return f"{name}@{each.step}{tags}  val loss {loss}, data {data}, preset {_preset_hash(each.saved)[:12]}"


def _preset_hash(saved: Checkpoint) -> str:
    return saved.files["preset.toml"].sha256


def _ancestor_as_dict(each: Ancestor) -> dict[str, Any]:
    saved = each.saved
    return {
        "run": each.run.name if each.run else None,
        "run_id": each.run_id,
        "step": each.step,
        "path": str(saved.folder) if saved else None,
        "data_fingerprint": saved.data_fingerprint if saved else None,
        "preset_sha256": _preset_hash(saved) if saved else None,
        "metrics": dict(saved.metrics) if saved else None,
        "began_with": each.began_with,
    }


def note(options: argparse.Namespace) -> int:
    """Prints the note of a run, or replaces it; an empty text removes it."""
    run = runs.find(options.run)
    if options.text is None:
        print(plain(notes.read_note(run)))
    else:
        notes.write_note(run, options.text)
        print_on_stderr(
            f"the note of {run.name} is {'kept in' if options.text.strip() else 'removed from'} {run.folder}"
        )
    return 0


def prune(options: argparse.Namespace) -> int:
    """Deletes the checkpoints of runs except the newest, the best and tagged ones, after a question.

    Raises UsageError when nobody can be asked, RunLockedError while a run is trained.
    """
    if options.keep < 1:
        raise UsageError("--keep must be at least 1: the newest checkpoint is what a run is resumed from")
    found = list(dict.fromkeys(runs.find(name) for name in options.runs))
    doomed = {run: checkpoint.prunable(run.checkpoints, run_id=_run_id(run), keep=options.keep) for run in found}
    every = [saved for each in doomed.values() for saved in each]
    if not every:
        print_on_stderr("there is nothing to delete: only the newest, the best and tagged checkpoints are there")
        return 0
    total = byte_size(sum(saved.bytes for saved in every))
    for saved in every:
        print_on_stderr(f"{saved.folder}  {byte_size(saved.bytes)}")
    if not options.yes:
        if not sys.stdin.isatty():
            raise UsageError("stdin is no terminal that could be asked; add --yes to delete without a question")
        print_on_stderr(
            f"Delete {'this checkpoint' if len(every) == 1 else f'these {len(every)} checkpoints'} for good? [y/N]"
        )
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            print_on_stderr("nothing was deleted")
            return 0
    for run in doomed:
        with runs.locked(run):
            checkpoint.prune(run.checkpoints, run_id=_run_id(run), keep=options.keep)
    left = [saved for saved in every if saved.folder.exists()]
    if left:
        raise ResourceError(f"{left[0].folder} could not be deleted")
    print_on_stderr(f"deleted {len(every)} checkpoints, {total}")
    return 0


def _run_id(run: Run) -> str:
    return str(run.info().get("run_id"))


def export_numbers(options: argparse.Namespace) -> int:
    """Draws the curves of runs, or prints the numbers of one as CSV.

    The CSV has a row for each step that has any; empty where a number is not known.
    """
    for name in options.runs:
        if options.csv and name.lower().endswith(".csv"):
            raise UsageError(f"--csv prints the numbers; to write them into a file: --csv --to {printable(name)}")
    found = list(dict.fromkeys(runs.find(name) for name in options.runs))
    kinds = [kind for kind in ("csv", "png", "svg") if getattr(options, kind)]
    if len(kinds) != 1:
        raise UsageError("name one form: --csv for the numbers, or --png FILE or --svg FILE for the curves")
    if options.png or options.svg:
        if options.to is not None:
            raise UsageError(f"--to goes with --csv; --{kinds[0]} has its own file")
        path = Path(options.png or options.svg)
        write_figure(found, path, kinds[0], options.metric)
        print_on_stderr(f"wrote {path}")
        return 0
    if len(found) > 1:
        raise UsageError("--csv prints one run; --png and --svg draw several in one picture")
    if options.metric is not None:
        raise UsageError("--metric goes with --png and --svg; the CSV has all metrics")
    rows = list(_rows(found[0]))
    if options.to is None:
        _write(rows, sys.stdout)
        return 0
    path = Path(options.to)
    try:
        with path.open("x", encoding="utf-8", newline="") as file:
            _write(rows, file)
    except FileExistsError:
        raise UsageError(f"{path} exists already; choose another name") from None
    except OSError as error:
        raise ResourceError(f"{path} cannot be written: {error.strerror or error}") from error
    print_on_stderr(f"wrote {path}")
    return 0


def _write(rows: list[dict[str, Any]], file: Any) -> None:
    measured = [name for name in events.METRICS if any(name in row for row in rows)]
    names = ("step", *STEP_COLUMNS, *EVALUATION_COLUMNS, *measured, "whole_val_loss")
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _rows(run: Run) -> Iterator[dict[str, Any]]:
    """The steps in order with the evaluation at each; after a resume from an earlier step the new numbers count.

    `val_loss` is over the fixed sample, `whole_val_loss` over all of the validation text.
    """
    found: dict[int, dict[str, Any]] = {}
    try:
        for event in read_events(run.events_file):
            if isinstance(event, events.RunStarted):
                found = {step: row for step, row in found.items() if step <= event.step}
            elif isinstance(event, events.Step):
                _row(found, event.step).update({name: getattr(event, name) for name in STEP_COLUMNS})
            elif isinstance(event, events.Evaluated) and event.whole:
                _row(found, event.step)["whole_val_loss"] = event.val_loss
            elif isinstance(event, events.Evaluated):
                _row(found, event.step).update(
                    {name: getattr(event, name) for name in EVALUATION_COLUMNS} | event.metrics
                )
    except OSError as error:
        raise UsageError(f"{run.events_file} cannot be read: {error.strerror or error}") from error
    yield from (found[step] for step in sorted(found))


def _row(found: dict[int, dict[str, Any]], step: int) -> dict[str, Any]:
    return found.setdefault(step, {"step": step})
