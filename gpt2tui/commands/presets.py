"""`gpt2tui presets`: list, show, check, keys, schema."""

import argparse
import contextlib
from pathlib import Path

from gpt2tui.commands.tables import Column, print_json, print_table
from gpt2tui.errors import Mistake, PresetError
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.layers import read_chain
from gpt2tui.preset.settings import may_be_left_out
from gpt2tui.system.terminal_text import print_on_stderr, printable_value


def list_presets(options: argparse.Namespace) -> int:
    """Prints a row for each preset, with its size, or its mistakes where it is not valid."""
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
        Column("purpose", folds=True),
    ]
    print_table(columns, [_table_row(row) for row in rows])
    return 0


def show_preset(options: argparse.Namespace) -> int:
    """Prints one preset, its layers and overrides resolved, as TOML or JSON."""
    loaded = preset_files.load(options.preset, options.overrides)
    if options.json:
        print_json({"name": loaded.name, "preset": loaded.preset.model_dump()})
    else:
        print(preset_files.dumps(loaded.preset), end="")
    return 0


def check_presets(options: argparse.Namespace) -> int:
    """Validates each preset, or all as layers of one. Raises PresetError with the mistakes of all."""
    layers = [_file_or_name(name) for name in options.preset]
    are_layers = bool(options.overrides) or any(map(_is_partial, layers[1:]))
    rows: list[dict[str, object]] = []
    mistakes: list[Mistake] = []
    for group in [layers] if are_layers else [[layer] for layer in layers]:
        name = " + ".join(map(str, [*group, *options.overrides]))
        found: tuple[Mistake, ...] = ()
        partial = None
        try:
            loaded = preset_files.load(group, options.overrides)
        except PresetError as error:
            found = error.mistakes
        else:
            partial, count = loaded.is_partial, loaded.preset.known_parameters
            size = f"{count:,} parameters" if count else "its number of parameters depends on the corpus"
            what = preset_files.what_defaults_give(loaded.preset) if partial else size
            if not options.json:
                print_on_stderr(f"{name} is a valid {'partial preset' if partial else 'preset'}: {what}")
        mistakes += found
        found_as_json = [_as_json(mistake) for mistake in found]
        rows.append({"preset": name, "valid": not found, "partial": partial, "mistakes": found_as_json})
    if options.json:
        print_json(rows)
    if mistakes:
        raise PresetError(*mistakes)
    return 0


def _file_or_name(name: str) -> str | Path:
    """A preset's name, or the path of a file: one in the current folder before a preset of that name."""
    is_name = not Path(name).exists() and name in {source.name for source in preset_files.available()}
    return name if is_name else Path(name)


def _is_partial(layer: str | Path) -> bool:
    """Whether a preset has no [model] and extends none that has; False where it cannot be read."""
    with contextlib.suppress(PresetError):
        return not any(key[0] == "model" for key in read_chain(preset_files.find(layer))[1])
    return False


def _as_json(mistake: Mistake) -> dict[str, object]:
    """The parts of a mistake: the value as TOML, shortened, and None for what does not apply."""
    return {
        "key": mistake.key or None,
        "value": printable_value(mistake.value) if mistake.key else None,
        "allowed": mistake.allowed or None,
        "message": mistake.message,
        "suggestion": mistake.suggestion or None,
        "file": mistake.place.source if mistake.place else None,
        "line": mistake.place.line if mistake.place else None,
        "partners": [{"key": key, "file": place.source, "line": place.line} for key, place in mistake.partners],
    }


def list_keys(options: argparse.Namespace) -> int:
    """Prints every setting of the schema."""
    if options.json:
        print_json([vars(setting) for setting in preset_files.settings()])
        return 0
    columns = [Column("key"), *(Column(header, folds=True) for header in ("default", "allowed", "meaning"))]
    extends = ("extends", "", "the name of a preset or a path", preset_files.json_schema()["properties"]["extends"])
    rows = [(s.key, _default_text(s), _allowed_text(s), s.help) for s in preset_files.settings()]
    print_table(columns, [(*extends[:3], extends[3]["description"]), *rows])
    return 0


def print_schema(options: argparse.Namespace) -> int:
    """Prints the JSON schema of a preset file."""
    print_json(preset_files.json_schema())
    return 0


def _table_row(row: dict[str, object]) -> tuple[object, ...]:
    count = row["parameters"]
    size = "" if count is None else f"{count:,}"
    return row["name"], size, row["source"] or "", row["description"] or row["error"] or ""


def _allowed_text(setting: preset_files.Setting) -> str:
    return f'{setting.allowed}; or "auto": left out' if setting.key in may_be_left_out() else setting.allowed


def _default_text(setting: preset_files.Setting) -> str:
    return "" if setting.default is None else repr(setting.default).replace("'", '"')
