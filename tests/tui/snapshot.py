"""Screens as text files: what is drawn now has to be what is stored. `pytest --update-snapshots` stores it anew."""

import difflib
from pathlib import Path

FOLDER = Path(__file__).with_name("snapshots")


def compare(text, name, update):
    """Fails with the difference where a screen is not as it was stored."""
    path = FOLDER / f"{name}.txt"
    if update:
        FOLDER.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    stored = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = difflib.unified_diff(stored.splitlines(), text.splitlines(), "stored", "drawn", n=0, lineterm="")
    difference = "\n".join(lines)
    assert not difference, f"if the change is meant: pytest --update-snapshots, and look at it\n{difference}"
