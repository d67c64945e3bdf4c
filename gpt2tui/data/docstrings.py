"""The embedded prompts and answers: functions of the standard library and what their docstrings say of them."""

import ast
from collections.abc import Iterator
from functools import cache

from gpt2tui.data.corpus import Corpus, Position, Split, digest
from gpt2tui.data.python_stdlib import open_stdlib
from gpt2tui.data.row_content import PAIRS, missing_column, row_content
from gpt2tui.data.rows import RowCorpus, RowSource
from gpt2tui.errors import DataError
from gpt2tui.preset.schema import DataTable

NAME = "python-docstrings"
COLUMNS = PAIRS[0]
LONGEST_PROMPT, LONGEST_ANSWER = 200, 300  # characters


def open_docstrings(table: DataTable) -> Corpus:
    """The first paragraph of each docstring, as the answer to the function's first line.

    The files are those of python-stdlib, and so is their split: a model that was trained on that text has not seen the
    validation and test answers. Raises DataError for other columns than prompt and completion.
    """
    return RowCorpus(Docstrings(table), table.validation_fraction, table.streaming)


class Docstrings(RowSource):
    """A row for each function with a docstring."""

    name = NAME
    has_validation = has_test = True

    def __init__(self, table: DataTable) -> None:
        self.content = row_content(table)
        for column in self.content.columns:
            if column not in COLUMNS:
                raise missing_column(NAME, column, self.content, COLUMNS)
        self._stdlib = open_stdlib(DataTable(validation_fraction=table.validation_fraction))
        self.fingerprint = digest(NAME, self._stdlib.fingerprint)
        self._rows_of = cache(self._read)

    def rows(self, split: Split, start: Position = None) -> Iterator[tuple[str, Position]]:
        """A position is a row's number."""
        for number, row in enumerate(self._rows_of(split), 1):
            if number > (start or 0):
                values = [row[COLUMNS.index(column)] for column in self.content.columns]
                yield self.content.encode(values) or "", number

    def _read(self, split: Split) -> list[tuple[str, str]]:
        rows: list[tuple[str, str]] = []
        for source in self._stdlib.documents(split):
            try:
                tree = ast.parse(source)
            except (SyntaxError, ValueError, RecursionError) as error:
                raise DataError(f"the standard library has a file that is not Python ({error})") from error
            rows += filter(None, map(_row, _functions(tree)))
        return rows


def _functions(parent: ast.AST) -> Iterator[ast.FunctionDef]:
    """The functions and methods below a node, in their order."""
    for node in getattr(parent, "body", ()):
        if isinstance(node, ast.FunctionDef):
            yield node
        yield from _functions(node)


def _row(function: ast.FunctionDef) -> tuple[str, str] | None:
    """The function's first line and the first paragraph of its docstring; None where one is missing or long."""
    paragraph = (ast.get_docstring(function) or "").partition("\n\n")[0]
    answer = " ".join(paragraph.split())
    prompt = f"def {function.name}({ast.unparse(function.args)}):"
    return (prompt, answer) if answer and len(prompt) <= LONGEST_PROMPT and len(answer) <= LONGEST_ANSWER else None
