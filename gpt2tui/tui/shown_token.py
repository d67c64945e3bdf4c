"""Tokens as the screen shows them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ShownRival:
    """A token that could have stood there, and the model's own probability for it."""

    text: str
    probability: float


@dataclass(frozen=True)
class ShownToken:
    """A token on the screen; `probability` is None for what the model was given, such as the prompt."""

    text: str
    probability: float | None = None
    rivals: tuple[ShownRival, ...] = ()
