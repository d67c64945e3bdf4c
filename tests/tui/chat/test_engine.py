"""The chat with the real engine: a tiny run that was trained, saved, and is talked to."""

import asyncio
import time

import pytest

from gpt2tui.tui.chat.engine import load_checkpoint
from tests.tiny_runs import trainer
from tests.tui.fake_chat import ChatApp
from tests.tui.plain_workbench import first_mode


@pytest.mark.slow
def test_a_saved_checkpoint_continues_a_prompt_with_alternatives_and_scores_a_text(tmp_path):
    for _ in trainer(tmp_path).train():
        pass
    app = ChatApp(tmp_path, load_checkpoint)
    answers = []

    async def drive():
        async def done():
            end = time.monotonic() + 60
            while app.screen._stop is not None or not all(answer.done for answer in app.screen.answers):
                assert time.monotonic() < end
                await pilot.pause(0.05)

        async with app.run_test(size=(100, 30)) as pilot:
            await first_mode(pilot)
            while not app.screen.chosen.answering:
                await pilot.pause(0.05)
            await pilot.press(*"the quick", "enter")
            await done()
            await pilot.press(*"brown fox", "ctrl+g")
            await done()
            await pilot.press(*"again", "enter")
            await done()
            answers.extend(app.screen.answers)

    asyncio.run(drive())
    written, read, again = answers
    assert written.failure is None
    assert written.statistics.tokens > 0
    assert all(len(t.alternatives) == 5 for t in written.token_text.tokens if t.probability is not None and t.text)
    assert read.statistics.tokens == len("brown fox")
    assert read.whole == "brown fox"
    assert again.ending in ("length", "document")
