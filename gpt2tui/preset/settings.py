"""A list of all settings, derived from the schema, for the form, `presets keys`, messages and the JSON schema."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from gpt2tui.preset.schema import Preset

_TYPES = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "array": "list of texts",
}

LIST_OF_SOURCES = "list of sources"
"""The type of data.mix: a list of tables, each with a source and a weight."""

_LIMITS = {
    "exclusiveMinimum": "above",
    "minimum": "at least",
    "exclusiveMaximum": "below",
    "maximum": "at most",
    "minLength": "at least",
    "minItems": "at least",
    "maxLength": "at most",
    "maxItems": "at most",
}


Values = Mapping[str, Any]
"""The value of every setting by dotted key; None where it is left out, as all settings of an absent table."""


@dataclass(frozen=True)
class Setting:
    """One setting of the schema. `default` is None where it may be left out."""

    key: str
    type: str
    default: Any
    bounds: str
    unit: str
    choices: tuple[str, ...]
    help: str
    limits: Mapping[str, float] = field(default_factory=dict)
    """The bounds as JSON Schema has them: `minimum`, `exclusiveMaximum`, `maxLength` and so on."""
    is_table: bool = False
    """Whether this is the switch of an optional table. The table's settings have their defaults while it is on."""

    @property
    def table(self) -> str:
        """The table of the setting, or the table that it switches; empty at the top of a file."""
        return self.key if self.is_table else self.key.rpartition(".")[0]

    @property
    def allowed(self) -> str:
        """What a value must be, worded to follow "is not"."""
        if self.key == "training.device":  # instead of its regular expression
            return '"auto", "cpu", "mps", "cuda" or "cuda:" and a number'
        if self.is_table:
            return "a table, or true or false"
        if self.choices:
            quoted = [f'"{choice}"' for choice in self.choices]
            return f"{', '.join(quoted[:-1])} or {quoted[-1]}"
        article = "" if self.type == "true or false" else "a "
        joint = "" if not self.bounds else " of " if self.bounds.startswith("at ") else " "
        unit = f" ({self.unit})" if self.unit else ""
        return f"{article}{self.type}{joint}{self.bounds}{unit}"


@cache
def settings() -> tuple[Setting, ...]:
    """Every setting of a preset in the order of the schema, with dotted keys."""
    schema = _schema()
    return tuple(_walk(schema, schema, ""))


@cache
def tables() -> tuple[str, ...]:
    """The names of a preset's tables."""
    return tuple(dict.fromkeys(setting.table for setting in settings() if setting.table))


@cache
def optional_tables() -> frozenset[str]:
    """The names of the tables that a preset may leave out."""
    return frozenset(setting.key for setting in settings() if setting.is_table)


@cache
def may_be_left_out() -> frozenset[str]:
    """The keys of the settings that are filled in where they are left out; "auto" leaves out what a base sets."""
    without_default = {setting.key for setting in settings() if setting.default is None and not setting.is_table}
    return frozenset(without_default | {"training.sequence_length"})


def flat(preset: Preset) -> dict[str, Any]:
    """The value of every setting by dotted key, in the schema's order; None for all of an absent optional table."""
    values: dict[str, Any] = {}
    for setting in settings():
        table, _, name = setting.key.rpartition(".")
        owner = getattr(preset, table) if table else preset
        value = getattr(owner, name) if owner is not None else None
        if setting.type == LIST_OF_SOURCES and value is not None:
            value = [each.model_dump() for each in value]
        values[setting.key] = value is not None if setting.is_table else value
    return values


def defaults() -> dict[str, Any]:
    """The schema's default of every setting, as `flat` returns it."""
    return flat(Preset())


def with_table(values: Values, table: str, is_there: bool) -> dict[str, Any]:
    """The values of all settings with an optional table switched on, with its defaults, or off."""
    table_defaults = {setting.key: setting.default for setting in settings() if setting.key.startswith(f"{table}.")}
    return {**values, table: is_there, **{key: value if is_there else None for key, value in table_defaults.items()}}


