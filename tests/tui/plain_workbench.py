"""The shell with empty screens in its modes, to test what the app itself does."""

import asyncio

from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import Screen
from textual.widgets import Footer, Input

from gpt2tui.tui.app import WorkbenchApp
from gpt2tui.tui.session import TrainingSession
from gpt2tui.tui.widgets.first_run import FirstRun
from gpt2tui.tui.widgets.mode_bar import MODES, ModeBar
from tests.tui.fake_training import FakeTraining
from tests.tui.looking import until


class PlainScreen(Screen):
    """Keeps the messages that it is sent."""

    BINDINGS = [Binding("w", "wave", "Wave", tooltip="say hello")]  # noqa: RUF012
    HELP = "loss: nats per token"

    def __init__(self):
        super().__init__()
        self.heard = []
        self.unsaved = None
        self.selected = []
        self.waves = 0

    def compose(self) -> ComposeResult:
        yield ModeBar()
        yield from self.content()
        yield Footer()

    def content(self):
        yield Input()

    def on_training_begun(self, message):
        self.heard.append(message)

    on_run_opened = on_preparation_advanced = on_training_events = on_session_changed = on_training_begun
    on_run_attached = on_runs_changed = on_training_begun

    def unsaved_changes(self):
        return self.unsaved

    def select_model(self, reference):
        self.selected.append(reference)

    select_preset = select_model

    def action_wave(self):
        self.waves += 1


class FirstRunScreen(PlainScreen):
    def content(self):
        yield FirstRun()


class PlainWorkbench(WorkbenchApp):
    MODES = {"presets": PlainScreen, "train": FirstRunScreen, "chat": PlainScreen, "runs": PlainScreen}  # noqa: RUF012

    def __init__(self, fake=None, **arguments):
        super().__init__(session=TrainingSession(fake or FakeTraining()), **arguments)


def drive(story, fake=None, size=(120, 36), **arguments):
    """Runs an app under Pilot with an async function of (app, pilot), and ends its training; returns the app."""

    async def run():
        app = PlainWorkbench(fake, **arguments)
        try:
            async with app.run_test(size=size) as pilot:
                await first_mode(pilot)
                await story(app, pilot)
        finally:
            app.session.stop()
            app.session.join(10)
        return app

    return asyncio.run(run())


async def first_mode(pilot):
    """Until the workbench has opened its first mode, which it does after its first paint."""
    await until(pilot, lambda: pilot.app.current_mode in MODES and pilot.app.screen.is_mounted)
    await pilot.pause()
