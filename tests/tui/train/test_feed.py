"""Where the Train screen gets a run of another process from."""

import asyncio
import threading

from gpt2tui.run import folder as runs
from gpt2tui.tui.train import feed
from gpt2tui.tui.train.feed import ELSEWHERE, RunSource
from tests.tui.fake_runs import write_run


def test_a_run_that_is_read_while_its_lock_is_looked_at_is_logged_as_trained_elsewhere(monkeypatch):
    run = write_run("2026-01-02-000000-running", steps=4, ending="crashed")
    source = RunSource()
    read = source.attach(run, lambda: None)
    lock_of, drained = feed.read_lock, threading.Event()
    reader = threading.Thread(target=read, daemon=True)

    def slowly(run):
        reader.start()
        drained.wait(30)
        return lock_of(run)

    async def look():
        looking = asyncio.create_task(source.check_lock())
        while not source.drain()[0]:
            await asyncio.sleep(0.01)
        drained.set()
        return await looking

    monkeypatch.setattr(feed, "read_lock", slowly)
    with runs.locked(run):
        assert asyncio.run(look())
    source.end()
    assert [line.text for line in source.view.log].count(ELSEWHERE) == 1