def json_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a preset file, for editors with TOML completion and validation."""
    schema = _schema()
    for key in may_be_left_out():
        table, _, name = key.rpartition(".")
        owner = schema
        if table:
            reference = schema["properties"][table]
            reference = reference["anyOf"][0] if "anyOf" in reference else reference
            owner = schema["$defs"][reference["$ref"].rpartition("/")[2]]
        described = owner["properties"][name]
        about = {word: described.pop(word) for word in ("title", "description", "default", "unit") if word in described}
        owner["properties"][name] = {**about, "anyOf": [described, {"const": "auto"}]}
    return schema


def _schema() -> dict[str, Any]:
    """The JSON schema without "auto" for settings that may be left out."""
    schema = Preset.model_json_schema()
    for table in (schema, *schema["$defs"].values()):
        table["description"] = _one_line(table.get("description", ""))
        for name, described in table["properties"].items():
            table["properties"][name] = _property(described)
    extends = {
        "type": "string",
        "minLength": 1,
        "title": "Extends",
        "description": "The preset to build on: a name, or a path relative to this file.",
    }
    schema["properties"] = {"extends": extends, **schema["properties"]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "gpt2tui preset"}


def _property(described: dict[str, Any]) -> dict[str, Any]:
    """A property of the JSON schema without null, which TOML does not have: a setting that may be left out gets no
    default. An optional table may also be `true` (on, with its defaults) or `false` (off, although a base has it).
    """
    found = {key: value for key, value in described.items() if key != "anyOf"}
    for alternative in described.get("anyOf", []):
        if "$ref" in alternative:
            found["anyOf"] = [alternative, {"type": "boolean"}]
        elif alternative != {"type": "null"}:
            found = {**alternative, **found}
    if found.get("default", ...) is None or "$ref" in found:
        found.pop("default", None)
    if "description" in found:
        found["description"] = _one_line(found["description"])
    return found


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _walk(schema: dict[str, Any], table: dict[str, Any], prefix: str) -> Iterator[Setting]:
    for name, described in table["properties"].items():
        key = f"{prefix}{name}"
        if key == "extends":
            continue
        reference = described["anyOf"][0] if "anyOf" in described else described
        if "$ref" in reference:
            below = schema["$defs"][reference["$ref"].rpartition("/")[2]]
            if reference is not described:
                yield Setting(key, _TYPES["boolean"], False, "", "", (), below["description"], is_table=True)
            yield from _walk(schema, below, f"{key}.")
        else:
            yield Setting(
                key=key,
                type=LIST_OF_SOURCES if "$ref" in described.get("items", {}) else _TYPES[described["type"]],
                default=described.get("default"),
                bounds=_bounds(described),
                limits={word: described[word] for word in _LIMITS if word in described},
                unit=described.get("unit", ""),
                choices=tuple(described.get("enum", ())),
                help=described.get("description", ""),
            )


def _bounds(described: dict[str, Any]) -> str:
    """The bounds of a number, or of the length of a text or a list, in words."""
    least, most = described.get("minimum"), described.get("maximum")
    if least is not None and most is not None:
        return f"from {number_text(least)} to {number_text(most)}"
    limits = [f"{words} {number_text(described[name])}" for name, words in _LIMITS.items() if name in described]
    of_what = {"string": " characters", "array": " entries"}.get(described["type"], "") if limits else ""
    return " and ".join(limits) + of_what


def number_text(value: float) -> str:
    """A bound with commas between thousands."""
    return f"{int(value):,}" if value == int(value) else f"{value:,}"


@dataclass(frozen=True)
class Difference:
    """A setting whose values in two presets differ; None where one leaves it out."""

    key: str
    left: Any
    right: Any


def differences(left: Values, right: Values) -> list[Difference]:
    """The settings whose values differ, in the order of the schema."""
    return [Difference(key, left[key], right[key]) for key in left if left[key] != right[key]]


def preset_differences(left: Preset, right: Preset) -> list[Difference]:
    """The settings whose values in two presets differ, in the order of the schema."""
    return differences(flat(left), flat(right))
