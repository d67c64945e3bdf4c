"""The expected failures, each with its exit code.

A `Gpt2TuiError` is shown as one message without a traceback; any other exception is a bug.
A message says what happened, where, and what to do about it.
"""

from dataclasses import dataclass
from typing import Any


class Gpt2TuiError(Exception):
    """An expected failure: its text is for the user, `exit_code` for scripts."""

    exit_code = 1


class UsageError(Gpt2TuiError):
    """The command line asks for something that does not exist or does not fit together."""

    exit_code = 2


@dataclass(frozen=True)
class Place:
    """Where a setting was written: a file and a line in it. Without a line: a whole file, `--set` or the form."""

    source: str
    line: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong with a preset, in parts for programs; `str()` is the line for the user."""

    message: str
    """What is wrong, with the value and what is allowed instead."""
    key: str = ""
    """The dotted key as it was written; empty where a file as a whole is wrong."""
    value: Any = None
    allowed: str = ""
    """What the value must be; empty where the mistake is not about one value."""
    suggestion: str = ""
    """What was probably meant, or what to do; empty when neither is known."""
    place: Place | None = None
    partners: tuple[tuple[str, Place], ...] = ()
    """The other settings that the value is inconsistent with, and where they were written."""

    @property
    def text(self) -> str:
        """The message and the suggestion, for display beside the key and its place."""
        return f"{self.message}; {self.suggestion}" if self.suggestion else self.message

    def __str__(self) -> str:
        place = "" if self.place is None else str(self.place)
        between = ":" if self.place and self.place.line else " "
        start = between.join(part for part in (place, self.key) if part)
        partners = "; ".join(f"{place} sets {key}" for key, place in self.partners)
        return (f"{start}: " if start else "") + self.text + (f" ({partners})" if partners else "")


class PresetError(UsageError):
    """A preset or an override is wrong. The message has one line for each mistake."""

    def __init__(self, *mistakes: Mistake | str) -> None:
        self.mistakes = tuple(Mistake(found) if isinstance(found, str) else found for found in mistakes)
        super().__init__("\n".join(map(str, self.mistakes)))


class DataError(Gpt2TuiError):
    """The corpus is missing, empty, too short, unreadable or cannot be downloaded."""

    exit_code = 3


class CheckpointError(Gpt2TuiError):
    """A checkpoint is missing, damaged, of another version, or does not fit the preset."""

    exit_code = 4


class DivergedError(Gpt2TuiError):
    """The loss is no longer a number.

    `last_good_step` is the step of the newest checkpoint from before the loss rose, None where there is none.
    """

    exit_code = 5

    def __init__(self, message: str, last_good_step: int | None = None) -> None:
        super().__init__(message)
        self.last_good_step = last_good_step


class ResourceError(Gpt2TuiError):
    """Memory, disk or a device is exhausted or absent."""

    exit_code = 6


class DoesNotFitError(ResourceError):
    """A run needs more memory or disk than is free, or almost as much (`close`); it has not begun."""

    def __init__(self, message: str, *, close: bool) -> None:
        super().__init__(message)
        self.close = close


class RunLockedError(Gpt2TuiError):
    """Another process has locked the run folder."""

    exit_code = 75


OUT_OF_THREADS = "the system starts no more threads; end other programs, or allow this user or container more processes"


def is_out_of_threads(error: BaseException) -> bool:
    """Whether no thread could be started: a limit on processes, as containers have, or a Python that is ending."""
    refused = ("can't start new thread", "can't create new thread")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in refused)


def first_line(error: BaseException) -> str:
    """The first line of an error's message; empty when it has none."""
    return next(iter(str(error).strip().splitlines()), "")
