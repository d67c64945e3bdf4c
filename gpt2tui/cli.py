# PYTHON_ARGCOMPLETE_OK
"""The command line: its commands and options, and the function that runs each command. Imports nothing heavy."""

import argparse
import contextlib
import io
import itertools
import shlex
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from gpt2tui import __version__

DESCRIPTION = """\
Trains GPT-2 from scratch in a terminal. Without a command it opens the workbench, where you edit presets, train
them and chat with the model. With --headless it trains a preset and prints its progress."""

EXIT_CODES = """\
exit codes: 0 success, 1 a bug, 2 usage or preset error, 3 data error, 4 checkpoint error, 5 training diverged,
6 memory, disk or device missing or full, 75 the run is locked by another process, 129/130/143 stopped by
SIGHUP/SIGINT/SIGTERM after saving a checkpoint."""

EXAMPLES = """\
examples:
  gpt2tui                                                 open the workbench
  gpt2tui --headless --preset small                       train a small model without the workbench
  gpt2tui --headless --preset small --set optimizer.lr=1e-3 --dry-run
                                                          estimate its cost first
  gpt2tui --headless --resume 2026-01-31-120000-small     continue a stopped run
  gpt2tui sample runs/2026-01-31-120000-small --prompt "def" --temperature 0.8
  gpt2tui bench --against nanogpt                         measure the speed of this machine
  gpt2tui presets show small                              print every setting of a preset
  gpt2tui presets keys                                    explain every setting
"""


