"""The settings of the schema, one by one: for the form, `--help`, messages and the JSON schema of editors."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from pydantic import BaseModel

from gpt2tui.preset import Preset

_TYPES = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "true or false",
    "array": "list of texts",
}


@dataclass(frozen=True)
class Setting:
    """One setting as the schema has it. `default` is None where leaving it out has a meaning of its own."""

    key: str
    type: str
    default: Any
    bounds: str
    unit: str
    choices: tuple[str, ...]
    help: str

    @property
    def allowed(self) -> str:
        """What a value must be, to go after "is not"."""
        if self.choices:
            quoted = [f'"{choice}"' for choice in self.choices]
            return f"{', '.join(quoted[:-1])} or {quoted[-1]}"
        article = "" if self.type == "true or false" else "a "
        comma = "" if not self.bounds else " " if self.bounds.startswith("from") else ", "
        unit = f" ({self.unit})" if self.unit else ""
        return f"{article}{self.type}{comma}{self.bounds}{unit}"


@cache
def settings() -> tuple[Setting, ...]:
    """Every setting of a preset in the order of the schema, with dotted keys."""
    schema = json_schema()
    return tuple(_walk(schema, schema, ""))


@cache
def tables() -> tuple[str, ...]:
    """The names of a preset's tables."""
    return tuple(
        name
        for name, field in Preset.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    )


def json_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a preset file, for editors that complete and check TOML."""
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
    """TOML has no null: a setting that may be left out has the type it has when present, and no default."""
    flat = {key: value for key, value in described.items() if key != "anyOf"}
    for alternative in described.get("anyOf", []):
        if alternative != {"type": "null"}:
            flat = {**alternative, **flat}
    if flat.get("default", ...) is None or "$ref" in flat:
        flat.pop("default", None)
    if "description" in flat:
        flat["description"] = _one_line(flat["description"])
    return flat


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _walk(schema: dict[str, Any], table: dict[str, Any], prefix: str) -> Iterator[Setting]:
    for name, described in table["properties"].items():
        key = f"{prefix}{name}"
        if key == "extends":
            continue
        if "$ref" in described:
            yield from _walk(schema, schema["$defs"][described["$ref"].rpartition("/")[2]], f"{key}.")
        else:
            yield Setting(
                key=key,
                type=_TYPES[described["type"]],
                default=described.get("default"),
                bounds=_bounds(described),
                unit=described.get("unit", ""),
                choices=tuple(described.get("enum", ())),
                help=described.get("description", ""),
            )


def _bounds(described: dict[str, Any]) -> str:
    """The bounds in words: of a number, or of the length of a text or a list."""
    least, most = described.get("minimum"), described.get("maximum")
    if least is not None and most is not None:
        return f"from {_number(least)} to {_number(most)}"
    words = {
        "exclusiveMinimum": "above",
        "minimum": "at least",
        "exclusiveMaximum": "below",
        "maximum": "at most",
    }
    lengths = {"minLength": "at least", "minItems": "at least", "maxLength": "at most", "maxItems": "at most"}
    limits = [f"{word} {_number(described[name])}" for name, word in words.items() if name in described]
    sizes = [f"{word} {_number(described[name])}" for name, word in lengths.items() if name in described]
    of_what = " characters" if sizes and described["type"] == "string" else " of them" if sizes else ""
    return " and ".join(limits or sizes) + of_what


def _number(value: float) -> str:
    return f"{int(value):,}" if value == int(value) else f"{value:,}"
