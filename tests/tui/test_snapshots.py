"""Each screen as it is stored in `snapshots/`, at the sizes that it is made for."""

import asyncio

import pytest

from tests.tui import snapshot
from tests.tui.looking import until
from tests.tui.still_life import arrange, at_rest, still_life

SIZES = [pytest.param((120, 36), id="120x36"), pytest.param((80, 24), id="80x24")]
MORE_SIZES = [*SIZES, pytest.param((160, 50), id="160x50"), pytest.param((60, 16), id="60x16")]


@pytest.fixture(autouse=True)
def things(monkeypatch, tmp_path):
    arrange(monkeypatch, tmp_path)


@pytest.fixture
def check(request):
    """Draws a screen and compares it with what is stored."""

    def run(mode, size, story, *words):
        async def draw():
            async with still_life(mode, size) as (app, pilot):
                await story(app, pilot)
                return await at_rest(app, pilot, *words)

        text = asyncio.run(draw())
        snapshot.compare(text, f"{mode}-{size[0]}x{size[1]}", request.config.getoption("--update-snapshots"))

    return run


async def nothing(app, pilot):  # a screen as it comes up
    pass


@pytest.mark.slow
@pytest.mark.parametrize("size", MORE_SIZES)
def test_train(check, size):
    async def story(app, pilot):
        def complete():
            view, plots = app.screen.view, app.screen.plots
            last = view.history.step is not None and view.history.step.step == 412
            return last and view.train_bytes is not None and not plots.outdated(view)

        await until(pilot, complete)

    check("train", size, story, "1.604")


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_presets(check, size):
    async def story(app, pilot):
        await at_rest(app, pilot, "my-novel", "Estimate")
        app.screen.select_preset("my-novel")
        await at_rest(app, pilot, "Three layers")

    check("presets", size, story, "my-novel")


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_chat(check, size):
    async def story(app, pilot):
        await at_rest(app, pilot, "small")
        await pilot.press(*"the quick", "enter")
        await at_rest(app, pilot, "39 tokens")
        await pilot.press(*"a lazy dog", "ctrl+g")

    check("chat", size, story, "3 tokens")


@pytest.mark.parametrize("size", MORE_SIZES)
def test_runs(check, size):
    details = ["2.364  xz 1.51"] if size[1] > 16 else []  # they come last
    check("runs", size, nothing, "small", "finished", "failed", "stopped", *details)
