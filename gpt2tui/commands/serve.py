"""`gpt2tui serve`: the workbench in a browser; every open page starts a workbench of its own.

The server is textual-serve, which asks for no password. So it listens on localhost by default and refuses requests
from pages of other sites, since a browser lets any page open a WebSocket to localhost.
"""

import argparse
import ipaddress
import shlex
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from gpt2tui.errors import UsageError

ALL_ADDRESSES = ("0.0.0.0", "::")


def serve(options: argparse.Namespace) -> int:
    """Serves until it is interrupted. Raises UsageError when textual-serve is not installed."""
    try:
        from textual_serve.server import Server
    except ImportError:
        raise UsageError("`gpt2tui serve` needs the package textual-serve: pip install 'gpt2tui[serve]'") from None
    from aiohttp import web

    class Workbench(Server):  # type: ignore[misc]  # textual-serve has no types
        """The server, for requests of its own pages only."""

        async def _make_app(self) -> web.Application:
            application = await super()._make_app()
            application.middlewares.append(web.middleware(_own_pages_only(self.public_url)))
            return application

    if options.host in ALL_ADDRESSES and not options.public_url:
        raise UsageError(
            f"--host {options.host} listens on every address; name the one that browsers will use: "
            f"--public-url http://NAME:{options.port}"
        )
    if not _only_this_machine(options.host):
        print(
            f"gpt2tui: there is no password: everyone who can reach {options.host}:{options.port} can start "
            "trainings and read and delete runs",
            file=sys.stderr,
        )
    Workbench(command_line(), options.host, options.port, "gpt2tui", options.public_url).serve()
    return 0


def command_line() -> str:
    """The command that each page starts, quoted for the platform's shell: this same program."""
    words = [sys.executable, "-m", "gpt2tui"]
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


def is_own_page(host: str | None, origin: str | None, public_url: str) -> bool:
    """Whether a request with these headers comes from the address bar or our own page, not from another site.

    `Host` must be ours too: otherwise another site could point its name at this machine (DNS rebinding).
    """
    ours = urlsplit(public_url)
    default_port = 443 if ours.scheme == "https" else 80
    names = {ours.netloc.lower(), f"{ours.hostname}:{ours.port or default_port}"}
    return (host or "").lower() in names and (
        origin is None or urlsplit(origin.lower())[:2] == (ours.scheme, ours.netloc.lower())
    )


def _own_pages_only(public_url: str) -> Callable[[Any, Callable[[Any], Awaitable[Any]]], Awaitable[Any]]:
    from aiohttp import web

    async def check(request: web.Request, handler: Callable[[Any], Awaitable[Any]]) -> web.StreamResponse:
        if not is_own_page(request.headers.get("Host"), request.headers.get("Origin"), public_url):
            raise web.HTTPForbidden(text=f"this workbench is at {public_url}")
        return await handler(request)

    return check


def _only_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
