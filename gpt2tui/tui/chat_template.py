"""A conversation as one text, for who wants to pretend that a base model was taught to answer."""

from collections.abc import Sequence

USER = "User: "
MODEL = "\nAssistant:"
STOP = "\nUser:"
"""Where the model begins to speak for the person, its turn is over."""


def turn(prompt: str) -> str:
    """What is put around one prompt."""
    return f"{USER}{prompt}{MODEL}"


def conversation(history: Sequence[tuple[str, str]], prompt: str) -> str:
    """The text to continue: earlier prompts with what the model made of them, then this one."""
    return "".join(f"{turn(asked)}{spoken(answered)}\n" for asked, answered in history) + turn(prompt)


def spoken(written: str) -> str:
    """What the model wrote before it began to speak for the person."""
    return written.partition(STOP)[0].rstrip()
