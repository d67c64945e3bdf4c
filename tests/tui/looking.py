"""What a test sees of the screen, and how it waits for it."""

import time


def screen_text(app):
    """All that is on the screen, row by row, without the spaces at the ends of rows."""
    rows = ("".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips())
    return "".join(row.rstrip() + "\n" for row in rows)


async def until(pilot, condition, seconds=30.0):
    """Waits until the condition holds; the machine that runs the tests may be slow."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen; the screen:\n{screen_text(pilot.app)}"
        await pilot.pause(0.02)
    await pilot.pause()
