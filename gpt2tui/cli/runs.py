"""The commands of `gpt2tui runs`."""

from gpt2tui.cli.completion import run_names
from gpt2tui.cli.parser import Parser, command_in

RUN = "a run: its folder, its name or the unique beginning of it, or latest"
FILTERS = """\
KEY in --filter, --sort and --columns is a column (run, state, step, val_loss, best_val_loss, train_loss,
bits_per_byte, parameters, tokens_seen, seconds, started, bytes, preset) or a setting (optimizer.lr, or lr).

examples:
  gpt2tui runs list --sort best_val_loss --columns run,best_val_loss,lr,batch_size
  gpt2tui runs list --filter "val_loss<3.5 optimizer.name=muon state:finished"
"""


def add_runs(top: Parser) -> None:
    """The command `runs` with its actions."""
    parser = top.add_command("runs", help="list, show, compare, rename, delete and stop runs")
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
    comparing = parser.add_command("compare", help="compare runs: their numbers, and the settings that differ")
    comparing.set_defaults(command=command_in("runs", "compare_runs"))
    renaming = parser.add_command("rename", help="give a run's folder another name")
    renaming.set_defaults(command=command_in("runs", "rename_run"))
    deleting = parser.add_command("delete", help="delete runs, after a question")
    deleting.set_defaults(command=command_in("runs", "delete_runs"))
    stopping = parser.add_command(
        "stop",
        help="stop a run that another process on this machine trains; it saves a checkpoint",
        description="Sends SIGTERM to the process that trains the run: it ends its step, saves a checkpoint and exits.",
    )
    stopping.set_defaults(command=command_in("runs", "stop_run"))
    for action in (showing, renaming, stopping):
        action.add_argument("run", metavar="RUN", help=RUN).completer = run_names  # type: ignore[attr-defined]
    renaming.add_argument("name", metavar="NAME", help="the new name of the folder")
    for action in (comparing, deleting):
        several = action.add_argument("runs", metavar="RUN", nargs="+", help=RUN)
        several.completer = run_names  # type: ignore[attr-defined]
    deleting.add_argument("--yes", action="store_true", help="do not ask")
    for action in (listing, showing, comparing):
        action.add_argument("--json", action="store_true", help="print one JSON document")
