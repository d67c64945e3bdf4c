"""stdout and stderr of the process: a failing stderr changes nothing, a failing stdout is recognised as such.

Argparse, rich, warnings and libraries print to them too, so the difference is made below `sys.stdout` and
`sys.stderr`, where their bytes leave the process.
"""

import io
import os
import sys
from pathlib import Path
from typing import Any


def make_streams_safe() -> None:
    """Replaces a closed stream by the null device, and makes a character that a stream cannot encode a "?".

    From then on nothing that happens to stderr is raised, and the failure of stdout is known to `failure_of_stdout`.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - stays open until the process ends
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
            if stream is getattr(sys, f"__{name}__"):
                setattr(sys, name, _watched(stream, raises=name == "stdout"))


def failure_of_stdout() -> OSError | None:
    """The last error of a write to stdout; None if there was none, or if stdout is not the process's own."""
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.failure if isinstance(raw, _WatchedOutput) else None


def discard_stdout() -> None:
    """Sends what is still buffered to the null device, so that the flush at shutdown raises no second error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _WatchedOutput(io.RawIOBase):
    """The raw output of a stream that remembers its last failure, and raises it only if `raises`."""

    def __init__(self, raw: Any, raises: bool) -> None:
        self._raw = raw
        self._raises = raises
        self.failure: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self._raw.fileno())

    def isatty(self) -> bool:
        return bool(self._raw.isatty())

    def write(self, data: Any) -> int | None:
        size = memoryview(data).nbytes
        try:
            written: int | None = self._raw.write(data)
        except OSError as error:
            self.failure = error
            if self._raises:
                raise
            return size
        return written if self._raises else written or size  # a terminal that takes nothing more now has lost it


def _watched(stream: io.TextIOWrapper, raises: bool) -> io.TextIOWrapper:
    stream.flush()
    raw = getattr(stream.buffer, "raw", stream.buffer)  # with `python -u` there is no buffer
    return io.TextIOWrapper(
        io.BufferedWriter(_WatchedOutput(raw, raises)),
        encoding=stream.encoding,
        errors="replace",
        newline=None if os.name == "nt" else "\n",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
