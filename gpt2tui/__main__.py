"""`gpt2tui` and `python -m gpt2tui`: runs a command and turns its outcome into an exit code."""

import os
import sys

from gpt2tui.errors import Gpt2TuiError


def main(arguments: list[str] | None = None) -> int:
    """Runs one command line and returns its exit code; an expected failure is one message on stderr."""
    from gpt2tui.cli import build_parser

    parser = build_parser()
    options = parser.parse_args(arguments)
    try:
        code: int = options.command(options)
        sys.stdout.flush()
        return code
    except Gpt2TuiError as error:
        from gpt2tui.terminal_text import sanitize

        print(f"gpt2tui: {sanitize(str(error))}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("gpt2tui: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has left; without this Python complains again while it shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def run() -> None:
    """The entry point of the `gpt2tui` script."""
    sys.exit(main())


if __name__ == "__main__":
    run()
