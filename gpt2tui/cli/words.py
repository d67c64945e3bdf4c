"""Reads the words of a command line in any order; unknown ones are answered by what was probably meant."""

import contextlib
import io
from functools import partial

from gpt2tui.cli import answers
from gpt2tui.cli.parser import Parser, is_option, with_hyphens


def arranged(top: Parser, words: list[str]) -> list[str]:
    """The words as argparse needs them: options first, their values joined with =, then the other words.

    Exits with code 2 for an unknown option or command and for options before a command; the message says what was
    probably meant.
    """
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
            parser.error(answers.before_command(words, at - 1, found, partial(_is_valid, top)))
        if name not in parser.options:
            parser.error(answers.unknown_option(top, parser, words, at - 1))
        if parser.takes_value(name) and not equals:
            if at == len(words) or _is_option_of(parser, words[at]):
                parser.error(f"{name} needs a value")
            equals, value, at = "=", words[at], at + 1
        options.append(name + equals + value)
    if parser.commands and parser is not top and not {"-h", "--help"} & {*options}:
        parser.error(f"name an action: {', '.join(parser.commands)}")
    return [*path, *options, *others]


def _is_option_of(parser: Parser, word: str) -> bool:
    return word == "--" or (is_option(word) and with_hyphens(word).partition("=")[0] in parser.options)


def _position_of_command(parser: Parser, words: list[str], start: int) -> int | None:
    """Where after `start` a command of the parser is named that no option takes as its value; None with --help."""
    if {"-h", "--help", "-V", "--version", "--"} & {*words[start:]}:
        return None
    is_value = [False, *(parser.takes_value(with_hyphens(word)) for word in words)]
    return next((i for i in range(start, len(words)) if words[i] in parser.commands and not is_value[i]), None)


def _is_valid(top: Parser, words: list[str]) -> bool:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            top.parse_args(arranged(top, words))
        except SystemExit:
            return False
    return True
