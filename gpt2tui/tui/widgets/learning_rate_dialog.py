"""Asks for a factor on the learning-rate schedule."""

import math

from gpt2tui.tui.train.numbers import scientific
from gpt2tui.tui.train.view import RunView
from gpt2tui.tui.widgets.dialogs import TextDialog

LARGEST_FACTOR = 100.0


class LearningRateDialog(TextDialog):
    """Returns a text that `float` reads as more than 0 and at most LARGEST_FACTOR, None on escape."""

    def __init__(self, view: RunView) -> None:
        step = view.history.step
        now = f"The last step trained at {scientific(step.learning_rate)}. " if step else ""
        text = f"{now}The schedule is multiplied from the next step on by (1: the preset's own):"
        super().__init__("Learning rate", text, f"{view.history.learning_rate_factor:g}", validate=_mistake)


def _mistake(text: str) -> str | None:
    try:
        factor = float(text)
    except ValueError:
        return "a number, such as 0.5"
    good = math.isfinite(factor) and 0 < factor <= LARGEST_FACTOR
    return None if good else f"more than 0, at most {LARGEST_FACTOR:g}"
