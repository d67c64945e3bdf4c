"""Files as text: compressed or not, strictly UTF-8, in blocks, with errors that name the file and the place."""

import codecs
import io
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from gpt2tui.errors import DataError
from gpt2tui.system.numbers import byte_size

BLOCK_BYTES = 1 << 20
LONGEST_LINE = 256 << 20
"""Bytes of the longest line of a table, which is read whole; a small compressed file can hold far longer ones."""
MOST_TEXT_OF_ANY_FILE = 1 << 30
MOST_TEXT_PER_BYTE = 10_000
"""Characters per byte of a file, beyond which its text is repetition: gzip reaches 1,032, zstd and parquet any."""
NAMED_FILES = 10
"""How many files an error names at most."""
COMPRESSIONS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}
"""The suffixes of compressed files, which follow the file's kind, and the names of their formats."""
_SAMPLE_BYTES = 4096


class NotTextError(DataError):
    """A file is not UTF-8 text."""


def suffix(path: Path) -> str:
    """The file's kind, such as `.txt`, whether or not a suffix of COMPRESSIONS follows it."""
    name = Path(path.name.lower())
    return Path(name.stem).suffix if name.suffix in COMPRESSIONS else name.suffix


def compression(path: Path) -> str | None:
    """The format in which the file is compressed, by its name; None where it is not."""
    return COMPRESSIONS.get(path.suffix.lower())


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, decompressed. Raises DataError for what goes wrong meanwhile."""
    kind = compression(path)
    try:
        with path.open("rb") as file, _decompressed(file, kind) as decompressed:
            yield decompressed
    except (EOFError, zlib.error) as error:
        raise _not_whole(path, kind, error) from error
    except OSError as error:
        if kind and error.errno is None:  # of the format, not of the disk
            raise _not_whole(path, kind, error) from error
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


@contextmanager
def _decompressed(file: BinaryIO, kind: str | None) -> Iterator[BinaryIO]:
    match kind:
        case "gzip":
            import gzip

            with gzip.GzipFile(fileobj=file) as stream:
                yield cast(BinaryIO, stream)
        case "bzip2":
            import bz2

            with bz2.BZ2File(file) as bz2_stream:
                yield cast(BinaryIO, bz2_stream)
        case "xz":
            import lzma

            try:
                with lzma.LZMAFile(file) as xz_stream:
                    yield cast(BinaryIO, xz_stream)
            except lzma.LZMAError as error:
                raise EOFError(str(error)) from error
        case "zstd":
            import pyarrow

            with pyarrow.CompressedInputStream(file, "zstd") as raw, io.BufferedReader(raw, BLOCK_BYTES) as zstd_stream:
                yield cast(BinaryIO, zstd_stream)
        case _:
            yield file


def _not_whole(path: Path, kind: str | None, error: BaseException) -> DataError:
    return DataError(f"{path} is not a whole {kind} file ({error}): copy or download it again")


def _skip(file: BinaryIO, count: int) -> None:
    """Moves on from the beginning of a file; zstd is read from front to back only."""
    if file.seekable():
        file.seek(count)
        return
    while count and (data := file.read(min(count, BLOCK_BYTES))):
        count -= len(data)


def refuse_repetition(path: Path, length: int) -> None:
    """Raises DataError where a file has `length` characters of text, which its size allows only as repetition."""
    if length <= MOST_TEXT_OF_ANY_FILE:
        return
    size = path.stat().st_size
    most = max(MOST_TEXT_OF_ANY_FILE, MOST_TEXT_PER_BYTE * size)
    if length > most:
        raise DataError(
            f"{path} of {byte_size(size)} holds more than {byte_size(most)} of text, which is the same over and over; "
            "leave it out"
        )


def blocks(path: Path, start: int = 0, stop: int | None = None) -> Iterator[str]:
    """The text of a file's bytes [start, stop) in blocks of about 1 MB, with LF line ends, without a BOM.

    Raises NotTextError where it is not UTF-8 or has NUL bytes.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = start
    held_back = ""
    with opened(path) as file:
        _skip(file, start)
        while True:
            data = file.read(BLOCK_BYTES if stop is None else min(BLOCK_BYTES, stop - offset))
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                raise not_text([path]) from error
            if "\0" in text:
                raise not_text([path])
            refuse_repetition(path, offset)
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
    """The lines of a file with their LF ends, without a BOM.

    Raises NotTextError as `blocks` does, and DataError for a line of more than LONGEST_LINE bytes.
    """
    encoding, offset = "utf-8-sig", 0
    with opened(path) as file:
        while line := file.readline(LONGEST_LINE + 1):
            if len(line) > LONGEST_LINE:
                raise DataError(
                    f"{path} has a line of more than {byte_size(LONGEST_LINE)} at offset {offset:,}; split it into "
                    "several rows"
                )
            offset += len(line)
            if b"\0" in line:
                raise not_text([path])
            try:
                yield line.decode(encoding)
            except UnicodeDecodeError as error:
                raise not_text([path]) from error
            encoding = "utf-8"


