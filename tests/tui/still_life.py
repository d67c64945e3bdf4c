"""The workbench as a still life: the same data, clock and machine every time, so that its screens can be compared."""

import contextlib
import itertools
import time
from types import SimpleNamespace

import psutil

from gpt2tui.system.files import runs_folder
from gpt2tui.tui.app import WorkbenchApp
from gpt2tui.tui.chat import engine
from gpt2tui.tui.chat.engine import ChatModels
from gpt2tui.tui.chat.screen import ChatScreen
from gpt2tui.tui.presets import costs as preset_costs
from gpt2tui.tui.presets.costs import Found
from gpt2tui.tui.session import TrainingSession
from gpt2tui.tui.settings import UserSettings
from tests.tui.fake_chat import FakeModel
from tests.tui.fake_runs import START, write_run
from tests.tui.fake_training import launch
from tests.tui.looking import screen_text
from tests.tui.plain_workbench import first_mode
from tests.tui.presets_app import SPEED, own_preset
from tests.tui.train_story import StoryTraining

NOW = START + 86_400.0  # 2026-02-01 12:00 UTC
RUN = "2026-02-01-115755-small"


def model(reference, gpu):
    """Ends a text after three sentences."""
    return FakeModel(reference, ends_after=39)


class StillWorkbench(WorkbenchApp):
    """The workbench in a mode; its models are made up, its training is a story."""

    def __init__(self, mode):
        settings = UserSettings()
        settings.remember("mode", mode)
        self.MODES = WorkbenchApp.MODES | {"chat": lambda: ChatScreen(ChatModels(model))}
        training = launch(run_dir=runs_folder() / RUN) if mode == "train" else None
        super().__init__(session=TrainingSession(StoryTraining()), settings=settings, launch=training)


def arrange(monkeypatch, folder):
    """Stops the clock, replaces the machine, and lays out runs and presets in a folder whose path nothing shows."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("GPT2TUI_RUNS")
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr(time, "time", lambda: NOW)
    ticks = itertools.count()
    monkeypatch.setattr(engine, "time", SimpleNamespace(perf_counter=lambda: next(ticks) / 64))
    monkeypatch.setattr(preset_costs, "measure_device", lambda preset: Found(SPEED))
    corpus = SimpleNamespace(source="", state="prepared", train_tokens=3_400_000, vocab_size=None)
    monkeypatch.setattr(preset_costs, "look_at_corpus", lambda loaded: Found(corpus))
    memory = SimpleNamespace(total=16_000_000_000, available=8_000_000_000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    own_preset("my-novel", 'description = "Three layers for one book"\n[model]\nn_layer = 3\n')
    write_run("2026-01-30-091500-small", steps=100, preset="small", checkpoints=(50, 100))
    write_run("2026-01-30-140200-test", steps=60, ending="stopped", checkpoints=(60,))
    write_run("2026-01-31-083000-test", steps=40, ending="failed")


@contextlib.asynccontextmanager
async def still_life(mode, size):
    """The workbench on one of its screens."""
    app = StillWorkbench(mode)
    try:
        async with app.run_test(size=size) as pilot:
            await first_mode(pilot)
            yield app, pilot
    finally:
        app.session.stop()
        app.session.join(10)


async def at_rest(app, pilot, *words, seconds=30.0):
    """The text of the screen, once it has all the words and has not changed for a while."""
    text, since, deadline = "", time.monotonic(), time.monotonic() + seconds
    while True:
        await pilot.pause(0.05)
        now = screen_text(app)
        if now != text:
            text, since = now, time.monotonic()
        elif time.monotonic() - since > 1.8 and all(word in text for word in words):  # each plot has had its turn
            return text
        assert time.monotonic() < deadline, f"it never came to rest:\n{text}"
