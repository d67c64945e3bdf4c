# PYTHON_ARGCOMPLETE_OK
"""The command line: its commands and options, and the function that runs each command. Imports nothing heavy."""

import argparse
import sys
from collections.abc import Callable, Iterable

from gpt2tui import __version__
from gpt2tui.cli.commands import (
    add_attach,
    add_bench,
    add_evaluate,
    add_export,
    add_import,
    add_prepare,
    add_presets,
    add_sample,
    add_serve,
)
from gpt2tui.cli.completion import asked_to_complete, complete_words
from gpt2tui.cli.parser import Parser
from gpt2tui.cli.runs import add_runs
from gpt2tui.cli.training import (
    START,
    TUNE,
    add_train,
    add_training_options,
    add_tune,
    check_training,
    presets_and_overrides,
)
from gpt2tui.cli.words import arranged

DESCRIPTION = """\
Trains GPT-2 from scratch in a terminal. Without a command it opens the workbench, where you edit presets, train
them and chat with the model. gpt2tui train, or --headless, trains a preset and prints its progress."""

EXIT_CODES = """\
exit codes: 0 success, 1 a bug, 2 usage or preset error, 3 data error, 4 checkpoint error, 5 training diverged,
6 memory, disk or device missing or full, 75 the run is locked by another process, 129/130/143 stopped by
SIGHUP/SIGINT/SIGTERM after saving a checkpoint."""

EXAMPLES = """\
examples:
  gpt2tui                                                 open the workbench
  gpt2tui train small                                     train a small model without the workbench
  gpt2tui train small optimizer.lr=1e-3 --name lr1e-3     the same with another setting and a name
  gpt2tui train small --dry-run                           estimate its cost first
  gpt2tui train --resume latest                           continue the run that was begun last
  gpt2tui tune notes/ --from latest                       train it further on a folder of text
  gpt2tui sample latest --prompt "def" --temperature 0.8
  gpt2tui runs list --sort best_val_loss
  gpt2tui bench --against nanogpt                         measure the speed of this machine
  gpt2tui presets show small                              print every setting of a preset
  gpt2tui presets keys                                    explain every setting
"""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parses a command line, by default this process's. Exits with code 2 when something is wrong."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    elif words == ["version"]:
        words = ["--version"]
    # Without a word no command's options are needed, and the workbench opens at once; a shell's Tab key needs all.
    parser = build_parser() if words or asked_to_complete() else build_parser(commands=())
    options = parser.parse_args(arranged(parser, words))
    if "words" in options:
        presets, overrides = presets_and_overrides(options.words)
        options.preset = _as_typed([*getattr(options, "preset", []), *presets], words)
        options.overrides = [*options.overrides, *overrides]
    if options.command in (START, TUNE):
        name = "tune" if options.command is TUNE else "train"
        check_training(parser.commands[name] if "words" in options else parser, options)
    return options


def _as_typed(presets: list[str], words: list[str]) -> list[str]:
    """Presets in the order of the command line, whether named by --preset or alone."""
    typed = [word.removeprefix("--preset=") for word in words]
    return sorted(presets, key=lambda preset: typed.index(preset) if preset in typed else len(typed))


COMMANDS: tuple[Callable[[Parser], None], ...] = (
    add_train,
    add_tune,
    add_prepare,
    add_sample,
    add_evaluate,
    add_export,
    add_import,
    add_presets,
    add_runs,
    add_attach,
    add_serve,
    add_bench,
)


def build_parser(commands: Iterable[Callable[[Parser], None]] = COMMANDS) -> Parser:
    """The parser of the command line; each command sets `command`, a function of the parsed options."""
    parser = Parser(
        prog="gpt2tui",
        usage="gpt2tui [--preset NAME|FILE ...] [--set KEY=VALUE ...] [options]\n       gpt2tui COMMAND ...",
        description=DESCRIPTION,
        epilog=f"{EXAMPLES}\n{EXIT_CODES}",
    )
    parser.add_argument("-V", "--version", action="version", version=f"gpt2tui {__version__}")
    parser.add_argument("--headless", action="store_true", help="train without the workbench, as the command train")
    add_training_options(parser)
    parser.set_defaults(command=START)
    for add in commands:
        add(parser)
    complete_words(parser)
    return parser
