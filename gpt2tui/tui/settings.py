"""What the workbench remembers between two starts, in a small JSON file of the configuration folder."""

import contextlib
import json
from pathlib import Path
from typing import Any

from gpt2tui.system.files import config_folder, open_regular, replace_text

LARGEST_BYTES = 2**20


class UserSettings:
    """Remembered values by name, such as `theme`, `mode`, `preset`, `run`; written whenever a value changes.

    When the file is missing, damaged or cannot be written, nothing is remembered and nothing is raised.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or config_folder() / "settings.json"
        self._values: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError, RecursionError):
            with open(open_regular(self._path, follow_links=True), "rb") as file:  # noqa: PTH123 a descriptor
                text = file.read(LARGEST_BYTES + 1)
            values = json.loads(text) if len(text) <= LARGEST_BYTES else {}
            self._values = values if isinstance(values, dict) else {}

    def text(self, name: str, default: str = "") -> str:
        """A remembered text; `default` when there is none or the value is no text."""
        value = self._values.get(name, default)
        return value if isinstance(value, str) else default

    def remember(self, name: str, value: str | float | bool | None) -> None:
        """Keeps a value for the next start."""
        if self._values.get(name) == value:
            return
        self._values[name] = value
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            replace_text(self._path, json.dumps(self._values, indent=2) + "\n")

    @property
    def theme(self) -> str:
        """The name of Textual's theme."""
        return self.text("theme")

    @property
    def mode(self) -> str:
        """The mode in front: presets, train, chat or runs."""
        return self.text("mode")

    @property
    def preset(self) -> str:
        """The preset last selected, by name or path."""
        return self.text("preset")

    @property
    def run(self) -> str:
        """The run last shown, by name."""
        return self.text("run")
