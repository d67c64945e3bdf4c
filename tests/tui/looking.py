"""What a test sees of the screen, and how it waits for it."""

import asyncio
import time


def screen_text(app):
    """All that is on the screen, row by row, without the spaces at the ends of rows."""
    rows = ("".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips())
    return "".join(row.rstrip() + "\n" for row in rows)


async def until(pilot, condition, seconds=60.0):
    """Waits until the condition holds; the machine that runs the tests may be slow."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen; the screen:\n{screen_text(pilot.app)}"
        await asyncio.sleep(0.02)  # not `pilot.pause`, which sends a message to every widget
    await pilot.pause()


SOON_SECONDS = 0.5


def under_way(app):
    """The workers of the screen in front, and what it has put off for a moment; following a run never ends."""
    nodes = (app.screen, *app.screen.walk_children())
    timers = [
        timer for node in nodes for timer in node._timers if timer._repeat == 0 and timer._interval < SOON_SECONDS
    ]
    return [
        *(
            worker
            for worker in app.workers
            if worker.node in nodes and not worker.is_finished and worker.group != "follow"
        ),
        *(timer for timer in timers if timer._task is not None and not timer._task.done()),
    ]


async def settled(pilot):
    """Waits until nothing is under way: what was to happen has happened, or it never will."""
    await pilot.pause()
    while under_way(pilot.app):  # again, because the last may have begun another
        await until(pilot, lambda: not under_way(pilot.app))
