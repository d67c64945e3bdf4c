"""`gpt2tui` and `python -m gpt2tui`: runs a command and returns its exit code."""

import errno
import io
import os
import sys
from pathlib import Path

from gpt2tui.errors import Gpt2TuiError, ResourceError


def main(arguments: list[str] | None = None) -> int:
    """Runs one command line and returns its exit code; an expected failure is one message on stderr."""
    from gpt2tui.cli import parse
    from gpt2tui.system.terminal_text import guard_streams

    _make_streams_safe()
    guard_streams()
    options = parse(arguments)
    try:
        code: int = options.command(options)
        sys.stdout.flush()
        return code
    except Gpt2TuiError as error:
        print(f"gpt2tui: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("gpt2tui: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The program that read our output has ended.
        _discard_stdout()
        return 0
    except OSError as error:
        # A full disk under a redirected stdout. Other failures with files are a Gpt2TuiError by now.
        if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO):
            raise
        _discard_stdout()
        print(
            f"gpt2tui: stdout cannot be written: {error.strerror}; free disk space or write elsewhere", file=sys.stderr
        )
        return ResourceError.exit_code


def _make_streams_safe() -> None:
    """Replaces a closed stream by the null device, and makes a character that a stream cannot encode a "?"."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - stays open until the process ends
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _discard_stdout() -> None:
    """Sends what is still buffered to the null device, so that the flush at shutdown raises no second error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run() -> None:
    """The entry point of the `gpt2tui` script."""
    sys.exit(main())


if __name__ == "__main__":
    run()
