"""`gpt2tui serve`, as a process: the workbench arrives at a WebSocket, and in a real browser."""

import asyncio
import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gpt2tui.preset import files as preset_files
from gpt2tui.run.folder import all_runs
from gpt2tui.run.summary import summarize
from tests import tiny_runs
from tests.reliability.browser import needs_chromium, open_page
from tests.reliability.terminal import PATIENCE

pytest.importorskip("textual_serve", reason="NOT TESTED: textual-serve is not installed (pip install 'gpt2tui[serve]')")
aiohttp = pytest.importorskip("aiohttp")

pytestmark = pytest.mark.timeout(600)
REPOSITORY = Path(__file__).parents[2]


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start(folder, *options):
    return subprocess.Popen(
        [sys.executable, "-m", "gpt2tui", "serve", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process):
    process.terminate()
    try:
        process.wait(PATIENCE)
    finally:
        process.kill()
        process.stderr.close()


@contextlib.contextmanager
def served(folder):
    """The address of a workbench that is served, and the process that serves it."""
    port = free_port()
    process = start(folder, "--port", str(port))
    lines = queue.Queue()
    threading.Thread(target=lambda: [lines.put(line) for line in process.stderr], daemon=True).start()
    try:
        assert "the workbench is at" in lines.get(timeout=PATIENCE)
        yield f"http://localhost:{port}", process
    finally:
        end(process)


async def another_site_gets_no_workbench_and_may_not_show_the_page_in_its_own(session, url):
    with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
        await session.ws_connect(f"{url}/ws", origin="http://elsewhere.example")
    async with session.get(url) as page:
        policy = page.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy
    assert "default-src 'self'" in policy


async def the_first_frames_of_the_workbench_arrive(page):
    received = b""
    while b"Presets" not in received:
        message = await page.receive(timeout=PATIENCE)
        assert message.type == aiohttp.WSMsgType.BINARY, message
        received += message.data


def test_a_server_serves_our_page_alone_and_ends_at_a_signal_while_it_is_open(tmp_path):
    async def story(url, process):
        async with aiohttp.ClientSession() as session:
            await another_site_gets_no_workbench_and_may_not_show_the_page_in_its_own(session, url)
            async with session.ws_connect(f"{url}/ws?width=100&height=30", origin=url) as page:
                await the_first_frames_of_the_workbench_arrive(page)
                process.send_signal(signal.SIGINT)
                await asyncio.to_thread(process.wait, 45)  # the libraries would wait a minute for the page to close
        assert process.returncode == 0

    with served(tmp_path) as (url, process):
        asyncio.run(story(url, process))


def test_a_port_that_is_taken_is_one_sentence(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = start(tmp_path, "--host", "127.0.0.1", "--port", str(taken.getsockname()[1]))
        _, message = process.communicate(timeout=PATIENCE)
    assert process.returncode == 6
    assert message.count("\n") == 1
    assert "is in use by another program" in message


@pytest.mark.slow
@needs_chromium
def test_in_a_browser_a_preset_is_trained_and_its_model_answers(tmp_path):
    async def session(url):
        async with open_page(tmp_path / "chromium", url) as page:
            await page.wait_for("Train GPT-2 from scratch")
            await page.click(640, 560)  # a page has no keys before it is clicked into
            await page.press("F2", 113)
            await page.wait_for(" valid ")
            assert await page.colours() > 50
            await page.press("t", 84, control=True)
            async with asyncio.timeout(PATIENCE):
                while not any(summarize(run).state == "finished" for run in all_runs()):
                    await asyncio.sleep(0.2)
            await page.press("F4", 115)
            await page.wait_for("how a text begins")
            await page.type("def")
            await page.press("Enter", 13)
            await page.wait_for("mean p")

            elsewhere = "http://127.0.0.1:9/picture.png"
            await page.call("Runtime.evaluate", expression=f"new Image().src = '{elsewhere}'")
            async with asyncio.timeout(PATIENCE):
                while elsewhere not in page.refused:  # so what would be loaded from another site is seen, and refused
                    await asyncio.sleep(0.1)
            own = (url, url.replace("http", "ws", 1), "data:")
            assert [address for address in page.requested.values() if not address.startswith(own)] == []
            assert len(page.requested) > 3

    # The user's own `small` is the preset that is opened first.
    preset = tiny_runs.preset(tmp_path, "training.num_iterations=20", "schedule.warmup_iterations=0")
    preset_files.save(preset, tmp_path / "config" / "presets" / "small.toml")
    with served(tmp_path) as (url, _):
        asyncio.run(session(url))
    assert len(all_runs()) == 1
