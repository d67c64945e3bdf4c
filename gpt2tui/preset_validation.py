"""Settings with places -> a Preset, or every mistake in them: where, what is allowed, what was meant."""

import difflib
import re
from typing import Any

from pydantic import ValidationError

from gpt2tui.preset import Preset
from gpt2tui.preset_layers import Key, Layer, Placed, prefixes
from gpt2tui.preset_settings import Setting, settings, tables
from gpt2tui.printable import printable, printable_value

MOST_MISTAKES = 100

# What other programs for GPT-2 call our settings.
_OTHER_NAMES = {
    "learning_rate": "optimizer.lr",
    "block_size": "model.n_positions",
    "n_ctx": "model.n_positions",
    "context_length": "model.n_positions",
    "max_iters": "training.num_iterations",
    "max_steps": "training.num_iterations",
    "warmup_iters": "schedule.warmup_iterations",
    "warmup_steps": "schedule.warmup_iterations",
    "eval_interval": "training.eval_frequency",
    "eval_iters": "training.eval_iterations",
    "gradient_accumulation_steps": "training.gradient_accumulation",
    "dtype": "training.precision",
    "dataset": "data.source",
}


def validate(layer: Layer, is_whole: bool = True) -> tuple[Preset | None, list[str]]:
    """The preset of these settings, or None and a line for each mistake, in the order of files and lines.

    Of settings that are not the whole, each is judged by itself and not whether they fit together.
    """
    try:
        preset = Preset.model_validate(_nested(layer))
    except ValidationError as error:
        refused = error.errors(include_url=False, include_context=False)
    else:
        unsound = [message for _, message in _inconsistencies(preset, layer, [])] if is_whole else []
        return (None, unsound) if unsound else (preset, [])
    keys = [tuple(str(part) for part in found["loc"]) for found in refused]
    placed = sorted(zip(keys, refused, strict=True), key=lambda pair: _reading_order(_place(layer, pair[0])))
    mistakes: list[tuple[Placed, str]] = []
    for key, found in placed[:MOST_MISTAKES]:
        place, (named, message) = _place(layer, key), _explain(key, found["type"], found["input"])
        named = _as_set(layer, named) if found["type"] == "extra_forbidden" else named
        mistakes.append((place, f"{place.named(_dotted(named))}: {message}"))
    wrong = [key for key, found in zip(keys, refused, strict=True) if found["type"] != "extra_forbidden"]
    if is_whole:
        mistakes += _inconsistencies(Preset.model_validate(_nested(_without(layer, keys))), layer, wrong)
    lines = list(dict.fromkeys(line for _, line in sorted(mistakes, key=lambda pair: _reading_order(pair[0]))))
    left_off = len(placed) - MOST_MISTAKES
    return None, lines + ([f"... and {left_off:,} more mistakes"] if left_off > 0 else [])


def _explain(location: Key, kind: str, value: Any) -> tuple[Key, str]:
    """The key that is wrong, which for an item of a list is the list, and what is wrong with it."""
    if kind == "extra_forbidden":
        return location, _unknown(location, value)
    known = {setting.key: setting for setting in settings()}
    for length in range(len(location), 0, -1):
        setting = known.get(".".join(location[:length]))
        if setting:
            return location[:length], _unfit(setting, value)
    return location, f"{printable_value(value)} is not a table: its settings go under [{_dotted(location)}]"


def _unfit(setting: Setting, value: Any) -> str:
    if setting.key == "training.device" and isinstance(value, str):  # its pattern is not for people
        return f'{printable_value(value)} is not a device: "auto", "cpu", "mps", "cuda" or "cuda:" and a number'
    shown = (
        f"a text of {len(value):,} characters" if isinstance(value, str) and len(value) > 60 else printable_value(value)
    )
    return f"{shown} is not {setting.allowed}{_way_out(setting, value)}"


def _way_out(setting: Setting, value: Any) -> str:
    """How the value was probably meant; empty when that cannot be told."""
    if setting.choices:
        near = difflib.get_close_matches(str(value).lower()[:100], setting.choices, n=1, cutoff=0.4)
        return f'; did you mean "{near[0]}"?' if near else ""
    if isinstance(value, str) and value.lower() in ("true", "false") and setting.type == "true or false":
        return f"; write {value.lower()} without quotes and in small letters"
    if isinstance(value, str) and "number" in setting.type and re.fullmatch(r"[-+]?[\d_.]+([eE][-+]?\d+)?", value):
        return f"; write {value} without quotes"
    if isinstance(value, float) and setting.type == "whole number" and value.is_integer() and abs(value) < 1e15:
        return f"; did you mean {int(value)}?"
    if setting.type == "text":
        return f'; a text stands in quotes: "{printable_value(value)}"' if isinstance(value, (int, float)) else ""
    return ""


