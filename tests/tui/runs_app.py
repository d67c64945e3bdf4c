"""The Runs screen in an app that only writes down what it is asked for."""

import asyncio
import time
from types import SimpleNamespace

from textual.app import App
from textual.screen import Screen

from gpt2tui.tui.runs.screen import RunsScreen
from gpt2tui.tui.runs.table import RunTable
from gpt2tui.tui.settings import UserSettings


class RunsApp(App[None]):
    """Stands in for the workbench."""

    MODES = {"runs": RunsScreen, "train": Screen}  # noqa: RUF012
    DEFAULT_MODE = "runs"

    def __init__(self):
        super().__init__()
        self.session = SimpleNamespace(run=None, active=False)
        self.settings = UserSettings()
        self.asked = []
        self.said = []

    def attach_run(self, run):
        self.asked.append(("attach", run.folder.name))

    def open_chat(self, reference):
        self.asked.append(("chat", reference))

    def start_training(self, loaded, resume=None):
        self.asked.append(("train", loaded, resume))

    def show_error(self, title, message):
        self.asked.append(("error", title, message))

    def notify(self, message, **options):
        self.said.append(message)
        super().notify(message, **options)

    @property
    def table(self):
        return self.screen.query_one(RunTable)

    def names(self):
        """The runs in the order of the table."""
        return [row.name for row in self.table.rows_shown]

    def cell(self, run, column):
        """A cell of the table: pieces of text, each with its colour."""
        row = next(row for row in self.table.rows_shown if row.name == run)
        return next(self.table.cell(row, *each) for each in self.table._layout if each[0].key == column)


async def settle(pilot, condition=lambda: True):
    """Until the threads have answered and nothing is pending, and `condition` holds."""
    deadline = time.monotonic() + 60  # the machine that runs the tests may be slow
    while time.monotonic() < deadline:
        await pilot.pause(0.02)
        screen = pilot.app.screen
        quiet = not isinstance(screen, RunsScreen) or not (
            screen.reader.busy or not screen._listed_before or screen.reader.library.next_to_read(screen._shown_below)
        )
        if quiet and condition():
            await pilot.pause()
            return
    raise AssertionError("the screen never came to rest")


def drive(script, size=(120, 36), app=None):
    """Runs `script(app, pilot)` once the list has been read."""

    async def run():
        chosen = app or RunsApp()
        async with chosen.run_test(size=size) as pilot:
            await settle(pilot)
            await script(chosen, pilot)

    asyncio.run(run())
