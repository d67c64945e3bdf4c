"""The two pictures of the README, of a real run: `python docs/pictures/make.py` (four minutes, no download).

Trains the `small` preset in the workbench without a terminal, takes the Train screen at two thirds of it, and the Chat
screen with the trained model's heat map at the end.
"""

import asyncio
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
PICTURES = Path(__file__).parent
SIZE = (120, 36)


def write(name: str, svg: str) -> None:
    """Saves a screen without the fonts that it would load from elsewhere."""
    svg = re.sub(r"@font-face\s*{[^}]*}", "", svg).replace("Fira Code", "ui-monospace, Menlo, Consolas, monospace")
    lines = [line.rstrip() for line in svg.splitlines() if line.strip()]
    (PICTURES / f"{name}.svg").write_text("\n".join(lines) + "\n", encoding="utf-8")


async def take() -> None:
    """Trains, looks, writes, looks again."""
    from gpt2tui.preset import files as preset_files
    from gpt2tui.tui.app import WorkbenchApp

    app = WorkbenchApp()
    async with app.run_test(size=SIZE) as pilot:

        async def until(holds: Callable[[], bool]) -> None:
            while not holds():
                await pilot.pause(0.25)

        app.start_training(preset_files.load(["small"]))
        await until(lambda: 0 < app.session.progress.num_iterations * 2 <= app.session.progress.step * 3)
        await pilot.pause(1)
        write("train", app.export_screenshot(title="gpt2tui"))
        await until(lambda: not app.session.active)
        await pilot.press("f4")
        await pilot.pause(2)
        for prompt in ("class ", "def read(self, "):
            await pilot.press(*(f"{key}" if key.isalnum() else KEYS[key] for key in prompt), "enter")
            await pilot.pause(8)
        await pilot.press("escape", "h")
        await pilot.pause(1)
        write("chat", app.export_screenshot(title="gpt2tui"))


KEYS = {" ": "space", "(": "left_parenthesis", ",": "comma"}

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for name in ("RUNS", "CACHE", "CONFIG"):
            os.environ[f"GPT2TUI_{name}"] = str(Path(folder, name.lower()))
        asyncio.run(take())
