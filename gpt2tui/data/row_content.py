"""What is read of a row of a table: a text, a prompt and its answer, or a conversation.

Each becomes one string, so that rows are split and compared in one way. That of a conversation is JSON: a list of
turns, each a prompt and its answer.
"""

import difflib
import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import Any

from gpt2tui.errors import DataError
from gpt2tui.preset.schema import DataTable
from gpt2tui.system.terminal_text import printable

Turn = tuple[str, str]
"""A prompt and its answer."""

PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("question", "answer"),
    ("input", "output"),
)
"""Names that columns of prompts and answers often have."""
CONVERSATIONS = ("messages", "conversations")
"""Names that columns of conversations often have."""
_ROLES = {"human": "user", "gpt": "assistant"}  # ShareGPT's
MOST_LISTED, LONGEST_NAME = 20, 40  # of columns in a message


class RowContent(ABC):
    """The columns that are read, and the string that a row becomes."""

    columns: tuple[str, ...]
    setting: str
    """The settings that name the columns."""
    are_texts = True
    """Whether the columns must hold text."""
    is_example = True
    """Whether a row is prompts and answers, not text."""
    lacking: str
    """Why a row is left out, worded to follow "rows are left out: "."""

    @abstractmethod
    def encode(self, values: Sequence[Any]) -> str | None:
        """The string of a row, from the values of its columns, None where one is missing; None: the row is left out.

        Raises ValueError for a value of another form, saying which.
        """


class TextColumn(RowContent):
    """A column of texts, each of which is a document."""

    setting = "data.text_column"
    is_example = False

    def __init__(self, column: str) -> None:
        self.columns = (column,)
        self.lacking = f"they have no text in column {column}"

    def encode(self, values: Sequence[Any]) -> str | None:
        """The text itself."""
        text: str | None = values[0]
        return text or None


class PromptColumns(RowContent):
    """A column of prompts and one of their answers."""

    setting = "data.prompt_column and data.completion_column"

    def __init__(self, prompt: str, completion: str) -> None:
        self.columns = (prompt, completion)
        self.lacking = f"they have no prompt in column {prompt} or no answer in column {completion}"

    def encode(self, values: Sequence[Any]) -> str | None:
        """One turn. A prompt may be empty, an answer may not."""
        prompt, completion = values
        return None if prompt is None or not (completion or "").strip() else _encoded([(prompt, completion)])


class MessagesColumn(RowContent):
    """A column of conversations: lists of {"role": ..., "content": ...}, or of ShareGPT's {"from": ..., "value": ...}.

    What the user says until the assistant answers is one prompt, and what a system message says is put before the next
    one, with an empty line between. In a file of text, as .csv, a conversation is JSON.
    """

    setting = "data.messages_column"
    are_texts = False

    def __init__(self, column: str) -> None:
        self.columns = (column,)
        self.lacking = f"the assistant answers nothing in column {column}"

    def encode(self, values: Sequence[Any]) -> str | None:
        """The turns in which the assistant answers."""
        messages = values[0]
        if isinstance(messages, str):
            try:
                messages = json.loads(messages)
            except (ValueError, RecursionError):
                raise ValueError('text that is not a list of {"role": ..., "content": ...}') from None
        if isinstance(messages, dict) and isinstance(messages.get("role"), list):  # a list for each key
            contents = messages.get("content")
            pairs = zip(messages["role"], contents if isinstance(contents, list) else [], strict=False)
            messages = [{"role": role, "content": content} for role, content in pairs]
        turns: list[Turn] = []
        asked: list[str] = []
        for role, content in map(_message, messages or ()):
            if role != "assistant":
                asked.append(content)
            elif content.strip():
                turns.append(("\n\n".join(asked), content))
                asked = []
        return _encoded(turns) if turns else None


def _message(message: Any) -> Turn:
    """The role and the content of a message."""
    if isinstance(message, dict) and {"from", "value"} <= message.keys():
        role = message["from"]
        message = {"role": _ROLES.get(role, role) if isinstance(role, str) else role, "content": message["value"]}
    if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
        form = (
            f"an object with {', '.join(map(str, message)) or 'nothing'}" if isinstance(message, dict) else "no object"
        )
        raise ValueError(f'a message that is {form[:200]}, not {{"role": ..., "content": ...}}')
    role, content = message["role"], message["content"]
    if role not in ("system", "user", "assistant"):
        raise ValueError(f"a message of the role {role!r:.100}; roles are system, user and assistant")
    if not isinstance(content, str | None):
        raise ValueError(f"a message whose content is {type(content).__name__}, not text")
    return role, content or ""


def _encoded(turns: Sequence[Turn]) -> str:
    cleaned = [[part.replace("\r\n", "\n") for part in turn] for turn in turns]
    return json.dumps(cleaned, ensure_ascii=False)


def decoded(text: str) -> list[Turn]:
    """The turns of a row that is prompts and answers."""
    return [(prompt, completion) for prompt, completion in json.loads(text)]


def row_content(table: DataTable) -> RowContent:
    """What a `[data]` table reads of each row."""
    if table.messages_column:
        return MessagesColumn(table.messages_column)
    if table.prompt_column and table.completion_column:
        return PromptColumns(table.prompt_column, table.completion_column)
    assert table.text_column
    return TextColumn(table.text_column)


def columns_of_examples(columns: Collection[str]) -> dict[str, str] | None:
    """The settings for prompts and answers in columns of the usual names, by name; None where there are none."""
    for prompt, completion in PAIRS:
        if prompt in columns and completion in columns:
            return {"prompt_column": prompt, "completion_column": completion}
    return next(({"messages_column": name} for name in CONVERSATIONS if name in columns), None)


def missing_column(where: str, column: str, content: RowContent, columns: Collection[str]) -> DataError:
    """The error for a table without one of the columns that are read."""
    nearest = difflib.get_close_matches(column, columns, n=1)
    examples = None if content.is_example else columns_of_examples(columns)
    if nearest:
        hint = f"; did you mean {nearest[0]}?"
    elif examples:
        hint = "; for prompts and answers set " + " and ".join(f"data.{key}={name}" for key, name in examples.items())
    elif any(len(name) > LONGEST_NAME or name.isdecimal() for name in columns):
        hint = (
            f"; these look like values: if the file has no header, write the names of its columns, such as {column}, "
            "into a new first line"
        )
    else:
        hint = f"; set {content.setting} to {'columns of it' if len(content.columns) > 1 else 'one of them'}"
    listed = ", ".join(printable(name, LONGEST_NAME) for name in list(columns)[:MOST_LISTED])
    more = f" and {len(columns) - MOST_LISTED} more" if len(columns) > MOST_LISTED else ""
    return DataError(f"{where} has no column {column}; it has {listed or 'none'}{more}{hint}")


def left_out_notice(name: str, content: RowContent, rows: int, left_out: int, where: str) -> str:
    """The sentence about rows that are left out; `where` names the first of them."""
    return f"{left_out:,} of {rows:,} rows of {name} are left out: {content.lacking} ({where})"
