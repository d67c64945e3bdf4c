"""The failures that are expected, each with the exit code of the command line's contract.

Whatever is raised as a `Gpt2TuiError` is shown as one message without a traceback; everything else is a bug.
A message says what happened, where, and what to do about it.
"""


class Gpt2TuiError(Exception):
    """An expected failure: its text is for people, `exit_code` for scripts."""

    exit_code = 1


class UsageError(Gpt2TuiError):
    """The command line asks for something that does not exist or does not fit together."""

    exit_code = 2


class PresetError(UsageError):
    """A preset, or an override of one, is wrong. All mistakes are in the one message, a line each."""


class DataError(Gpt2TuiError):
    """The corpus is missing, empty, too short, unreadable or out of reach."""

    exit_code = 3


class CheckpointError(Gpt2TuiError):
    """A checkpoint is missing, damaged, of another version, or does not fit the preset."""

    exit_code = 4


class DivergedError(Gpt2TuiError):
    """The loss is no longer a number."""

    exit_code = 5


class ResourceError(Gpt2TuiError):
    """Memory, disk or a device is exhausted or absent."""

    exit_code = 6


class RunLockedError(Gpt2TuiError):
    """Another process holds the run folder."""

    exit_code = 75


def first_line(error: BaseException) -> str:
    """What an error says, without what follows its first line; empty when it says nothing."""
    return next(iter(str(error).strip().splitlines()), "")
