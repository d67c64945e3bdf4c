"""The log of the Train screen."""

import asyncio

import pytest
from textual.app import App
from textual.widgets import Static

from gpt2tui.run.events import Evaluated
from gpt2tui.tui.train.log import EventLog
from gpt2tui.tui.train.view import event_line
from tests.tracking import event_samples


class LogApp(App):
    def compose(self):
        yield EventLog()


@pytest.mark.parametrize(("width", "first"), [*((width, 1) for width in range(40, 60)), (46, 10_001), (52, 1_000_001)])
def test_no_line_wraps_when_the_scrollbar_appears(width, first):
    async def drive():
        app = LogApp()
        async with app.run_test(size=(width, 12)) as pilot:
            log = app.query_one(EventLog)
            steps = range(first, first + 29)
            measured = [Evaluated(step=n, val_loss=1.5, perplexity=4.5, bits_per_byte=0.9, best=True) for n in steps]
            log.add([event_line(event) for event in measured])
            await pilot.pause()
            assert log.query_one(Static).size.height == 29

    asyncio.run(drive())


def test_the_first_line_says_which_weights_a_run_started_from():
    line = event_line(event_samples.run_started(init_from="~/runs/a/checkpoints/step-00000008"))
    assert line.content(200).plain.endswith("started from ~/runs/a/checkpoints/step-00000008")
    assert "started from" not in event_line(event_samples.run_started()).content(200).plain
