"""A setting's value <-> the text that a person types, and its bounds in a few characters."""

import json
import shlex
from typing import Any, Literal

from gpt2tui.preset.files import Setting
from gpt2tui.preset.layers import read_overrides
from gpt2tui.preset.settings import number_text

Kind = Literal["number", "choice", "switch", "text", "long text", "path", "list"]

LONG_TEXT = 10_000  # a text that may have so many characters may have lines
UNBOUNDED = 10**9  # what the schema says where only sense is the limit; not worth a column
PATHS = frozenset({"data.source"})


def kind(setting: Setting) -> Kind:
    """Which widget a setting is edited with."""
    if setting.choices:
        return "choice"
    if setting.type == "true or false":
        return "switch"
    if setting.type == "list of texts":
        return "list"
    if setting.type != "text":
        return "number"
    if setting.key in PATHS:
        return "path"
    return "long text" if setting.limits.get("maxLength", 0) >= LONG_TEXT else "text"


def read(setting: Setting, text: str) -> Any:
    """The value that a typed text stands for; None where an empty one leaves the setting out.

    What is not of the setting's type comes back as it was typed, for the validation to refuse.
    """
    match kind(setting):
        case "number":
            return _number(setting, text.strip())
        case "list":
            return [part.strip() for part in text.split(",") if part.strip()]
        case _:
            return text


def write(value: Any) -> str:
    """The text to edit a value with; `read` gives the value back, except for items of a list with a comma."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case list():
            return ", ".join(str(item) for item in value)
        case int() if abs(value) >= 10**40:  # Python refuses to print very long integers
            return "an integer of more than 40 digits"
        case _:
            return str(value)


def as_override(key: str, value: Any) -> str:
    """The setting as words of a shell: `--set optimizer.lr=0.001`; TOML has no word for a left-out one."""
    if value is None:
        return f"{key} is left out"
    if isinstance(value, str):
        layer, _ = read_overrides([f"{key}={value}"])
        plain = [placed.value for placed in layer.values()] == [value] and value == value.strip() != ""
        text = value if plain else json.dumps(value, ensure_ascii=False)
    elif isinstance(value, list):
        text = json.dumps(value, ensure_ascii=False)
    else:
        text = write(value)
    return f"--set {shlex.quote(f'{key}={text}')}"


def short_bounds(setting: Setting) -> str:
    """The bounds of a number as `1 to 1,024`, `≥ 0`, `0 to <1`, `>0 to 10`; empty for all other kinds."""
    if kind(setting) != "number":
        return ""
    above, below = "exclusiveMinimum" in setting.limits, "exclusiveMaximum" in setting.limits
    least = setting.limits.get("exclusiveMinimum" if above else "minimum")
    most = setting.limits.get("exclusiveMaximum" if below else "maximum")
    if least is None or most is None:
        return setting.bounds
    if most >= UNBOUNDED:
        return f"{'>' if above else '≥'} {number_text(least)}"
    return f"{'>' if above else ''}{number_text(least)} to {'<' if below else ''}{number_text(most)}"


def _number(setting: Setting, text: str) -> Any:
    if not text and setting.default is None:
        return None
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    return text
