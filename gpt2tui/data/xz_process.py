"""A process that compresses a training text once, and again with each of several texts behind it; see `xz.py`.

A script by itself, which imports nothing of gpt2tui. The compressor's state after the training text cannot be copied,
but a process can: a fork continues with each text.

It reads a line with the bytes of the training text and of each text, and then these. It writes lines: `done BYTES`
while it works, and `size N BYTES` for the training text alone (N = 0) and with text N behind it.
"""

import lzma
import os
import sys

FED_BYTES = 1 << 16  # at once: a tenth of a second
SMALLEST_DICTIONARY = 4096


def filters(length: int) -> list[dict[str, int]]:
    """Those of preset 9, which sets up for 64 MB; a dictionary as long as the text gives the same size with less."""
    dictionary = max(SMALLEST_DICTIONARY, 1 << (length - 1).bit_length())
    return [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": dictionary}]


def main() -> int:
    """0, or 1 when one of the processes had no memory."""
    lengths = [int(word) for word in sys.stdin.buffer.readline().split()]
    training, *texts = (sys.stdin.buffer.read(length) for length in lengths)
    compressor = lzma.LZMACompressor(filters=filters(sum(lengths)))
    size = 0
    for start in range(0, len(training), FED_BYTES):
        size += len(compressor.compress(training[start : start + FED_BYTES]))
        _write("done", min(start + FED_BYTES, len(training)))
    for number, text in enumerate(texts, start=1):
        if not os.fork():
            together = size + len(compressor.compress(text)) + len(compressor.flush())
            _write("size", number, together)
            os._exit(0)
    _write("size", 0, size + len(compressor.flush()))
    return int(any(os.wait()[1] for _ in texts))


def _write(*words: object) -> None:
    # In one call, so that lines of several processes do not mix.
    os.write(1, f"{' '.join(map(str, words))}\n".encode())


if __name__ == "__main__":
    sys.exit(main())