def _command(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    """A command's function, whose module is imported only when the function is called."""

    def call(options: argparse.Namespace) -> int:
        code: int = getattr(import_module(f"gpt2tui.commands.{module}"), function)(options)
        return code

    return call


START = _command("start", "start")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parses a command line, by default this process's. Exits with code 2 when something is wrong."""
    words = [_with_hyphens(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    parser = build_parser()
    _refuse_options_before_a_command(parser, words)
    options = parser.parse_args(words)
    if options.command is START and options.json and not options.dry_run:
        parser.error("--json without a command needs --dry-run; for training use --log-format jsonl")
    if options.command is START and options.log_format and not options.headless:
        parser.error("--log-format needs --headless: the workbench has no log on stdout")
    if options.command is START and options.force and not options.headless:
        parser.error("--force needs --headless: the workbench asks")
    return options


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; each command sets `command`, a function of the parsed options."""
    parser = argparse.ArgumentParser(
        prog="gpt2tui",
        description=DESCRIPTION,
        epilog=f"{EXAMPLES}\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"gpt2tui {__version__}")
    _add_training_options(parser)
    parser.set_defaults(command=START)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for add in COMMANDS.values():
        add(commands)
    _complete_words(parser)
    return parser


def _with_hyphens(word: str) -> str:
    """The option with - in place of _ in its name; a value after = stays as it is."""
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if name.startswith("--") else word


def _refuse_options_before_a_command(parser: argparse.ArgumentParser, words: list[str]) -> None:
    """Exits with code 2 on options before a command, which argparse would accept and then ignore."""
    if not words or not words[0].startswith("-") or {"-h", "--help", "--version"} & {*words}:
        return
    is_command = (
        word in COMMANDS and not _takes_value(parser, previous) for previous, word in itertools.pairwise(words)
    )
    position = next((i for i, found in enumerate(is_command, start=1) if found), 0)
    before = words[:position]
    if not before or before == ["--"]:
        return
    moved = [*words[position:], *before]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            parser.parse_args(moved)
            hint = f"gpt2tui {shlex.join(moved)}"
        except SystemExit:
            hint = f"see gpt2tui {words[position]} --help"
    parser.error(
        f"{shlex.join(before)} has no effect before the command {words[position]}; "
        f"write options after their command: {hint}"
    )


def _takes_value(parser: argparse.ArgumentParser, word: str) -> bool:
    """Whether the word is an option and the next word its value, as `runs` is in `--resume runs`."""
    if not word.startswith("--"):
        return False
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            parser.parse_known_args([word])
        except SystemExit:  # its value is missing
            return True
    return False


def _add_training_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--headless", action="store_true", help="train without the workbench")
    _add_preset_layers(
        parser,
        "the preset to train, a name or a TOML file; repeatable: later ones override earlier ones and may be partial",
    )
    parser.add_argument(
        "--run-dir", metavar="DIR", help="the folder of the new run; default: runs/<date>-<time>-<preset name>"
    )
    parser.add_argument(
        "--resume",
        metavar="RUN[@STEP]",
        help="resume a run (a folder, a name, the beginning of a name, or latest) from its newest valid checkpoint, or "
        "from that of STEP, after which later ones are set aside; with --run-dir in a new run, and the old one stays",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="resolve and validate the preset, estimate its cost and check its data, without training",
    )
    parser.add_argument(
        "--force", action="store_true", help="train although the estimate says that memory or the disk is too small"
    )
    parser.add_argument(
        "--log-format",
        choices=("text", "jsonl"),
        help="the format of the events on stdout; default: text on a terminal, otherwise jsonl",
    )
    parser.add_argument("--json", action="store_true", help="with --dry-run: print one JSON document")


def _add_preset_layers(parser: argparse.ArgumentParser, preset_help: str) -> None:
    preset = parser.add_argument(
        "--preset",
        action="append",
        default=[],
        metavar="NAME|FILE",
        help=preset_help,
    )
    preset.completer = _preset_names  # type: ignore[attr-defined]
    setting = parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="change one setting, e.g. training.batch_size=8; repeatable; overrides the presets",
    )
    setting.completer = _setting_keys  # type: ignore[attr-defined]


def _add_sample(commands: Any) -> None:
    parser = commands.add_parser(
        "sample",
        help="generate text with a model",
        description="Generates text with a model. Prompt, sampling settings and seed default to those of the run's "
        "preset ([sampling]).",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_command("sample", "sample"))
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="a checkpoint folder, a run (its best checkpoint), a Hugging Face GPT-2 folder, or a Hub id",
    )
    parser.add_argument("--prompt", metavar="TEXT", help="the text to continue")
    parser.add_argument("--max-length", type=int, metavar="N", help="the most tokens to generate after the prompt")
    parser.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help="0 always takes the most probable token, 1 samples from the model's own distribution",
    )
    parser.add_argument(
        "--top-k", type=int, metavar="K", help="sample only from the K most probable tokens; 0: from all"
    )
    parser.add_argument(
        "--top-p",
        type=float,
        metavar="P",
        help="sample only from the most probable tokens that together have probability P",
    )
    parser.add_argument("--seed", type=int, metavar="S", help="the random seed: the same seed gives the same text")
    parser.add_argument(
        "--num-samples",
        type=int,
        default=1,
        metavar="N",
        help="how many texts to generate; each has its own seed, S, S+1, ...",
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "fp16"),
        default="auto",
        help="precision of the weights on a CPU; auto: fp16 from 50 million parameters on, because it is faster there",
    )
    parser.add_argument("--device", default="auto", metavar="DEVICE", help="auto, cpu, cuda or mps")
    parser.add_argument("--json", action="store_true", help="print a JSON list with one object per text")


def _add_evaluate(commands: Any) -> None:
    parser = commands.add_parser("eval", help="measure a model's loss on validation and test text", allow_abbrev=False)
    parser.set_defaults(command=_command("evaluate", "evaluate"))
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="a checkpoint folder, a run (its best checkpoint), a Hugging Face GPT-2 folder, or a Hub id",
    )
    parser.add_argument("--source", metavar="SOURCE", help="the corpus to measure on; default: the run's own")
    parser.add_argument(
        "--split",
        choices=("validation", "test"),
        help="the split to measure on; default: validation, and test where the corpus has one (python-stdlib, "
        "WikiText, some data sets of the Hub)",
    )
    parser.add_argument("--device", default="auto", metavar="DEVICE", help="auto, cpu, cuda or mps")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_presets(commands: Any) -> None:
    parser = commands.add_parser("presets", help="list, show and check presets", allow_abbrev=False)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="list every preset with its size and corpus", allow_abbrev=False)
    listing.set_defaults(command=_command("presets", "list_presets"))
    showing = actions.add_parser(
        "show", help="print a preset as TOML, with all inherited and default settings filled in", allow_abbrev=False
    )
    showing.add_argument("preset", metavar="NAME", help="a preset's name or a TOML file").completer = _preset_names
    showing.set_defaults(command=_command("presets", "show_preset"))
    checking = actions.add_parser(
        "check", help="validate preset files and report all mistakes at once", allow_abbrev=False
    )
    checking.add_argument("presets", metavar="FILE", nargs="+", help="a TOML file or a preset's name")
    checking.set_defaults(command=_command("presets", "check_presets"))
    keys = actions.add_parser(
        "keys", help="list every setting with its default, allowed values and meaning", allow_abbrev=False
    )
    keys.set_defaults(command=_command("presets", "list_keys"))
    schema = actions.add_parser("schema", help="print the JSON schema of preset files, for editors", allow_abbrev=False)
    schema.set_defaults(command=_command("presets", "print_schema"))
    for action in (listing, showing, checking, keys, schema):
        action.add_argument("--json", action="store_true", help="print one JSON document")


def _add_runs(commands: Any) -> None:
    parser = commands.add_parser("runs", help="list and show runs", allow_abbrev=False)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser(
        "list", help="list every run with its state and best validation loss", allow_abbrev=False
    )
    listing.set_defaults(command=_command("runs", "list_runs"))
    showing = actions.add_parser(
        "show", help="show one run's numbers, its checkpoints and their folders", allow_abbrev=False
    )
    showing.add_argument("run", metavar="RUN", help="a run's name or folder").completer = _run_names
    showing.set_defaults(command=_command("runs", "show_run"))
    for action in (listing, showing):
        action.add_argument("--json", action="store_true", help="print one JSON document")


def _add_attach(commands: Any) -> None:
    parser = commands.add_parser(
        "attach", help="watch a run that another process trains, on the Train screen", allow_abbrev=False
    )
    parser.add_argument("run", metavar="RUN", help="a run's name or folder").completer = _run_names
    parser.set_defaults(command=_command("attach", "attach"))


def _add_serve(commands: Any) -> None:
    parser = commands.add_parser(
        "serve", help="serve the workbench to browsers (needs gpt2tui[serve])", allow_abbrev=False
    )
    parser.add_argument(
        "--host",
        default="localhost",
        help="the address to listen on (default: localhost); there is no password: anyone who can reach it can use it",
    )
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="the port to listen on (default: 8000)")
    parser.add_argument(
        "--public-url", metavar="URL", help="the address that browsers use, where it is another one, as behind a proxy"
    )
    parser.set_defaults(command=_command("serve", "serve"))


def _add_bench(commands: Any) -> None:
    parser = commands.add_parser(
        "bench",
        help="measure the speed of training, generation and tokenization on this machine",
        description="Measures a preset on this machine with the precision, optimizer and compilation of a real run. "
        "Downloads nothing: where the corpus is not prepared, it uses random tokens. With --against it also measures "
        "other implementations of the same model, round by round in turn, each in a process of its own.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_command("bench", "bench"))
    _add_preset_layers(
        parser,
        "the preset to measure, a name or a TOML file (default: small); repeatable: later ones override earlier ones",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="measure every shipped preset, skipping those too large or too slow for this machine",
    )
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        choices=("nanogpt", "transformers"),
        help="nanogpt: our network trained as nanoGPT does on a CPU; transformers: GPT2LMHeadModel, with its defaults "
        "and tuned; repeatable",
    )
    parser.add_argument(
        "--parts",
        default="train,generate,tokenize,data",
        metavar="PART,...",
        help="what to measure: train, generate, tokenize, data (the share of a step spent on reading its batch); "
        "default: all",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=10.0,
        metavar="S",
        help="the time to measure each part and implementation for, without warm-up; at least 3 rounds (default: 10)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def _complete_words(parser: argparse.ArgumentParser) -> None:
    """Completes words for the shell's Tab key; imports nothing otherwise."""
    import os

    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)


def _preset_names(**_: Any) -> list[str]:
    from gpt2tui.preset.files import available

    return [source.name for source in available()]


def _setting_keys(**_: Any) -> list[str]:
    from gpt2tui.preset.files import settings

    return [f"{setting.key}=" for setting in settings()]


def _run_names(**_: Any) -> list[str]:
    from gpt2tui.run.folder import all_runs

    return [run.name for run in all_runs()]


COMMANDS: dict[str, Callable[[Any], None]] = {
    "sample": _add_sample,
    "eval": _add_evaluate,
    "presets": _add_presets,
    "runs": _add_runs,
    "attach": _add_attach,
    "serve": _add_serve,
    "bench": _add_bench,
}
