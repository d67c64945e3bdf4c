"""The commands of `gpt2tui runs`."""

from gpt2tui.cli.completion import run_names
from gpt2tui.cli.parser import Parser, command_in

RUN = "a run: its folder, its name or the unique beginning of it, or latest"
CONTROLS = {
    "pause": "have the process that trains a run wait after its step",
    "continue": "end the pause of a run",
    "stop": "have a run finish its step, save a checkpoint and end",
    "checkpoint": "have a run save a checkpoint after its step",
    "evaluate": "have a run measure its validation loss after its step",
}
FILTERS = """\
KEY in --filter, --sort and --columns is a column (run, state, step, val_loss, best_val_loss, train_loss,
bits_per_byte, parameters, tokens_seen, seconds, started, bytes, preset) or a setting (optimizer.lr, or lr).

examples:
  gpt2tui runs list --sort best_val_loss --columns run,best_val_loss,lr,batch_size
  gpt2tui runs list --filter "val_loss<3.5 optimizer.name=muon state:finished"
"""


def add_runs(top: Parser) -> None:
    """The command `runs` with its actions."""
    parser = top.add_command("runs", help="list, show, compare, rename and delete runs, and control those that train")
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
    controls = [parser.add_command(name, help=text, description=_sentence(text)) for name, text in CONTROLS.items()]
    for control in controls:
        control.set_defaults(command=command_in("runs", "control_run"), request=control.prog.split()[-1])
        control.add_argument(
            "--timeout",
            type=float,
            default=60.0,
            metavar="S",
            help="how many seconds to wait for the answer (default: 60); a step, an evaluation or a sample is finished "
            "first",
        )
    for action in (showing, renaming, *controls):
        action.add_argument("run", metavar="RUN", help=RUN).completer = run_names  # type: ignore[attr-defined]
    renaming.add_argument("name", metavar="NAME", help="the new name of the folder")
    for action in (comparing, deleting):
        several = action.add_argument("runs", metavar="RUN", nargs="+", help=RUN)
        several.completer = run_names  # type: ignore[attr-defined]
    deleting.add_argument("--yes", action="store_true", help="do not ask")
    for action in (listing, showing, comparing):
        action.add_argument("--json", action="store_true", help="print one JSON document")


def _sentence(text: str) -> str:
    return (
        f"{text[0].upper()}{text[1:]}. The run may be trained in another terminal, in the background or on another "
        "machine that sees its folder; the answer is printed. Exit code 2: no process trains the run; 75: no answer."
    )
