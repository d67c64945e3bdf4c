"""Validates a layer of settings: returns the Preset, or every mistake with its place and a suggestion."""

import difflib
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gpt2tui.errors import Mistake, Place
from gpt2tui.preset.layers import LEFT_OUT, Key, Layer, prefixes, without_left_out
from gpt2tui.preset.schema import Preset
from gpt2tui.preset.settings import Setting, may_be_left_out, optional_tables, settings, tables
from gpt2tui.preset.starting_weights import with_starting_weights
from gpt2tui.system.files import is_utf8
from gpt2tui.system.terminal_text import LONGEST_VALUE, printable, printable_value

MAX_MISTAKES = 100

# The names of our settings in other GPT-2 programs, whose context length is that of the training sequences too.
_BOTH_LENGTHS = "model.n_positions and training.sequence_length"
_OTHER_NAMES = {
    "learning_rate": "optimizer.lr",
    "block_size": _BOTH_LENGTHS,
    "n_ctx": _BOTH_LENGTHS,
    "context_length": _BOTH_LENGTHS,
    "max_iters": "training.num_iterations",
    "max_steps": "training.num_iterations",
    "num_steps": "training.num_iterations",
    "steps": "training.num_iterations",
    "iters": "training.num_iterations",
    "warmup_iters": "schedule.warmup_iterations",
    "warmup_steps": "schedule.warmup_iterations",
    "eval_interval": "training.eval_frequency",
    "eval_iters": "training.eval_tokens",
    "eval_iterations": "training.eval_tokens",
    "gradient_accumulation_steps": "training.gradient_accumulation",
    "dtype": "training.precision",
    "dataset": "data.source",
}


def validate(
    layer: Layer, is_whole: bool = True, *, is_frozen: bool = False, weights: Path | None = None
) -> tuple[Preset | None, list[Mistake]]:
    """The preset of these settings, or None and all mistakes, in the order of files and lines.

    With `is_whole` false some settings are missing: each is validated alone, and not whether they fit together. Shape
    and tokenizer come from `model.init_from`, or from the folder `weights` that it means; a preset that `is_frozen` has
    them.
    """
    layer = without_left_out(layer)
    filled, contradicting = (layer, []) if is_frozen else with_starting_weights(layer, weights)
    preset, mistakes = _validate(filled, is_whole)
    if not contradicting:
        return preset, mistakes
    return None, sorted([*mistakes, *contradicting], key=lambda mistake: _reading_order(mistake.place))


def _validate(layer: Layer, is_whole: bool) -> tuple[Preset | None, list[Mistake]]:
    try:
        preset = Preset.model_validate(_nested(layer))
    except ValidationError as error:
        refused = error.errors(include_url=False, include_context=False)
    else:
        inconsistent = _inconsistencies(preset, layer, []) if is_whole else []
        return (None, inconsistent) if inconsistent else (preset, [])
    keys = [tuple(str(part) for part in found["loc"]) for found in refused]
    in_order = sorted(zip(keys, refused, strict=True), key=lambda pair: _reading_order(_place(layer, pair[0])))
    mistakes = [_mistake_at(layer, key, found["type"], found["input"]) for key, found in in_order[:MAX_MISTAKES]]
    wrong = [key for key, found in zip(keys, refused, strict=True) if found["type"] != "extra_forbidden"]
    if is_whole:
        mistakes += _inconsistencies(Preset.model_validate(_nested(_without(layer, keys))), layer, wrong)
    mistakes.sort(key=lambda mistake: _reading_order(mistake.place))
    unique = [mistake for at, mistake in enumerate(mistakes) if mistake not in mistakes[:at]]
    left_off = len(in_order) - MAX_MISTAKES
    return None, unique + ([Mistake(f"... and {left_off:,} more mistakes")] if left_off > 0 else [])


def _mistake_at(layer: Layer, location: Key, kind: str, value: Any) -> Mistake:
    """The mistake at a location in the schema; for an item of a list, the mistake is at the list."""
    place = _place(layer, location)
    if location[:2] == ("data", "mix") and len(location) > 2:
        return _mistake_in_mix(location, kind, value, place)
    if kind == "extra_forbidden":
        message, suggestion = _unknown_key(location, value)
        return Mistake(message, _dotted(_written_key(layer, location)), value, suggestion=suggestion, place=place)
    known = {setting.key: setting for setting in settings()}
    for length in range(len(location), 0, -1):
        setting = known.get(".".join(location[:length]))
        if setting:
            suggestion = _suggestion(setting, value)
            return Mistake(not_allowed(setting, value), setting.key, value, setting.allowed, suggestion, place)
    message = f"{printable_value(value)} is not a table: its settings go under [{_dotted(location)}]"
    return Mistake(message, _dotted(location), value, "a table", place=place)


def _mistake_in_mix(location: Key, kind: str, value: Any, place: Place) -> Mistake:
    """The mistake at a part of a source of the mix: ("data", "mix", its number from 0, its key)."""
    number, names = int(location[2]) + 1, location[3:]
    if not names:
        allowed = "a table with a source and a weight"
    else:
        allowed = "a number above 0 and at most 1,000,000" if names[0] == "weight" else "a text that names a corpus"
    if kind == "missing":
        return Mistake(f"source {number} of the mix names no corpus; write source = ...", "data.mix", place=place)
    if kind == "extra_forbidden":
        message, allowed = f"{_dotted(names)} of source {number}: there is no such key; it has source and weight", ""
    else:
        message = f"{printable_value(value)}{f' as {names[0]} of' if names else ' as'} source {number} is not {allowed}"
    return Mistake(message, "data.mix", value, allowed, place=place)


