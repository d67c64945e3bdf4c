"""The options of a training: those of `gpt2tui train`, which `gpt2tui` has too."""

import argparse
from pathlib import Path

from gpt2tui.cli.completion import preset_names, presets_and_settings, run_names, setting_keys
from gpt2tui.cli.parser import Parser, command_in
from gpt2tui.system.terminal_text import printable, printable_value

START = command_in("start", "start")
TUNE = command_in("tune", "tune")


def add_train(top: Parser) -> None:
    """The command `train`."""
    parser = top.add_command(
        "train",
        help="train a preset without the workbench",
        usage="gpt2tui train [PRESET ...] [KEY=VALUE ...] [options]",
        description="Trains a preset, or resumes a run, and prints its progress. Several presets are layers: later "
        "ones override earlier ones and may be partial, and KEY=VALUE overrides all. gpt2tui presets keys explains the "
        "keys.",
    )
    words = parser.add_argument(
        "words",
        nargs="*",
        metavar="PRESET|KEY=VALUE",
        help="presets, each a name or a TOML file, and settings, e.g. small optimizer.lr=1e-3 training.batch_size=8",
    )
    words.completer = presets_and_settings  # type: ignore[attr-defined]
    add_training_options(parser)
    parser.set_defaults(command=START, headless=True)


def add_tune(top: Parser) -> None:
    """The command `tune`."""
    parser = top.add_command(
        "tune",
        help="train a model further on your own folder or file",
        usage="gpt2tui tune DATA [PRESET ...] [KEY=VALUE ...] [--from MODEL] [options]",
        description="Trains a model further on a folder or file, with the preset finetune, or instruct where the rows "
        "have prompts and answers (columns such as prompt and completion, or messages). The preset is printed first; "
        "--dry-run prints it with the estimate and trains nothing.",
    )
    parser.add_argument(
        "data", metavar="DATA", help="a folder, file or glob of text, or of rows of prompts and answers"
    )
    words = parser.add_argument(
        "words",
        nargs="*",
        metavar="PRESET|KEY=VALUE",
        help="settings, partial presets over those of tune, and a whole preset instead of finetune and instruct, such "
        "as lora",
    )
    words.completer = presets_and_settings  # type: ignore[attr-defined]
    base = parser.add_argument(
        "--from",
        "--model",
        dest="base",
        metavar="MODEL",
        help="the model to train further: a run, RUN@STEP, a tag (@NAME), a checkpoint's folder, a folder in Hugging "
        "Face GPT-2 form, or the id of such a model on the Hub (default: of the runs that have a checkpoint the one "
        "begun last, else openai-community/gpt2)",
    )
    base.completer = run_names  # type: ignore[attr-defined]
    add_training_options(parser)
    parser.set_defaults(command=TUNE, headless=True)


def add_training_options(parser: Parser) -> None:
    """The options that a training has with and without the workbench."""
    add_preset_layers(
        parser,
        "the preset to train, a name or a TOML file; repeatable: later ones override earlier ones and may be partial",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="the same as --set training.seed=N")
    parser.add_argument("--name", metavar="NAME", help="the name of the new run: its folder is runs/<date>-<time>-NAME")
    parser.add_argument(
        "--run-dir",
        metavar="DIR",
        help="the folder of the new run (default: runs/<date>-<time>-<preset or NAME>); gpt2tui runs list shows those "
        "in runs only",
    )
    resume = parser.add_argument(
        "--resume",
        metavar="RUN[@STEP]",
        help="resume a run (a folder, a name, the beginning of a name, or latest) from its newest valid checkpoint, or "
        "from that of STEP, after which later ones are set aside; with --run-dir in a new run, and the old one stays",
    )
    resume.completer = run_names  # type: ignore[attr-defined]
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="resolve and validate the preset, check its data and estimate its cost, without training",
    )
    parser.add_argument(
        "--ranks",
        type=at_least_one,
        metavar="N",
        help="with --dry-run: the share of each of N processes of torchrun, and what they send each other",
    )
    parser.add_argument(
        "--force", action="store_true", help="train although the estimate says that memory or the disk is too small"
    )
    parser.add_argument("--toml", action="store_true", help="with --dry-run: print every setting too, as TOML")
    parser.add_argument(
        "--log-format",
        choices=("text", "jsonl"),
        help="the format of the events on stdout: text (the default), or jsonl, a JSON object for each",
    )
    parser.add_argument("--json", action="store_true", help="with --dry-run or a sweep: print one JSON document")
    add_sweep_options(parser)


