"""`gpt2tui` and `python -m gpt2tui`: runs a command and returns its exit code."""

import errno
import os
import sys

from gpt2tui.errors import OUT_OF_THREADS, Gpt2TuiError, ResourceError, is_out_of_threads
from gpt2tui.system.standard_streams import discard_stdout, failure_of_stdout, make_streams_safe
from gpt2tui.system.terminal_text import guard_streams, print_on_stderr, report_on_stderr
from gpt2tui.system.waiting_threads import wait_briefly

# What a machine lacks, rather than what the program does wrong.
RESOURCES = frozenset(
    {
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN),
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM),
    }
)


def main(arguments: list[str] | None = None) -> int:
    """Runs one command line and returns its exit code; an expected failure is one message on stderr."""
    make_streams_safe()
    guard_streams()
    wait_briefly()
    try:
        code = _run_command(arguments)
        sys.stdout.flush()
        return code
    except Gpt2TuiError as error:
        print_on_stderr(f"gpt2tui: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        report_on_stderr("interrupted")
        return 130
    except MemoryError:
        report_on_stderr("out of memory; end other programs, or choose a smaller model or corpus")
        return ResourceError.exit_code
    except RuntimeError as error:
        if not is_out_of_threads(error):
            raise
        report_on_stderr(OUT_OF_THREADS)
        return ResourceError.exit_code
    except OSError as error:
        return _exit_code_of(error)


def _run_command(arguments: list[str] | None) -> int:
    from gpt2tui.cli import parse

    try:
        options = parse(arguments)
        code: int = options.command(options)
        return code
    except SystemExit:
        sys.stdout.flush()  # argparse ignores that its help could not be written
        if isinstance(failure_of_stdout(), BrokenPipeError):  # rich ends the process with 1
            return 0
        raise


def _exit_code_of(error: OSError) -> int:
    """Reports an error of the operating system; raises it again if it is none of the machine's resources."""
    if error is failure_of_stdout():
        discard_stdout()
        if isinstance(error, BrokenPipeError):
            return 0  # the program that read our output has ended
        report_on_stderr(f"stdout cannot be written: {error.strerror}; free disk space or write elsewhere")
        return ResourceError.exit_code
    if error.errno not in RESOURCES:
        raise error
    where = f"{error.filename}: " if error.filename else ""
    report_on_stderr(f"{where}{error.strerror}; free what is used up on this machine, or allow the program more of it")
    return ResourceError.exit_code


def run() -> None:
    """The entry point of the `gpt2tui` script."""
    sys.exit(main())


def _look_in_the_working_folder_last() -> None:
    """`python -m` looks for modules in the working folder first, where a user's `datasets.py` would take the place of
    the library. Last, it still finds a checkout that is not installed.
    """
    if not sys.flags.safe_path and sys.path[0] == os.getcwd():  # noqa: PTH109 as `python -m` writes it
        sys.path.append(sys.path.pop(0))


if __name__ == "__main__":
    _look_in_the_working_folder_last()
    run()
