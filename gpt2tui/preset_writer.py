"""A Preset -> TOML text -> a file that is either the old one or the new one, never half of it."""

from pathlib import Path

import tomli_w

from gpt2tui.durable import replace_text
from gpt2tui.errors import PresetError, ResourceError
from gpt2tui.preset import Preset
from gpt2tui.preset_catalog import shipped_folder
from gpt2tui.preset_layers import MAX_BYTES
from gpt2tui.printable import printable


def dumps(preset: Preset) -> str:
    """The preset as TOML: every setting in the schema's order, the same text for the same preset.

    What is None, left to the program, is left out: TOML has no null.
    """
    return tomli_w.dumps(preset.model_dump(exclude_none=True))


def too_large(preset: Preset) -> str | None:
    """Why the preset cannot be written to a file that would be read again; None when it can."""
    size = len(dumps(preset).encode())
    if size <= MAX_BYTES:
        return None
    return f"{size:,} bytes as a file, and a preset may have {MAX_BYTES:,}; shorten its longest texts"


def save(preset: Preset, path: Path) -> None:
    """Write the preset so that a crash leaves the old file or the new one. A symbolic link is followed.

    Raises PresetError for the shipped presets, which are never written, and for a preset too large to be read
    again; ResourceError when the disk or the folder refuses.
    """
    path = path.resolve()
    if path.is_relative_to(shipped_folder().resolve()):
        raise PresetError(f"{printable(path)}: the shipped presets are not written; save under another folder")
    reason = too_large(preset)
    if reason:
        raise PresetError(f"{printable(path)}: {reason}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, dumps(preset))
    except OSError as error:
        raise ResourceError(f"{printable(path)}: cannot be written: {error.strerror or error}") from error
