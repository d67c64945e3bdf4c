"""Completes what one types as a corpus: the names the program knows, then files and folders."""

import asyncio
from pathlib import Path

from textual.suggester import Suggester

NAMES = ("python-stdlib", "wikitext-103", "wikitext-2", "hf:")
MOST_ENTRIES = 5000  # of a folder; in a larger one nobody completes by sight


class CorpusSuggester(Suggester):
    """Looks into folders off the event loop; never remembers, since files come and go."""

    def __init__(self) -> None:
        super().__init__(use_cache=False, case_sensitive=True)

    async def get_suggestion(self, value: str) -> str | None:
        """The typed text made longer, or None."""
        if not value:
            return None
        named = next((name for name in NAMES if name.startswith(value)), None)
        return named or await asyncio.to_thread(complete_path, value)


def complete_path(typed: str) -> str | None:
    """The first entry, by name, of the folder typed so far that goes on from what is typed; None without one."""
    folder, slash, start = typed.rpartition("/")
    if typed.startswith("hf:") or any(sign in typed for sign in "*?["):
        return None
    try:
        entries = Path(f"{folder}/" if slash else ".").expanduser().iterdir()
        names = sorted(
            entry.name + ("/" if entry.is_dir() else "")
            for entry, _ in zip(entries, range(MOST_ENTRIES), strict=False)
            if entry.name.startswith(start) and (start or not entry.name.startswith("."))
        )
    except (OSError, RuntimeError, ValueError):  # no such folder, no such user's home, a null byte
        return None
    return f"{folder}{slash}{names[0]}" if names and names[0].isprintable() else None
