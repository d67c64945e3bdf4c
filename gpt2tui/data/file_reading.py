"""Files as text: gzipped or not, strictly UTF-8, in blocks, with errors that name the file and the place."""

import codecs
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from gpt2tui.errors import DataError

BLOCK_BYTES = 1 << 20


def suffix(path: Path) -> str:
    """The file's kind, such as `.txt`, whether or not `.gz` follows it."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, decompressed if it is gzipped. Raises DataError for what goes wrong meanwhile."""
    try:
        is_gzipped = path.name.lower().endswith(".gz")
        with cast(BinaryIO, gzip.open(path)) if is_gzipped else path.open("rb") as file:
            yield file
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a whole gzip file ({error}): copy or download it again") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def blocks(path: Path, start: int = 0, stop: int | None = None) -> Iterator[str]:
    """The text of a file's bytes [start, stop) in blocks of about 1 MB, with LF line ends, without a BOM."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = start
    held_back = ""
    with opened(path) as file:
        file.seek(start)
        while True:
            data = file.read(BLOCK_BYTES if stop is None else min(BLOCK_BYTES, stop - offset))
            undecoded = len(decoder.getstate()[0])
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                raise not_utf8(path, offset - undecoded + error.start) from error
            if offset == 0:
                text = text.removeprefix("\ufeff")
            offset += len(data)
            text = held_back + text
            # A CR at the end of a block may be the first half of a CRLF.
            held_back = "\r" if data and text.endswith("\r") else ""
            text = text.removesuffix(held_back).replace("\r\n", "\n")
            if text:
                yield text
            if not data:
                return


def lines(path: Path) -> Iterator[str]:
    """The lines of a file with their ends, without a BOM. Lines end at LF only."""
    offset = 0
    with opened(path) as file:
        for line in file:
            try:
                yield line.decode("utf-8" if offset else "utf-8-sig")
            except UnicodeDecodeError as error:
                raise not_utf8(path, offset + error.start) from error
            offset += len(line)


def size(path: Path) -> int:
    """The number of bytes, decompressed; a gzipped file is read through for it."""
    with opened(path) as file:
        if not path.name.lower().endswith(".gz"):
            return path.stat().st_size
        return sum(len(block) for block in iter(lambda: file.read(BLOCK_BYTES), b""))


def is_empty(path: Path) -> bool:
    """Whether a file has no text: no bytes once decompressed, or nothing but a byte order mark."""
    with opened(path) as file:
        return file.read(len(codecs.BOM_UTF8) + 1) in (b"", codecs.BOM_UTF8)


def line_end_near(path: Path, offset: int, end: int) -> int:
    """An offset to cut the file at: after the next line end, else at the next whole character, else at its end."""
    with opened(path) as file:
        file.seek(offset)
        data = file.read(min(BLOCK_BYTES, end - offset))
    newline = data.find(b"\n") + 1
    if newline and offset + newline < end:
        return offset + newline
    continuation = next((i for i, byte in enumerate(data) if byte & 0xC0 != 0x80), len(data))
    return offset + continuation


def not_utf8(path: Path, offset: int) -> DataError:
    """The error for a file in another encoding."""
    return DataError(
        f"{path} is not UTF-8 text: the byte at offset {offset:,} does not belong there; convert the file to UTF-8"
    )