def _unknown(location: Key, value: Any) -> str:
    """An unknown key: the nearest known ones, else all that its table has."""
    if isinstance(value, dict) and len(location) == 1:
        near = difflib.get_close_matches(location[0][:100], tables(), n=1)
        hint = f"did you mean [{near[0]}]?" if near else f"the tables are {', '.join(tables())}"
        return f"there is no table [{_dotted(location)}]; {hint}"
    near = _nearest_settings(location)
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    elif location[-1] == "extends":
        hint = "extends stands at the top of a preset file, above the first table"
    else:
        prefix = f"{location[0]}." if location[0] in tables() else ""
        names = [setting.key for setting in settings() if setting.key.startswith(prefix)]
        hint = f"the settings are {', '.join(names)}"
    return f"{printable_value(value)}: there is no such setting; {hint}"


def _nearest_settings(location: Key) -> list[str]:
    keys = [setting.key for setting in settings()]
    leaf, dotted = location[-1][:100], ".".join(location)[:200]
    if leaf in _OTHER_NAMES:
        return [_OTHER_NAMES[leaf]]
    same_leaf = [key for key in keys if key.rpartition(".")[2] == leaf]
    if same_leaf:
        return same_leaf
    siblings = [key for key in keys if key.rpartition(".")[0] == ".".join(location[:-1])]
    leaves = {key.rpartition(".")[2]: key for key in keys}
    near = difflib.get_close_matches(leaf, [key.rpartition(".")[2] for key in siblings], n=1, cutoff=0.6)
    if near:
        return [key for key in siblings if key.rpartition(".")[2] == near[0]]
    near = difflib.get_close_matches(leaf, leaves, n=1, cutoff=0.7)
    return [leaves[near[0]]] if near else difflib.get_close_matches(dotted, keys, n=1, cutoff=0.75)


def _inconsistencies(preset: Preset, layer: Layer, wrong: list[Key]) -> list[tuple[Placed, str]]:
    """What does not fit together: where the key was last set, and a line that also says who set its partners.

    A partner is a setting that the message names. What involves a setting of `wrong` is left out: a default
    stands in for that one, which nobody chose. A key that nobody set is laid at its partner's door.
    """
    found = []
    for dotted, message in preset.inconsistencies():
        key = tuple(dotted.split("."))
        if any(bad == key[: len(bad)] or _mentions(message, bad) for bad in wrong):
            continue
        partners = [other for other in layer if other != key and _names(message, other, key)]
        if key in layer:
            by = "; ".join(f"{layer[partner].where} sets {_dotted(partner)}" for partner in partners)
            line = f"{layer[key].named(dotted)}: {message}" + (f" ({by})" if by else "")
        else:
            setter = partners[-1] if partners else key
            line = f"{_place(layer, setter).named(_dotted(setter))}: {dotted}, left at its default: {message}"
        found.append((_place(layer, key, *partners), line))
    return found


def _names(message: str, setting: Key, key: Key) -> bool:
    """Whether the message about `key` names the setting: in full, or by its last part in the same table."""
    names = [".".join(setting)] + ([setting[-1]] if setting[:-1] == key[:-1] else [])
    return any(re.search(rf"(?<![\w.]){re.escape(name)}\b", message) for name in names)


def _mentions(message: str, wrong: Key) -> bool:
    """Whether the message might depend on a wrong setting, or on one of a wrong table; if in doubt, yes."""
    word = rf"\b{re.escape(wrong[0])}\." if len(wrong) == 1 else rf"\b{re.escape(wrong[1])}\b"
    return bool(re.search(word, message))


def _place(layer: Layer, *keys: Key) -> Placed:
    """Where the first of the keys that was set at all was set; a table where its first setting was."""
    return next((layer[found] for key in keys if (found := _as_set(layer, key)) in layer), Placed(None, "preset"))


def _as_set(layer: Layer, key: Key) -> Key:
    """The key as it was set: itself, or a table of it that was given a value, or the first setting in it."""
    below = (other for other in layer if other[: len(key)] == key)
    return next((part for part in (key, *reversed(prefixes(key))) if part in layer), next(below, key))


def _without(layer: Layer, refused: list[Key]) -> Layer:
    """The settings that were not refused, neither themselves nor with their table."""
    bad = set(refused)
    with_items = bad | {key[:2] for key in refused}  # a wrong item of a list makes the list wrong
    return {key: placed for key, placed in layer.items() if not with_items & {key, *prefixes(key)}}


def _nested(layer: Layer) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, placed in layer.items():
        table = nested
        for name in key[:-1]:
            table = table.setdefault(name, {})
        table[key[-1]] = placed.value
    return nested


def _dotted(key: Key) -> str:
    return printable(".".join(key), 200)


def _reading_order(placed: Placed) -> tuple[str, int]:
    return placed.source, placed.line or 0
