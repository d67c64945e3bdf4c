"""Reads the words of a command line in any order, and answers unknown ones by what was probably meant."""

import argparse
import re
from collections.abc import Callable
from importlib import import_module
from typing import Any

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
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)

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
            self._subparsers_action = self.add_subparsers(
                title=title, metavar=metavar, required=not is_top, prog=self.prog
            )
        parser: Parser = self._subparsers_action.add_parser(name, **settings)
        return parser

    @property
    def commands(self) -> "dict[str, Parser]":
        """The commands below this one, by name."""
        return self._subparsers_action.choices if self._subparsers_action else {}

    def takes_value(self, option: str) -> bool:
        """Whether a known option is followed by its value, as `--resume` is in `--resume runs`."""
        return option in self.options and self.options[option].nargs != 0


def is_option(word: str) -> bool:
    """Whether a word is an option and not a text or a negative number; options have no blanks."""
    return len(word) > 1 and word.startswith("-") and " " not in word and not _NUMBER.fullmatch(word)


def with_hyphens(word: str) -> str:
    """The option with - in place of _ in its name; a value after = stays as it is."""
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value if name.startswith("--") else word


def arranged(top: Parser, words: list[str]) -> list[str]:
    """The words as argparse needs them: options first, their values joined with =, then the other words.

    Exits with code 2 for an unknown option or command and for options before a command; the message says what was
    probably meant.
    """
    from gpt2tui.cli import answers  # only what is refused needs more of it

    parser, path = top, []
    options: list[str] = []
    others: list[str] = []
    at = 0
    while at < len(words):
        word, at = words[at], at + 1
        name, equals, value = with_hyphens(word).partition("=")
        if word == "--":
            others += words[at - 1 :]
            break
        if word == "=" or words[at : at + 1] == ["="]:
            parser.error(answers.blanks_around_equals(words))
        if not is_option(word):
            if not parser.commands:
                others.append(word)
            elif word in parser.commands:
                parser = parser.commands[word]
                path.append(word)
            else:
                parser.error(answers.unknown_command(top, parser, words, at - 1))
            continue
        if parser.commands and (found := _position_of_command(parser, words, at - 1)):
            parser.error(answers.before_command(top, words, at - 1, found))
        if name not in parser.options:
            parser.error(answers.unknown_option(top, parser, words, at - 1))
        if parser.takes_value(name) and not equals:
            if at == len(words) or _is_option_of(parser, words[at]):
                parser.error(f"{name} needs a value")
            equals, value, at = "=", words[at], at + 1
        options.append(name + equals + value)
    return [*path, *options, *others]


def _is_option_of(parser: Parser, word: str) -> bool:
    return word == "--" or (is_option(word) and with_hyphens(word).partition("=")[0] in parser.options)


def _position_of_command(parser: Parser, words: list[str], start: int) -> int | None:
    """Where after `start` a command of the parser is named that no option takes as its value; None with --help."""
    if {"-h", "--help", "-V", "--version", "--"} & {*words[start:]}:
        return None
    is_value = [False, *(parser.takes_value(with_hyphens(word)) for word in words)]
    return next((i for i in range(start, len(words)) if words[i] in parser.commands and not is_value[i]), None)