def size(path: Path) -> int:
    """The number of bytes, decompressed; a compressed file is read through for it."""
    with opened(path) as file:
        if compression(path) is None:
            return path.stat().st_size
        total = 0
        while data := file.read(BLOCK_BYTES):
            total += len(data)
            refuse_repetition(path, total)
        return total


def is_empty(path: Path) -> bool:
    """Whether a file has no text: no bytes once decompressed, or nothing but a byte order mark."""
    with opened(path) as file:
        return file.read(len(codecs.BOM_UTF8) + 1) in (b"", codecs.BOM_UTF8)


def line_end_near(path: Path, offset: int, end: int) -> int:
    """An offset to cut the file at: after the next line end, else at the next whole character, else at its end."""
    with opened(path) as file:
        _skip(file, offset)
        data = file.read(min(BLOCK_BYTES, end - offset))
    newline = data.find(b"\n") + 1
    if newline and offset + newline < end:
        return offset + newline
    continuation = next((i for i, byte in enumerate(data) if byte & 0xC0 != 0x80), len(data))
    return offset + continuation


def not_text(paths: Sequence[Path]) -> NotTextError:
    """The error that names all of these files that are not UTF-8 text, with what they are and the place."""
    faults = [(path, fault) for path in paths if (fault := text_fault(path))]
    if len(faults) == 1:
        path, fault = faults[0]
        return NotTextError(f"{path} {fault}; convert the file to UTF-8, or leave it out")
    named = "; ".join(f"{path} {fault}" for path, fault in faults[:NAMED_FILES])
    more = f"; and {len(faults) - NAMED_FILES} more" if len(faults) > NAMED_FILES else ""
    return NotTextError(f"{len(faults)} files are not text; convert them to UTF-8, or leave them out: {named}{more}")


def text_fault(path: Path) -> str | None:
    """What a file is that is not UTF-8 text, with the line and the offset of its first bad byte; None if it is text."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset, line = 0, 1
    with opened(path) as file:
        while True:
            data = file.read(BLOCK_BYTES)
            if offset == 0 and (encoding := _utf16_or_utf32(data[:_SAMPLE_BYTES])):
                return f"is {encoding} text, not UTF-8"
            undecoded = decoder.getstate()[0]
            bad = None
            try:
                decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                bad = error.start - len(undecoded)
            null = data.find(b"\0")
            if null >= 0 and (bad is None or null < bad):
                line += data.count(b"\n", 0, null)
                place = f"line {line}, offset {offset + null:,}"
                rest_is_null = not data[null:].strip(b"\0") and all(
                    not block.strip(b"\0") for block in iter(lambda: file.read(BLOCK_BYTES), b"")
                )
                if rest_is_null:
                    return f"ends in NUL bytes from {place} on, as a file cut off by a crash does"
                return f"is binary, not text: there is a NUL byte at {place}"
            if bad is not None:
                line += data.count(b"\n", 0, max(bad, 0))
                if _has_controls(data):
                    return f"is binary, not text: line {line}, the byte at offset {offset + bad:,}"
                return f"is not UTF-8 text: line {line}, the byte at offset {offset + bad:,} does not belong there"
            if not data:
                return None
            offset += len(data)
            line += data.count(b"\n")


def _has_controls(data: bytes) -> bool:
    """Whether more than 1 % of the bytes are control characters that no text has, whatever its encoding."""
    beginning = data[:_SAMPLE_BYTES]
    return sum(byte < 0x20 and byte not in b"\b\t\n\v\f\r\x1a\x1b" for byte in beginning) * 100 > len(beginning)


def _utf16_or_utf32(beginning: bytes) -> str | None:
    """The encoding where a byte order mark or the bytes at even or odd offsets give it away, else None.

    In UTF-16 one of the two bytes of most characters is the same small number, such as 0 in Latin or 4 in Cyrillic.
    Few other bytes are UTF-32, where a number of four bytes is at most 0x10FFFF.
    """
    if beginning.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "UTF-32"
    if beginning.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16"
    whole = beginning[: len(beginning) // 4 * 4]
    for encoding in ("utf-32-le", "utf-32-be"):
        with suppress(UnicodeDecodeError):
            if whole and "\0" not in whole.decode(encoding):
                return "UTF-32"
    common = [Counter(beginning[i::2]).most_common(1) for i in (0, 1)]
    if not all(common):
        return None
    (low, high), half = sorted(each[0] for each in common), len(beginning) // 2
    # A binary file that begins with zeros has them at both kinds of offsets.
    is_utf16 = half >= 4 and low[0] < 0x20 and low[1] > 0.6 * half and high[0] >= 0x20
    return "UTF-16" if is_utf16 else None
