"""A headless Chromium, driven through its DevTools, with one page."""

import asyncio
import base64
import contextlib
import json
import re
import shutil
import subprocess
import time
import zlib

import pytest

from tests.reliability.terminal import PATIENCE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="NOT TESTED: no chromium on this machine (apt-get install chromium)"
)


class Page:
    """A page in a Chromium of its own: keys go in, and the text of the WebSocket's frames comes out."""

    def __init__(self, session, devtools):
        self._session, self._devtools = session, devtools
        self._answers = {}
        self._number = 0
        self.received = ""
        """Everything that the page's WebSocket has received, without escape sequences."""
        self.requested = {}
        """The addresses that the page has asked for, WebSockets among them, by request."""
        self.refused = []
        """Those of them that the browser itself has refused, because the page's policy does not allow them."""
        self._reader = asyncio.create_task(self._read())

    async def _read(self):
        async for message in self._devtools:
            found = json.loads(message.data)
            if "id" in found:
                self._answers.pop(found["id"]).set_result(found)
            elif found["method"] == "Network.webSocketFrameReceived":
                frame = found["params"]["response"]
                data = base64.b64decode(frame["payloadData"]) if frame["opcode"] == 2 else b""
                self.received += re.sub(r"\x1b\[[0-9;?$]*[A-Za-z]", "", data.decode("utf-8", "replace"))
            elif found["method"] == "Network.requestWillBeSent":
                self.requested[found["params"]["requestId"]] = found["params"]["request"]["url"]
            elif found["method"] == "Network.webSocketCreated":
                self.requested[found["params"]["requestId"]] = found["params"]["url"]
            elif found["method"] == "Network.loadingFailed" and found["params"].get("blockedReason") == "csp":
                self.refused.append(self.requested.pop(found["params"]["requestId"], ""))

    async def call(self, method, **parameters):
        """The result of a DevTools method."""
        self._number += 1
        self._answers[self._number] = answer = asyncio.get_running_loop().create_future()
        await self._devtools.send_json({"id": self._number, "method": method, "params": parameters})
        found = await asyncio.wait_for(answer, PATIENCE)
        assert "error" not in found, found
        return found["result"]

    async def type(self, text):
        """The text, a key at a time."""
        for character in text:
            names = {"key": character, "windowsVirtualKeyCode": ord(character.upper())}
            await self.call("Input.dispatchKeyEvent", type="keyDown", text=character, **names)
            await self.call("Input.dispatchKeyEvent", type="keyUp", **names)

    async def click(self, x, y):
        """The left button at a place, in pixels."""
        for kind in ("mousePressed", "mouseReleased"):
            await self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    async def press(self, key, code, *, control=False):
        """A key that is no character, by its name and its Windows key code."""
        modifiers = {"modifiers": 2} if control else {}
        names = {
            "key": key,
            "code": key if len(key) > 1 else f"Key{key.upper()}",
            "windowsVirtualKeyCode": code,
            **modifiers,
        }
        await self.call("Input.dispatchKeyEvent", type="rawKeyDown", **names)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **names)

    async def wait_for(self, text, seconds=PATIENCE):
        """Until the text has been received; what came before it is forgotten."""
        end = time.monotonic() + seconds
        while text not in self.received:
            assert time.monotonic() < end, f"waited {seconds:g} s for {text!r}; received: {self.received[-3000:]}"
            await asyncio.sleep(0.1)
        self.received = self.received.partition(text)[2]

    async def colours(self):
        """How many different bytes the picture of the page has: a handful where it is blank."""
        png = base64.b64decode((await self.call("Page.captureScreenshot"))["data"])
        position, data = 8, b""
        while position < len(png):
            length, kind = int.from_bytes(png[position : position + 4], "big"), png[position + 4 : position + 8]
            data += png[position + 8 : position + 8 + length] if kind == b"IDAT" else b""
            position += 12 + length
        return len(set(zlib.decompress(data)))


@contextlib.asynccontextmanager
async def open_page(folder, url):
    """Opens the address in a Chromium whose files are in the folder."""
    import aiohttp

    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    options.append("--window-size=1280,800")
    process = subprocess.Popen(
        [CHROMIUM, *options, "--remote-debugging-port=0", f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port_file = folder / "DevToolsActivePort"
        end = time.monotonic() + PATIENCE
        while not (port_file.exists() and port_file.read_text().count("\n")):
            assert process.poll() is None, "chromium has ended"
            assert time.monotonic() < end, "chromium does not start"
            await asyncio.sleep(0.1)
        port = port_file.read_text().split()[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                (target,) = [found for found in await answer.json() if found["type"] == "page"]
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as devtools:
                page = Page(session, devtools)
                await page.call("Network.enable")
                await page.call("Page.enable")
                await page.call("Emulation.setFocusEmulationEnabled", enabled=True)
                await page.call("Page.navigate", url=url)
                yield page
                page._reader.cancel()
    finally:
        process.terminate()
        process.wait(PATIENCE)
