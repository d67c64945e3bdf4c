# PYTHON_ARGCOMPLETE_OK
"""The command line: what can be asked for, and which function answers. Imports nothing heavy."""

import argparse
import contextlib
import io
import shlex
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from gpt2tui import __version__

EXIT_CODES = """\
exit codes: 0 done, 1 a bug, 2 usage or preset, 3 data, 4 checkpoint, 5 training diverged, 6 memory, disk or
device, 75 the run is held by another process, 129/130/143 ended by SIGHUP/SIGINT/SIGTERM after saving."""

EXAMPLES = """\
examples:
  gpt2tui --headless --preset small                       train a small model on this machine
  gpt2tui --headless --preset small --set optimizer.lr=1e-3 --dry-run
  gpt2tui --headless --resume 2026-01-31-120000-small     go on where a run stopped
  gpt2tui sample runs/2026-01-31-120000-small --prompt "def" --temperature 0.8
  gpt2tui bench --against nanogpt                         how fast this machine trains, writes and tokenizes
  gpt2tui presets show small                              every setting, with what it means in `presets keys`
"""


def _command(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    """The function of a command, imported when it is called."""

    def call(options: argparse.Namespace) -> int:
        code: int = getattr(import_module(f"gpt2tui.commands.{module}"), function)(options)
        return code

    return call


START = _command("start", "start")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options of a command line, by default this process's. Leaves with code 2 when something is wrong."""
    words = [_with_hyphens(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    parser = build_parser()
    _refuse_options_before_a_command(parser, words)
    options = parser.parse_args(words)
    if options.command is START and options.json and not options.dry_run:
        parser.error("--json without a command needs --dry-run; a training takes --log-format jsonl")
    if options.command is START and options.log_format and not options.headless:
        parser.error("--log-format needs --headless: the workbench has no log on stdout")
    return options


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; each command sets `command`, a function of the parsed options."""
    parser = argparse.ArgumentParser(
        prog="gpt2tui",
        description="Train GPT-2 from scratch in a terminal, with or without a screen.",
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
    _complete(parser)
    return parser


def _with_hyphens(word: str) -> str:
    """An option may be written with - or _; what stands behind its = is its value."""
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if name.startswith("--") else word


def _refuse_options_before_a_command(parser: argparse.ArgumentParser, words: list[str]) -> None:
    """argparse takes options before a command for those of a training without one, and drops them."""
    if not words or not words[0].startswith("-") or {"-h", "--help", "--version"} & {*words}:
        return
    places = (at for at, word in enumerate(words) if word in COMMANDS and not _takes_value(parser, words[at - 1]))
    at = next(places, 0)
    before = words[:at]
    if not before or before == ["--"]:
        return
    moved = [*words[at:], *before]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            parser.parse_args(moved)
            hint = f"gpt2tui {shlex.join(moved)}"
        except SystemExit:
            hint = f"see gpt2tui {words[at]} --help"
    parser.error(
        f"{shlex.join(before)} has no effect before the command {words[at]}; options go behind their command: {hint}"
    )


def _takes_value(parser: argparse.ArgumentParser, word: str) -> bool:
    """Whether the word is an option whose value stands behind it, as `runs` does in `--resume runs`."""
    if not word.startswith("--"):
        return False
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            parser.parse_known_args([word])
        except SystemExit:  # it lacks its value
            return True
    return False


def _add_training_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--headless", action="store_true", help="train without a screen")
    _add_preset_layers(
        parser, "what to train: a preset's name or a TOML file; repeatable, later ones win and may be partial"
    )
    parser.add_argument("--run-dir", metavar="DIR", help="default: runs/<date>-<time>-<preset name>")
    parser.add_argument("--resume", metavar="RUN", help="continue a run from its newest valid checkpoint")
    parser.add_argument(
        "--dry-run", action="store_true", help="resolve, validate, estimate, check the data; train nothing"
    )
    parser.add_argument(
        "--log-format",
        choices=("text", "jsonl"),
        help="default: text on a terminal, jsonl when stdout is not one",
    )
    parser.add_argument("--json", action="store_true", help="with --dry-run: one JSON document on stdout")


def _add_preset_layers(parser: argparse.ArgumentParser, what: str) -> None:
    preset = parser.add_argument(
        "--preset",
        action="append",
        default=[],
        metavar="NAME|FILE",
        help=what,
    )
    preset.completer = _preset_names  # type: ignore[attr-defined]
    setting = parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="change one setting, e.g. training.batch_size=8; repeatable, wins over presets",
    )
    setting.completer = _setting_keys  # type: ignore[attr-defined]


def _add_sample(commands: Any) -> None:
    parser = commands.add_parser("sample", help="let a model write", allow_abbrev=False)
    parser.set_defaults(command=_command("sample", "sample"))
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="a checkpoint, a run (its best checkpoint), a folder in Hugging Face GPT-2 form, or a Hub id",
    )
    parser.add_argument("--prompt", metavar="TEXT", help="the text to continue; default: the run's own")
    parser.add_argument("--max-length", type=int, metavar="N", help="tokens to write at most")
    parser.add_argument(
        "--temperature", type=float, metavar="T", help="0 takes the likeliest token, 1 the model's odds"
    )
    parser.add_argument("--top-k", type=int, metavar="K", help="choose among the K likeliest tokens; 0: among all")
    parser.add_argument("--top-p", type=float, metavar="P", help="choose among the likeliest with this probability")
    parser.add_argument("--seed", type=int, metavar="S", help="the same seed writes the same text")
    parser.add_argument(
        "--num-samples", type=int, default=1, metavar="N", help="how many texts, each with its own seed"
    )
    parser.add_argument(
        "--precision",
        choices=("auto", "fp32", "fp16"),
        default="auto",
        help="of the weights on a CPU; auto: fp16, which is read in half the time, from 50 million parameters on",
    )
    parser.add_argument("--device", default="auto", metavar="DEVICE", help="auto, cpu, cuda or mps")
    parser.add_argument("--json", action="store_true", help="a list of JSON objects on stdout")


def _add_evaluate(commands: Any) -> None:
    parser = commands.add_parser("eval", help="measure a model on validation and test text", allow_abbrev=False)
    parser.set_defaults(command=_command("evaluate", "evaluate"))
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="a checkpoint, a run, a Hugging Face folder or a Hub id"
    )
    parser.add_argument("--source", metavar="SOURCE", help="the corpus to measure on; default: the run's own")
    parser.add_argument(
        "--split",
        choices=("validation", "test"),
        help="default: both, where the corpus has a test split (python-stdlib, WikiText, some data sets of the Hub)",
    )
    parser.add_argument("--device", default="auto", metavar="DEVICE", help="auto, cpu, cuda or mps")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def _add_presets(commands: Any) -> None:
    parser = commands.add_parser("presets", help="list, show and check presets", allow_abbrev=False)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="every preset with its size and corpus", allow_abbrev=False)
    listing.set_defaults(command=_command("presets", "list_presets"))
    showing = actions.add_parser(
        "show", help="a preset with everything it inherits filled in, as TOML", allow_abbrev=False
    )
    showing.add_argument("preset", metavar="NAME").completer = _preset_names
    showing.set_defaults(command=_command("presets", "show_preset"))
    checking = actions.add_parser("check", help="validate files; all mistakes at once", allow_abbrev=False)
    checking.add_argument("presets", metavar="FILE", nargs="+", help="a TOML file, or a preset by its name")
    checking.set_defaults(command=_command("presets", "check_presets"))
    keys = actions.add_parser("keys", help="every setting with its default, bounds and meaning", allow_abbrev=False)
    keys.set_defaults(command=_command("presets", "list_keys"))
    schema = actions.add_parser("schema", help="the JSON schema, for editors", allow_abbrev=False)
    schema.set_defaults(command=_command("presets", "print_schema"))
    for action in (listing, showing, checking, keys, schema):
        action.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _add_runs(commands: Any) -> None:
    parser = commands.add_parser("runs", help="list and show runs", allow_abbrev=False)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="every run with its state and best loss", allow_abbrev=False)
    listing.set_defaults(command=_command("runs", "list_runs"))
    showing = actions.add_parser("show", help="one run: numbers, checkpoints, where they are", allow_abbrev=False)
    showing.add_argument("run", metavar="RUN").completer = _run_names
    showing.set_defaults(command=_command("runs", "show_run"))
    for action in (listing, showing):
        action.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _add_attach(commands: Any) -> None:
    parser = commands.add_parser(
        "attach", help="watch a run of another process on the Train screen", allow_abbrev=False
    )
    parser.add_argument("run", metavar="RUN", help="a run's name or folder").completer = _run_names
    parser.set_defaults(command=_command("attach", "attach"))


def _add_serve(commands: Any) -> None:
    parser = commands.add_parser("serve", help="the workbench in a browser (needs gpt2tui[serve])", allow_abbrev=False)
    parser.add_argument(
        "--host", default="localhost", help="the address to listen on; there is no password, so mind who can reach it"
    )
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="default: 8000")
    parser.add_argument(
        "--public-url", metavar="URL", help="what browsers call this server, when it stands behind another one"
    )
    parser.set_defaults(command=_command("serve", "serve"))


def _add_bench(commands: Any) -> None:
    parser = commands.add_parser(
        "bench",
        help="measure training, writing and tokenizing on this machine",
        description="Measures a preset on this machine as a run would train it: its precision, its optimizer, compiled "
        "if a run would compile it. Downloads nothing; random tokens stand for a corpus that is not prepared. With "
        "--against the same model is run by others in turns with ours, round by round, each in a process of its own.",
        allow_abbrev=False,
    )
    parser.set_defaults(command=_command("bench", "bench"))
    _add_preset_layers(
        parser,
        "what to measure, a name or a TOML file (default: small); repeatable, later ones are layers over earlier",
    )
    parser.add_argument("--all", action="store_true", help="every shipped preset that fits into memory and time")
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        choices=("nanogpt", "transformers"),
        help="nanogpt: our network the way nanoGPT trains on a CPU; transformers: GPT2LMHeadModel, as people run it "
        "and at its best; repeatable",
    )
    parser.add_argument(
        "--parts",
        default="train,generate,tokenize,data",
        metavar="PART,...",
        help="train, generate, tokenize, data (the share of a step spent getting its batch); default: all",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=10.0,
        metavar="S",
        help="measuring time for each part and candidate, warm-up not counted; at least 3 rounds (default: 10)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def _complete(parser: argparse.ArgumentParser) -> None:
    """Answers the shell's Tab key; costs nothing otherwise."""
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