def add_sweep_options(parser: Parser) -> None:
    """The options of many runs; the runs of a sweep are found as SWEEP/RUN, and the sweep by --resume."""
    sweep = parser.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="KEY=A,B,C",
        help="train a run for each value of a setting; repeatable: every combination; with --sweep-random also "
        '"KEY=LOW..HIGH" and "KEY=LOW..HIGH log"',
    )
    sweep.completer = setting_keys  # type: ignore[attr-defined]
    parser.add_argument(
        "--sweep-random",
        type=at_least_one,
        metavar="N",
        help="train N runs with values drawn at random from those of --sweep; other ones with another --seed",
    )
    parser.add_argument(
        "--seeds",
        type=at_least_one,
        metavar="N",
        help="train each configuration N times, with training.seed and those after it, and compare them",
    )
    parser.add_argument("--jobs", type=at_least_one, metavar="N", help="train N runs of a sweep at once (default 1)")


def at_least_one(text: str) -> int:
    """A whole number above 0, of the command line. Raises ArgumentTypeError."""
    if not text.isascii() or not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{printable_value(text)} is not a whole number of at least 1")
    return int(text)


def _check_sweep(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Exits with code 2 for options that have no effect with a sweep, or none without one."""
    if options.sweep_random and not options.sweep:
        parser.error("--sweep-random needs --sweep KEY=LOW..HIGH, which says what to draw")
    if not options.sweep and not options.seeds:
        return
    name = "--sweep" if options.sweep else "--seeds"
    if not options.headless and not options.dry_run:
        parser.error(f"{name} needs --headless or the command train")
    for other in ("resume", "log_format", "toml"):
        if getattr(options, other):
            parser.error(f"{name} and --{other.replace('_', '-')} exclude each other")


def add_preset_layers(parser: Parser, preset_help: str) -> None:
    """--preset and --set."""
    preset = parser.add_argument(
        "--preset",
        action="append",
        default=[],
        metavar="NAME|FILE",
        help=preset_help,
    )
    preset.completer = preset_names  # type: ignore[attr-defined]
    add_set(parser)


def add_set(parser: Parser) -> None:
    """--set, in the attribute `overrides`."""
    setting = parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="change one setting, e.g. training.batch_size=8; repeatable; overrides the presets",
    )
    setting.completer = setting_keys  # type: ignore[attr-defined]


def presets_and_overrides(words: list[str]) -> tuple[list[str], list[str]]:
    """The presets and the KEY=VALUE settings of a list of both; an existing file is a preset, whatever its name."""
    overrides = [word for word in words if "=" in word and not Path(word).is_file()]
    return [word for word in words if word not in overrides], overrides


def check_training(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Exits with code 2 for options that have no effect together; puts --seed into the settings."""
    if options.command is TUNE and options.resume:
        parser.error(f"tune begins a new run; to continue one: gpt2tui train --resume {printable(options.resume, 200)}")
    if options.seed is not None:
        options.overrides = [*options.overrides, f"training.seed={options.seed}"]
    _check_sweep(parser, options)
    if options.json and not (options.dry_run or options.sweep or options.seeds or options.resume):
        parser.error("--json without a command needs --dry-run or a sweep; for training use --log-format jsonl")
    if options.ranks and (not options.dry_run or options.sweep or options.seeds):
        parser.error(
            "--ranks needs --dry-run of a single run; to train on several: torchrun --nproc-per-node=N -m gpt2tui"
        )
    if options.toml and not options.dry_run:
        parser.error("--toml needs --dry-run; gpt2tui presets show PRESET prints a preset as TOML")
    if options.log_format and not options.headless:
        parser.error("--log-format needs --headless: the workbench has no log on stdout")
    if options.force and not options.headless:
        parser.error("--force needs --headless: the workbench asks")
    if options.name is not None and not options.headless:
        parser.error("--name needs --headless or the command train")
    if options.name is not None and (options.run_dir or options.resume):
        other, instead = ("--run-dir", "is the whole name") if options.run_dir else ("--resume", "has its name already")
        parser.error(f"--name and {other} exclude each other: the run {instead}")
