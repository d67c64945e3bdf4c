"""What was probably meant by a command line that is refused: sentences with the command that does it."""

import difflib
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from gpt2tui.cli.parser import Parser, is_option, with_hyphens
from gpt2tui.system.terminal_text import printable

# Words of other programs for commands of ours.
_SYNONYMS = {
    "generate": "sample",
    "inference": "sample",
    "predict": "sample",
    "evaluate": "eval",
    "benchmark": "bench",
    "fit": "train",
    "pretrain": "train",
    "ls": "list",
    "ps": "list",
    "cat": "show",
    "info": "show",
    "fine-tune": "tune",
    "adapt": "tune",
    "validate": "check",
    "rm": "delete",
    "remove": "delete",
    "mv": "rename",
    "kill": "stop",
}
# Names of other programs for options of ours.
_OTHER_OPTIONS = {
    **dict.fromkeys(("max-new-tokens", "max-tokens", "n-predict", "num-tokens"), "max-length"),
    **dict.fromkeys(("n", "num-return-sequences"), "num-samples"),
}
_NOT_COMMANDS = {
    "chat": "chat in the workbench (gpt2tui, then its Chat screen), or generate here: gpt2tui sample latest",
    "finetune": "train a model further with gpt2tui tune FOLDER_OR_FILE, or with the preset of that name: gpt2tui "
    "train finetune model.init_from=RUN data.source=FOLDER_OR_FILE",
    "merge": "add an adapter to its base with gpt2tui export RUN --merge --to FOLDER, or on the Chat screen",
    "resume": "resume a run with gpt2tui train --resume RUN",
    "ui": "the workbench is gpt2tui without a command",
    "tui": "the workbench is gpt2tui without a command",
    "workbench": "the workbench is gpt2tui without a command",
}
# Options of other programs without a counterpart; they count only while no option or setting has that name.
_NOT_OPTIONS = {
    **dict.fromkeys(
        ("devices", "gpus", "num-gpus", "nproc-per-node", "num-processes"),
        "one process trains on one device, chosen with training.device=cuda:1; several share a run under torchrun: "
        "torchrun --standalone --nproc-per-node=N -m gpt2tui train PRESET",
    ),
    **dict.fromkeys(
        ("epochs", "num-epochs", "num-train-epochs"),
        "the length of a run is counted in steps, training.num_iterations; --dry-run says how often the text is read",
    ),
    **dict.fromkeys(("reverse", "desc", "descending"), "to list the largest first: --sort -KEY"),
    "pdf": "a picture of curves is --png FILE or --svg FILE",
    **dict.fromkeys(
        ("data", "data-dir", "dataset", "train-file"),
        "the text is a setting, data.source=FOLDER_OR_FILE, and the first word of gpt2tui tune",
    ),
    **dict.fromkeys(
        ("output", "output-dir", "out-dir", "save-dir"),
        "the folder of the new run is --run-dir DIR, its name --name NAME",
    ),
    **dict.fromkeys(
        ("init-from", "from-pretrained", "pretrained"),
        "weights to start from are a setting: model.init_from=openai-community/gpt2, or a run, or a folder",
    ),
}


def command_text(words: Iterable[str]) -> str:
    """The command line of these words, on one line of at most 300 characters and safe to print."""
    return printable(f"gpt2tui {shlex.join(words)}".rstrip(), 300)


def blanks_around_equals(words: Sequence[str]) -> str:
    """The answer to `k = v`, which a shell takes for three words."""
    joined: list[str] = []
    for word in words:
        if joined and (word == "=" or (joined[-1].endswith("=") and not joined[-1].startswith("--"))):
            joined[-1] += word
        else:
            joined.append(word)
    return f'write KEY=VALUE without blanks around "=": {command_text(joined)}'


def before_command(words: Sequence[str], start: int, command: int, is_valid: Callable[[list[str]], bool]) -> str:
    """The answer to options before their command, which would have no effect there.

    `is_valid` says whether a command line is one that is not refused.
    """
    before, path = words[start:command], words[:start]
    moved = [*path, *words[command:], *before]
    is_right = is_valid(moved)
    hint = command_text(moved) if is_right else f"see {command_text([*path, words[command], '--help'])}"
    return (
        f"{printable(shlex.join(before), 200)} has no effect before the command {words[command]}; "
        f"write options after their command: {hint}"
    )


