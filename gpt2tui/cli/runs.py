"""The commands of `gpt2tui runs`."""

from gpt2tui.cli.completion import run_names
from gpt2tui.cli.parser import Parser, command_in, decimal

RUN = "a run: its folder, its name or the unique beginning of it, or latest"
CONTROLS = {
    "pause": "have the process that trains a run wait after its step",
    "continue": "end the pause of a run",
    "stop": "have a run finish its step, save a checkpoint and end",
    "checkpoint": "have a run save a checkpoint after its step",
    "evaluate": "have a run measure its validation loss after its step",
}
CHECKPOINT = "RUN@STEP, RUN@best, RUN@latest, @NAME, a run (its best checkpoint), or a checkpoint's folder"
FILTERS = """\
KEY in --filter, --sort and --columns is a column (run, state, step, val_loss, best_val_loss, train_loss,
bits_per_byte, parameters, tokens_seen, seconds, started, bytes, preset) or a setting (optimizer.lr, or lr).

examples:
  gpt2tui runs list --sort best_val_loss --columns run,best_val_loss,lr,batch_size
  gpt2tui runs list --filter "val_loss<3.5 optimizer.name=muon state:finished"
"""


def add_runs(top: Parser) -> None:
    """The command `runs` with its actions."""
    parser = top.add_command(
        "runs", help="list, show, compare, tag, prune, rename and delete runs, and control those that train"
    )
    listing = parser.add_command("list", help="list every run with its state and best validation loss", epilog=FILTERS)
    listing.set_defaults(command=command_in("runs", "list_runs"))
    listing.add_argument(
        "--sort", metavar="KEY", help="sort by a column or setting, the smallest first; -KEY: the largest first"
    )
    listing.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="CONDITIONS",
        help="list only runs for which all of these hold: KEY<N, <=, >, >=, KEY=VALUE, KEY!=VALUE, KEY:PART "
        "(contains), or a part of the name; repeatable",
    )
    listing.add_argument("--columns", metavar="KEY,...", help="the columns of the table")
    showing = parser.add_command("show", help="show one run's numbers, its checkpoints and their folders")
    showing.set_defaults(command=command_in("runs", "show_run"))
    showing.add_argument(
        "--worst",
        action="store_true",
        help="show instead the validation windows with the highest loss at the last evaluation, as a heat map",
    )
    showing.add_argument(
        "--passage", type=int, metavar="N", help="with --worst: follow the passage N over all checkpoints of the run"
    )
    comparing = parser.add_command("compare", help="compare runs: their numbers, and the settings that differ")
    comparing.set_defaults(command=command_in("runs", "compare_runs"))
    renaming = parser.add_command("rename", help="give a run's folder another name")
    renaming.set_defaults(command=command_in("runs", "rename_run"))
    deleting = parser.add_command("delete", help="delete runs, after a question")
    deleting.set_defaults(command=command_in("runs", "delete_runs"))
    controls = [parser.add_command(name, help=text, description=_sentence(text)) for name, text in CONTROLS.items()]
    for control in controls:
        control.set_defaults(command=command_in("runs", "control_run"), request=control.prog.split()[-1])
        control.add_argument(
            "--timeout",
            type=decimal,
            default=60.0,
            metavar="S",
            help="how many seconds to wait for the answer (default: 60); a step, an evaluation or a sample is finished "
            "first",
        )
    tagging = parser.add_command(
        "tag", help="give a checkpoint a name, which then stands for it as @NAME and keeps it from being deleted"
    )
    tagging.set_defaults(command=command_in("run_versions", "tag"))
    untagging = parser.add_command("untag", help="take such a name away")
    untagging.set_defaults(command=command_in("run_versions", "untag"))
    tags = parser.add_command("tags", help="list the names of checkpoints")
    tags.set_defaults(command=command_in("run_versions", "list_tags"))
    descending = parser.add_command("lineage", help="show what a checkpoint was resumed or started from")
    descending.set_defaults(command=command_in("run_versions", "show_lineage"))
    noting = parser.add_command("note", help="print or replace a run's note")
    noting.set_defaults(command=command_in("run_versions", "note"))
    pruning = parser.add_command(
        "prune", help="delete checkpoints except the newest, the best and those with a tag, after a question"
    )
    pruning.set_defaults(command=command_in("run_versions", "prune"))
    pruning.add_argument("--keep", type=int, default=1, metavar="N", help="keep the newest N (default: 1)")
    reproducing = parser.add_command(
        "reproduce",
        help="train a run's first steps again from its own folder, and compare the losses bit for bit",
        description="Trains the first steps of a run again, in a temporary folder, with the preset, seed and data that "
        "the run's folder records. Exit code 0: all losses are equal; otherwise the first difference is named: 2 a "
        "setting, 3 the data, 4 the weights or nothing that is recorded, 6 a version, the thread count or the machine.",
    )
    reproducing.set_defaults(command=command_in("reproduce", "reproduce"))
    reproducing.add_argument("--steps", type=int, default=20, metavar="N", help="how many steps (default: 20)")
    exporting = parser.add_command("export", help="print a run's numbers, or draw the curves of runs")
    exporting.set_defaults(command=command_in("run_versions", "export_numbers"))
    exporting.add_argument("--csv", action="store_true", help="a row for each step, with a header")
    exporting.add_argument("--to", metavar="FILE", help="write the CSV into a new file instead of stdout")
    exporting.add_argument(
        "--png", metavar="FILE", help="draw the losses of one or more runs into a new file (needs the extra figures)"
    )
    exporting.add_argument("--svg", metavar="FILE", help="the same as vectors")
    exporting.add_argument(
        "--metric",
        metavar="NAME",
        help="draw this metric of the evaluations instead of the losses, as accuracy or bleu ([evaluation] metrics)",
    )
    for action in (tagging, descending):
        named = action.add_argument("checkpoint", metavar="RUN@STEP", help=CHECKPOINT)
        named.completer = run_names  # type: ignore[attr-defined]
    for action in (tagging, untagging):
        action.add_argument("name", metavar="NAME", help="the name, with or without @")
    for action in (showing, renaming, noting, reproducing, *controls):
        action.add_argument("run", metavar="RUN", help=RUN).completer = run_names  # type: ignore[attr-defined]
    renaming.add_argument("name", metavar="NAME", help="the new name of the folder")
    noting.add_argument("text", metavar="TEXT", nargs="?", help="the new note; an empty text removes it")
    for action in (comparing, deleting, pruning, exporting):
        several = action.add_argument("runs", metavar="RUN", nargs="+", help=RUN)
        several.completer = run_names  # type: ignore[attr-defined]
    for action in (deleting, pruning):
        action.add_argument("--yes", action="store_true", help="do not ask")
    for action in (listing, showing, comparing, tags, descending, reproducing):
        action.add_argument("--json", action="store_true", help="print one JSON document")


def _sentence(text: str) -> str:
    return (
        f"{text[0].upper()}{text[1:]}. The run may be trained in another terminal, in the background or on another "
        "machine that sees its folder; the answer is printed. Exit code 2: no process trains the run; 75: no answer."
    )
