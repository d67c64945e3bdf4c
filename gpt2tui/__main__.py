"""`gpt2tui` and `python -m gpt2tui`: runs a command and turns its outcome into an exit code."""

import errno
import io
import os
import sys
from pathlib import Path

from gpt2tui.errors import Gpt2TuiError, ResourceError


def main(arguments: list[str] | None = None) -> int:
    """Runs one command line and returns its exit code; an expected failure is one message on stderr."""
    from gpt2tui.cli import parse

    _make_streams_safe()
    options = parse(arguments)
    try:
        code: int = options.command(options)
        sys.stdout.flush()
        return code
    except Gpt2TuiError as error:
        from gpt2tui.system.terminal_text import sanitize

        print(f"gpt2tui: {sanitize(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("gpt2tui: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has left.
        _discard_stdout()
        return 0
    except OSError as error:
        # A full disk under a redirected stdout; everything else that touches files has a message of its own.
        if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO):
            raise
        _discard_stdout()
        print(f"gpt2tui: the output could not be written: {error.strerror}", file=sys.stderr)
        return ResourceError.exit_code


def _make_streams_safe() -> None:
    """Gives a closed stream a place to go to, and lets one that cannot encode a character write "?" instead."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 for as long as the process lives
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _discard_stdout() -> None:
    """What is still buffered goes nowhere, so that Python does not complain again while it shuts down."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def run() -> None:
    """The entry point of the `gpt2tui` script."""
    sys.exit(main())


if __name__ == "__main__":
    run()
