"""`gpt2tui serve`: the workbench in a browser; every open page starts a workbench of its own.

The server is textual-serve, which asks for no password. So it listens on localhost by default and refuses requests
from pages of other sites, since a browser lets any page open a WebSocket to localhost.
"""

import argparse
import errno
import ipaddress
import shlex
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gpt2tui.errors import Gpt2TuiError, ResourceError, UsageError
from gpt2tui.system.terminal_text import report_on_stderr

ALL_ADDRESSES = ("", "0.0.0.0", "::")
CLOSING_SECONDS = 1.0  # for open pages to be closed after Ctrl-C


def serve(options: argparse.Namespace) -> int:
    """Serves until it is interrupted.

    Raises UsageError when textual-serve is not installed or an option is wrong, ResourceError when the port cannot be
    listened on.
    """
    try:
        from textual_serve.server import Server
    except ImportError:
        raise UsageError(
            "`gpt2tui serve` needs the package textual-serve: pip install textual-serve, or in a checkout "
            "run uv run --extra serve gpt2tui serve"
        ) from None
    from aiohttp import web

    public_url = _public_url(options)

    class Workbench(Server):  # type: ignore[misc]  # textual-serve has no types
        """The server, for requests of its own pages only."""

        async def _make_app(self) -> web.Application:
            application = await super()._make_app()
            application.middlewares.append(web.middleware(_own_pages_only(self.public_url)))
            return application

        async def on_startup(self, app: web.Application) -> None:
            """Says nothing yet: it does not listen before `run_app` has opened its sockets."""

    if not _only_this_machine(options.host):
        report_on_stderr(
            f"there is no password: everyone who can reach {options.host}:{options.port} can start trainings and read "
            "and delete runs"
        )
    server = Workbench(command_line(), options.host, options.port, "gpt2tui", public_url)
    try:
        web.run_app(
            server._make_app(),
            host=options.host,
            port=options.port,
            shutdown_timeout=CLOSING_SECONDS,
            access_log=None,
            print=lambda _: print(f"the workbench is at {public_url}; Ctrl-C ends it", file=sys.stderr, flush=True),
        )
    except (OSError, UnicodeError) as error:
        raise _cannot_listen(options, error) from error
    return 0


def _public_url(options: argparse.Namespace) -> str:
    """The address of the page. Raises UsageError when --port, --host or --public-url cannot be one."""
    if not 1 <= options.port <= 65535:
        raise UsageError(f"--port {options.port} is not a port: choose one from 1024 to 65535, such as 8000")
    if options.public_url:
        try:
            url = urlsplit(options.public_url)
            known = url.scheme in ("http", "https") and url.hostname and (url.port is None or url.port > 0)
        except ValueError:
            known = False
        if not known:
            raise UsageError(f"--public-url {options.public_url} is not an address like http://NAME:{options.port}")
        return str(options.public_url).rstrip("/")
    if options.host in ALL_ADDRESSES:
        raise UsageError(
            f"--host {options.host!r} listens on every address; name the one that browsers will use: "
            f"--public-url http://NAME:{options.port}"
        )
    host = f"[{options.host}]" if ":" in options.host else options.host
    return f"http://{host}" if options.port == 80 else f"http://{host}:{options.port}"


def _cannot_listen(options: argparse.Namespace, error: OSError | UnicodeError) -> Gpt2TuiError:
    """The message for an error of the sockets; a name that cannot be looked up at all is a UnicodeError."""
    place = f"{options.host}:{options.port}"
    if isinstance(error, socket.gaierror | UnicodeError):
        return UsageError(f"--host {options.host}: this machine knows no address of that name; use localhost")
    match error.errno:
        case errno.EADDRINUSE:
            return ResourceError(f"{place} is in use by another program; choose another port: --port N")
        case errno.EADDRNOTAVAIL:
            return UsageError(f"--host {options.host} is not an address of this machine; use localhost")
        case errno.EACCES:
            return ResourceError(f"{place} may not be listened on; choose a port from 1024 on: --port N")
    return ResourceError(f"{place} cannot be listened on: {error.strerror or error}")


def command_line() -> str:
    """The command that each page starts, quoted for the platform's shell: this same program."""
    # Only as `python -m gpt2tui` may the program lie in the current folder; else nothing there is imported.
    safe_path = [] if Path(sys.argv[0]).name == "__main__.py" else ["-P"]
    words = [sys.executable, *safe_path, "-m", "gpt2tui"]
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


def is_other_name_of_this_machine(host: str | None, public_url: str) -> bool:
    """Whether a host is a loopback address (127.0.0.1:8000) where our page is at localhost, or the other way around."""
    here, ours = urlsplit(f"//{host}"), urlsplit(public_url)
    try:
        same_port = (here.port or 80) == (ours.port or 80)
    except ValueError:
        return False
    return same_port and _only_this_machine(here.hostname or "") and _only_this_machine(ours.hostname or "")


def _own_pages_only(public_url: str) -> Callable[[Any, Callable[[Any], Awaitable[Any]]], Awaitable[Any]]:
    """Refuses requests of other sites, and forbids our page to load anything from them or to be shown in theirs.

    The page of textual-serve asks Google for a font and waits for the answer, which without a network may never come.
    """
    from aiohttp import web

    socket_url = "ws" + public_url.removeprefix("http")
    policy = (
        f"default-src 'self' data:; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
        f"connect-src 'self' {socket_url}; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )

    async def check(request: web.Request, handler: Callable[[Any], Awaitable[Any]]) -> web.StreamResponse:
        host, origin = request.headers.get("Host"), request.headers.get("Origin")
        if not is_own_page(host, origin, public_url):
            if origin is None and request.path == "/" and is_other_name_of_this_machine(host, public_url):
                raise web.HTTPFound(public_url)
            raise web.HTTPForbidden(text=f"this workbench is at {public_url}\n")
        response: web.StreamResponse = await handler(request)
        if not response.prepared:
            response.headers["Content-Security-Policy"] = policy
        return response

    return check


def _only_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