def not_allowed(setting: Setting, value: Any) -> str:
    """What is said of a value that a setting does not allow; a long text is not repeated."""
    shown = printable_value(value)
    if isinstance(value, str) and len(value) > LONGEST_VALUE:
        shown = f"a text of {len(value):,} characters"
    elif isinstance(value, str) and not is_utf8(value):
        shown += " (which is not UTF-8)"
    return f"{shown} is not {setting.allowed}"


def _suggestion(setting: Setting, value: Any) -> str:
    """How to write the value that was probably meant; empty when that is not clear."""
    if setting.key in may_be_left_out() and str(value).lower() in ("", "none", "null", "default"):
        return f'write "{LEFT_OUT}" to leave it out'
    if setting.choices:
        near = difflib.get_close_matches(str(value).lower()[:100], setting.choices, n=1, cutoff=0.4)
        return f'did you mean "{near[0]}"?' if near else ""
    if isinstance(value, str) and value.lower() in ("true", "false") and setting.type == "true or false":
        return f"write {value.lower()} without quotes and in small letters"
    if isinstance(value, str) and "number" in setting.type and re.fullmatch(r"[-+]?[\d_.]+([eE][-+]?\d+)?", value):
        return f"write {value} without quotes"
    if isinstance(value, float) and setting.type == "whole number" and value.is_integer() and abs(value) < 1e15:
        return f"did you mean {int(value)}?"
    if setting.type == "text":
        return f'write a text in quotes: "{printable_value(value)}"' if isinstance(value, (int, float)) else ""
    return ""


def _unknown_key(location: Key, value: Any) -> tuple[str, str]:
    """A message about an unknown key, and the nearest known keys, else all keys of its table."""
    if isinstance(value, dict) and len(location) == 1:
        near = difflib.get_close_matches(location[0][:100], tables(), n=1)
        hint = f"did you mean [{near[0]}]?" if near else f"the tables are {', '.join(tables())}"
        return f"there is no table [{_dotted(location)}]", hint
    near = nearest_settings(location)
    if near:
        hint = f"did you mean {' or '.join(near)}?"
    elif location[-1] == "extends":
        hint = "write extends at the top of a preset file, above the first table"
    else:
        prefix = f"{location[0]}." if location[0] in tables() else ""
        names = [setting.key for setting in settings() if setting.key.startswith(prefix)]
        hint = f"the settings are {', '.join(names)}"
    return f"{printable_value(value)}: there is no such setting", hint


def nearest_settings(location: Key) -> list[str]:
    """The settings that were probably meant by an unknown key; "A and B" where another program has one for both."""
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


def _inconsistencies(preset: Preset, layer: Layer, wrong: list[Key]) -> list[Mistake]:
    """The settings that do not fit each other: each mistake has the place of its key and those of its partners.

    Inconsistencies with a key in `wrong` are left out, because its value here is only the default. A key that was
    not set takes the place of its partner.
    """
    mistakes = []
    for found in preset.inconsistencies():
        key, *partners = (tuple(name.split(".")) for name in (found.key, *found.partners))
        if any(bad == involved[: len(bad)] for bad in wrong for involved in (key, *partners)):
            continue
        set_partners = [partner for partner in partners if partner in layer]
        message = found.message
        if key not in layer and set_partners:
            message = f"{found.key}, left at its default: {message}"
            key = set_partners.pop()
        value = layer[key].value if key in layer else None
        places = tuple((_dotted(partner), layer[partner].place) for partner in set_partners)
        mistakes.append(Mistake(message, _dotted(key), value, place=_place(layer, key), partners=places))
    return mistakes


def _place(layer: Layer, key: Key) -> Place:
    """Where the key was set; for a table, the place of its first setting."""
    found = _written_key(layer, key)
    return layer[found].place if found in layer else Place("preset")


def _written_key(layer: Layer, key: Key) -> Key:
    """The key as it was written: itself, or a table above it that has a value, or the first setting below it."""
    below = (other for other in layer if other[: len(key)] == key)
    return next((part for part in (key, *reversed(prefixes(key))) if part in layer), next(below, key))


def _without(layer: Layer, refused: list[Key]) -> Layer:
    """The settings without those that were refused, themselves or with their table."""
    bad = set(refused)
    with_items = bad | {key[:2] for key in refused}  # a wrong item of a list makes the whole list wrong
    return {key: sourced for key, sourced in layer.items() if not with_items & {key, *prefixes(key)}}


def _nested(layer: Layer) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, sourced in layer.items():
        if ".".join(key) in optional_tables() and isinstance(sourced.value, bool):
            if sourced.value:
                nested.setdefault(key[0], {})
            continue
        table = nested
        for name in key[:-1]:
            table = table.setdefault(name, {})
        table[key[-1]] = sourced.value
    return nested


def _dotted(key: Key) -> str:
    return printable(".".join(key), 200)


def _reading_order(place: Place | None) -> tuple[str, int]:
    return (place.source, place.line or 0) if place else ("", 0)
