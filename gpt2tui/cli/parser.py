"""The parser of a command, which knows its options and commands by name."""

import argparse
import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

from gpt2tui.system.terminal_text import printable_value

_NUMBER = re.compile(r"-\.?\d.*")


def command_in(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    """A command's function, whose module is imported only when the function is called."""

    def call(options: argparse.Namespace) -> int:
        code: int = getattr(import_module(f"gpt2tui.commands.{module}"), function)(options)
        return code

    return call


class Parser(argparse.ArgumentParser):
    """The parser of a command, which knows its options and commands by name."""

    def __init__(self, **settings: Any) -> None:
        self.options: dict[str, argparse.Action] = {}
        self._subparsers_action: Any = None
        # Examples keep their lines; other texts are wrapped to the terminal's width.
        formatter = argparse.RawDescriptionHelpFormatter if "epilog" in settings else argparse.HelpFormatter
        super().__init__(allow_abbrev=False, formatter_class=formatter, **settings)

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        """As argparse does, and remembers options by name."""
        action = super().add_argument(*names, **settings)
        self.options.update(dict.fromkeys(action.option_strings, action))
        return action

    def add_command(self, name: str, **settings: Any) -> "Parser":
        """A new command or action below this one."""
        if self._subparsers_action is None:
            is_top = " " not in self.prog
            title, metavar = ("commands", "COMMAND") if is_top else ("actions", "ACTION")
            self._subparsers_action = self.add_subparsers(title=title, metavar=metavar, prog=self.prog)
        parser: Parser = self._subparsers_action.add_parser(name, **settings)
        return parser

    @property
    def commands(self) -> "dict[str, Parser]":
        """The commands below this one, by name."""
        return self._subparsers_action.choices if self._subparsers_action else {}

    def takes_value(self, option: str) -> bool:
        """Whether a known option is followed by its value, as `--resume` is in `--resume runs`."""
        return option in self.options and self.options[option].nargs != 0


def decimal(text: str) -> float:
    """The number in a text, for an option. Raises ArgumentTypeError."""
    try:
        return float(text)
    except ValueError:
        hint = f"; write {text.replace(',', '.')}" if re.fullmatch(r"-?\d*,\d+", text) else ""
        raise argparse.ArgumentTypeError(f"{printable_value(text)} is not a number{hint}") from None


def is_option(word: str) -> bool:
    """Whether a word is an option and not a text or a negative number; options have no blanks."""
    return len(word) > 1 and word.startswith("-") and " " not in word and not _NUMBER.fullmatch(word)


def with_hyphens(word: str) -> str:
    """The option with - in place of _ in its name; a value after = stays as it is."""
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if name.startswith("--") else word
