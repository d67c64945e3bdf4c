"""`gpt2tui presets`: list, show, check, keys, schema."""

import argparse
import sys
from pathlib import Path

from gpt2tui import preset_files
from gpt2tui.commands.tables import Column, print_table
from gpt2tui.commands.train import print_json
from gpt2tui.errors import PresetError
from gpt2tui.terminal_text import sanitize


def list_presets(options: argparse.Namespace) -> int:
    """Every preset that can be named, with its size; one that is broken says so in its row."""
    rows: list[dict[str, object]] = []
    for source in preset_files.available():
        row: dict[str, object] = {"name": source.name, "path": str(source.path), "shipped": source.shipped}
        try:
            preset = preset_files.check(source.path).preset
        except PresetError as error:
            row |= {"error": str(error), "description": "", "parameters": None, "source": None}
        else:
            row |= {"error": None, "description": preset.description, "parameters": preset.known_parameters}
            row["source"] = preset.data.source
        rows.append(row)
    if options.json:
        print_json(rows)
        return 0
    columns = [
        Column("preset"),
        Column("parameters", right=True),
        Column("data", folds=True),
        Column("what it is for", folds=True),
    ]
    print_table(columns, [_cells(row) for row in rows])
    return 0


def show_preset(options: argparse.Namespace) -> int:
    """One preset, resolved, as TOML (or JSON)."""
    loaded = preset_files.load([options.preset])
    if options.json:
        print_json({"name": loaded.name, "preset": loaded.preset.model_dump()})
    else:
        print(preset_files.dumps(loaded.preset), end="")
    return 0


def check_preset(options: argparse.Namespace) -> int:
    """Validates a file, or a preset by its name; raises PresetError with all mistakes."""
    path = Path(options.preset)
    by_name = not path.exists() and options.preset in {source.name for source in preset_files.available()}
    loaded = preset_files.check(preset_files.find(options.preset) if by_name else path)
    if options.json:
        print_json({"name": loaded.name, "valid": True})
    else:
        count = loaded.preset.known_parameters
        size = f"{count:,} parameters" if count else "parameters depend on the corpus"
        print(f"{sanitize(options.preset)} is a valid preset: {size}", file=sys.stderr)
    return 0


def list_keys(options: argparse.Namespace) -> int:
    """Every setting of the schema."""
    if options.json:
        print_json([vars(setting) for setting in preset_files.settings()])
        return 0
    columns = [Column("key"), *(Column(header, folds=True) for header in ("default", "allowed", "meaning"))]
    print_table(columns, [(s.key, _default(s), s.allowed, s.help) for s in preset_files.settings()])
    return 0


def print_schema(options: argparse.Namespace) -> int:
    """The JSON schema of a preset file."""
    print_json(preset_files.json_schema())
    return 0


def _cells(row: dict[str, object]) -> tuple[object, ...]:
    count = row["parameters"]
    size = "" if count is None else f"{count:,}"
    return row["name"], size, row["source"] or "", row["description"] or row["error"] or ""


def _default(setting: preset_files.Setting) -> str:
    return "" if setting.default is None else repr(setting.default).replace("'", '"')