def unknown_command(top: Parser, parser: Parser, words: Sequence[str], at: int) -> str:
    """The answer to a word that is none of the parser's commands."""
    word = words[at]
    path, rest = list(words[:at]), list(words[at + 1 :])
    if parser is top:
        if "=" in word:
            return _misplaced_setting(top, words, at)
        if word in _NOT_COMMANDS:
            return f"there is no command {word}; {_NOT_COMMANDS[word]}"
        if _is_preset(word):
            return (
                f"{printable(word)} is a preset, not a command; to train it: {command_text(['train', word, *rest])}; "
                f"to open it in the workbench: {command_text([*path, '--preset', word, *rest])}"
            )
        if (Path(word) / "run.json").is_file():
            return (
                f"{printable(word)} is a run, not a command; generate with it: {command_text(['sample', word, *rest])}"
            )
    every = {name: [name] for name in parser.commands}
    for name, below in parser.commands.items():
        for action in below.commands:
            every.setdefault(f"{name} {action}", [name, action])
    last = {text: text.rpartition(" ")[2] for text in every}
    wanted = _SYNONYMS.get(word, word)
    meant = [text for text in every if wanted in (text, last[text])]
    if not meant:
        near = difflib.get_close_matches(word[:50], set(last.values()), n=1, cutoff=0.7)
        meant = [text for text in every if last[text] in near]
    shown = [command_text([*_path_to(parser, top), *every[text], *rest]) for text in meant[:3]]
    if shown:
        return f"there is no command {printable(word, 60)}; did you mean {' or '.join(shown)}?"
    return f"there is no command {printable(word, 60)}; the commands are {', '.join(parser.commands)}"


def unknown_option(top: Parser, parser: Parser, words: Sequence[str], at: int) -> str:
    """The answer to an option that the parser does not have: a setting, an option of a similar name, or neither."""
    name, equals, value = with_hyphens(words[at]).partition("=")
    shown = printable(name, 60)
    following = words[at + 1] if at + 1 < len(words) else None
    if equals:
        rest = words[at + 1 :]
    elif following is not None and not is_option(following) and following not in parser.commands:
        value, rest = following, words[at + 2 :]
    else:
        rest = words[at + 1 :]
    before = words[:at]
    exact, near = _settings_like(name.lstrip("-")) if "--set" in parser.options else ([], [])
    long = [option for option in parser.options if option.startswith("--")]
    wanted = f"--{_OTHER_OPTIONS.get(name.lstrip('-'), name.lstrip('-'))}"
    options = [option for option in long if option == wanted or (len(wanted) > 3 and option.startswith(wanted))][:1]
    options = options or difflib.get_close_matches(name[:50], long, n=1, cutoff=0.75)
    if choice := next((o for o in long if name.lstrip("-") in (parser.options[o].choices or ())), None):
        return (
            f"there is no option {shown}; write {command_text([*before, choice, name.lstrip('-'), *words[at + 1 :]])}"
        )
    if not exact and not options and name.lstrip("-") in _NOT_OPTIONS:
        return f"there is no option {shown}; {_NOT_OPTIONS[name.lstrip('-')]}"
    if options and not exact:
        given = [] if value == "" else [value]
        return f"there is no option {shown}; did you mean {command_text([*before, options[0], *given, *rest])}?"
    if exact or near:
        choices = [[key] for key in exact[:2]] or [near]
        from gpt2tui.preset.settings import optional_tables

        tables = optional_tables()
        texts = [[f"{key}={value or ('true' if key in tables else 'VALUE')}" for key in keys] for keys in choices]
        commands = " or ".join(command_text(_with_settings(top, parser, before, text, rest)) for text in texts)
        return f"there is no option {shown}; write {commands}"
    usage = command_text([*_path_to(parser, top), "--help"])
    return f"there is no option {shown}; {usage} lists the options, and gpt2tui presets keys the settings"


def _with_settings(
    top: Parser, parser: Parser, before: Sequence[str], texts: Sequence[str], rest: Sequence[str]
) -> Sequence[str]:
    """The command line with settings (KEY=VALUE) at their place, in the form that the command takes."""
    with_set = [word for text in texts for word in ("--set", text)]
    if parser is not top:
        return [*before, *(texts if parser.prog.endswith(" train") else with_set), *rest]
    if {"--preset", "--headless", "--resume"} & {with_hyphens(word).partition("=")[0] for word in (*before, *rest)}:
        return [*before, *with_set, *rest]
    return ["train", "PRESET", *texts]


def _misplaced_setting(top: Parser, words: Sequence[str], at: int) -> str:
    """The answer to KEY=VALUE where a command is expected."""
    before, rest = words[:at], list(words[at + 1 :])
    if "train" in rest:
        command = rest.index("train")
        corrected = [*before, *rest[:command], "train", *rest[command + 1 :], words[at]]
    else:
        corrected = list(_with_settings(top, top, before, [words[at]], rest))
    return f"settings belong behind a preset: {command_text(corrected)}"


def _settings_like(name: str) -> tuple[list[str], list[str]]:
    """The settings whose key ends in this name; where there are none, those that are meant by a similar one."""
    from gpt2tui.preset.settings import settings
    from gpt2tui.preset.validation import nearest_settings

    wanted = name.replace("-", "_")
    keys = [setting.key for setting in settings()]
    exact = [key for key in keys if wanted == key or key.endswith(f".{wanted}")]
    near = [] if exact else nearest_settings(tuple(wanted.split(".")))
    return exact, [key for text in near for key in text.split(" and ")]


def _is_preset(word: str) -> bool:
    from gpt2tui.preset.catalog import available

    return word in {source.name for source in available()} or (word.endswith(".toml") and Path(word).is_file())


def _path_to(parser: Parser, top: Parser) -> list[str]:
    """The words of a command, from its `prog`."""
    return parser.prog.removeprefix(top.prog).split()
