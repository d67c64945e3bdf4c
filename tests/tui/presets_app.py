"""The Presets screen in an app that only writes down what it is asked for, and never looks at a device."""

import asyncio
from types import SimpleNamespace

from textual.app import App
from textual.widgets import Input

from gpt2tui.preset.files import settings, user_folder
from gpt2tui.system.device_speed import DeviceSpeed
from gpt2tui.tui.presets import cost_panel
from gpt2tui.tui.presets import costs as preset_costs
from gpt2tui.tui.presets import screen as presets_screen
from gpt2tui.tui.presets.costs import Found
from gpt2tui.tui.presets.form import PresetForm
from gpt2tui.tui.presets.screen import PresetsScreen
from gpt2tui.tui.settings import UserSettings
from tests.tui.looking import SOON_SECONDS, settled, until

LOOK = 0.05
SPEED = DeviceSpeed("2 CPU threads", "fp32", 1e11, None, 8_000_000_000, 2e10)


class PresetsApp(App[None]):
    """Stands in for the workbench."""

    MODES = {"presets": PresetsScreen}  # noqa: RUF012
    DEFAULT_MODE = "presets"

    def __init__(self, preselected=None):
        super().__init__()
        self.session = SimpleNamespace(active=False, launch=None)
        self.settings = UserSettings()
        self.preselected = preselected
        self.trained = []
        self.errors = []
        self.said = []

    @property
    def presets(self):
        return self.screen_stack[0]

    @property
    def form(self):
        return self.presets.query_one(PresetForm)

    def editor(self, key):
        return self.form.field(key).editor

    def start_training(self, loaded, resume=None):
        self.trained.append(loaded)

    def show_error(self, title, message):
        self.errors.append(f"{title}: {message}")

    def notify(self, message, **options):
        self.said.append(message)


def drive(script, monkeypatch, *, app=None, size=(120, 36), corpus=None, measure=lambda preset: Found(SPEED)):
    """Runs `await script(app, pilot)` on a Presets screen whose looks are instant."""
    monkeypatch.setattr(cost_panel, "FIRST_LOOK_SECONDS", 0.01)
    monkeypatch.setattr(cost_panel, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(presets_screen, "CHECK_SECONDS", 0.01)
    monkeypatch.setattr(presets_screen, "SCAN_SECONDS", LOOK)
    monkeypatch.setattr(presets_screen, "REMEMBER_SECONDS", 0.01)
    # It repeats until a training has ended: were it sooner, `settled` would wait for it without end.
    monkeypatch.setattr(cost_panel, "RETRY_SECONDS", SOON_SECONDS)
    monkeypatch.setattr(preset_costs, "measure_device", measure)
    state = corpus or SimpleNamespace(source="", state="prepared", train_tokens=1_000_000, vocab_size=None)
    monkeypatch.setattr(preset_costs, "look_at_corpus", lambda loaded: Found(state))
    app = app or PresetsApp()

    async def run():
        async with app.run_test(size=size) as pilot:
            await until(pilot, lambda: len(app.form.fields()) == len(settings()))
            await until(pilot, lambda: all(field.editor.is_mounted for field in app.form.fields()))
            await settled(pilot)
            await script(app, pilot)

    asyncio.run(run())
    return app


async def write(app, pilot, key, text):
    """Types a text into the field of a setting, in place of what is there."""
    editor = app.editor(key)
    editor.focus()
    await pilot.pause()
    if isinstance(editor, Input):
        editor.action_select_all()
        await pilot.press("backspace", *text)
    await settled(pilot)


def own_preset(name, text):
    """A preset file of the user's."""
    path = user_folder() / f"{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
