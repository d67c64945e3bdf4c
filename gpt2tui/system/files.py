"""Files that survive a crash whole or not at all, and the folders of this program."""

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path, user_config_path

from gpt2tui.errors import CheckpointError, ResourceError

LARGEST_JSON_BYTES = 8 * 2**20  # of lists in lists, JSON takes 20 times its size in memory


def _read_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


# Reading it means setting it, which affects all threads, so it is read once, at import.
UMASK = _read_umask()


def sync_file(path: Path) -> None:
    """Waits until the file's bytes are on the disk; also gives it the permissions a new file would have.

    Some file systems (FAT, SMB) have no permissions and refuse to set them.
    """
    with contextlib.suppress(PermissionError, NotImplementedError):
        path.chmod(0o666 & ~UMASK)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Waits until the folder's entries are on the disk.

    Does nothing where folders cannot be opened (Windows), or where the file system cannot do that (some of networks).
    """
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)


def replace_text(path: Path, text: str) -> None:
    """Writes a small text file in one atomic step; a reader sees the old text or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8", newline="\n")
        sync_file(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def free_name(path: Path) -> Path:
    """The path, or with -2, -3, ... before its suffix the first that does not exist."""
    numbered = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in itertools.count(2))
    return next(free for free in itertools.chain([path], numbered) if not os.path.lexists(free))


def open_regular(path: Path, flags: int = os.O_RDONLY, *, follow_links: bool = False) -> int:
    """A descriptor of a regular file, for files of folders that may come from elsewhere.

    Raises OSError at once for a link (unless `follow_links`), a folder, a pipe or a device; it never waits for the
    other end of a pipe.
    """
    flags |= getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    if not follow_links:
        if path.is_symlink():  # O_NOFOLLOW says "too many levels of symbolic links", which is unclear
            raise OSError(errno.ELOOP, "it is a link", str(path))
        flags |= getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, flags, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return descriptor


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of bounded size, from a regular file. Raises CheckpointError."""
    try:
        with open(open_regular(path, follow_links=True), "rb") as file:
            content = file.read(LARGEST_JSON_BYTES + 1)
        if len(content) > LARGEST_JSON_BYTES:
            raise CheckpointError(f"{path} is too large for this kind of file")
        value = json.loads(content.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} does not hold a JSON object")
    return value


def sha256(path: Path) -> str:
    """The hex SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---- folders


def without_home(text: str) -> str:
    """The text with ~ for the user's home folder, whose path holds a user name: for what a run keeps or sends."""
    try:
        home = Path.home()
    except RuntimeError:  # the user has none
        return text
    for folder in {str(home), str(home.resolve())} - {home.anchor}:
        text = re.sub(re.escape(folder) + r"(?![^/\\\s\"'])", "~", text)
    return text


def runs_folder() -> Path:
    """The folder of runs: GPT2TUI_RUNS, else `runs` in the current folder."""
    return Path(os.environ.get("GPT2TUI_RUNS") or "runs")


def cache_folder() -> Path:
    """Tokens, tokenizers and summaries of runs: GPT2TUI_CACHE, else the user's cache folder. Safe to delete."""
    return _folder_of_user("GPT2TUI_CACHE", user_cache_path)


def config_folder() -> Path:
    """The user's presets and settings: GPT2TUI_CONFIG, else the user's configuration folder."""
    return _folder_of_user("GPT2TUI_CONFIG", user_config_path)


def _folder_of_user(variable: str, default: Callable[..., Path]) -> Path:
    """The folder that an environment variable names, else platformdirs' default for this user.

    Raises ResourceError for a user without a home, as services and containers have.
    """
    if named := os.environ.get(variable):
        return Path(named)
    try:
        return default("gpt2tui", appauthor=False)
    except RuntimeError as error:  # of Path.expanduser
        raise ResourceError(f"this user has no home folder; set HOME, or {variable} to a folder") from error


def is_utf8(given: Path | str) -> bool:
    """Whether the bytes of a path or an argument are UTF-8; on Linux both are any bytes."""
    try:
        str(given).encode()
    except UnicodeEncodeError:
        return False
    return True
