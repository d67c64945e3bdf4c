"""The Chat screen driven by keys, over models that are made up."""

import asyncio

from gpt2tui.tui.chat.models import ModelChoice
from tests.tui.fake_chat import ChatApp, FakeModel
from tests.tui.looking import until
from tests.tui.plain_workbench import first_mode

SAVED = [
    ModelChoice("/runs/small/step-500", "small", 500, 2.9, is_best=True),
    ModelChoice("/runs/small/step-600", "small", 600, 3.0, is_newest=True),
]
HOSTILE = "\x1b]52;c;bHVjaw==\x07[/bold] \x1b[2J"


async def done(pilot):
    """Until the answers under way have ended."""
    screen = pilot.app.screen
    await until(pilot, lambda: screen._stop is None and all(answer.done for answer in screen.answers))
    await pilot.pause()


def driven(tmp_path, story, *, size=(120, 36), **app):
    """Runs a story, an async function of (pilot, screen), and returns the app."""
    app = ChatApp(tmp_path, **app)

    async def drive():
        async with app.run_test(size=size) as pilot:
            await first_mode(pilot)
            await until(pilot, lambda: app.screen.chosen.answering or not app.screen._listing)
            await story(pilot, app.screen)

    asyncio.run(drive())
    return app


def text_of(widget):
    return widget.render().plain


def foot(answer):
    return text_of(answer.query_one(".answer-foot"))


def short(**changes):
    """A model that ends after six words."""
    return lambda reference: FakeModel(reference, ends_after=6, **changes)
