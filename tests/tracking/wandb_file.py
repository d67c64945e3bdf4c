"""The records of a `.wandb` file: a LevelDB log (blocks of 32 KiB, 7-byte headers) of protocol buffers.

Written from LevelDB's description of its log format; W&B puts a header of 7 bytes before the first record.
"""

import json
import struct

from wandb.proto import wandb_internal_pb2

_BLOCK = 32 * 1024
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def records(path):
    """Every record in the file, as W&B's own message type."""
    data = path.read_bytes()
    position, parts = 7, []
    while position + 7 <= len(data):
        left = _BLOCK - position % _BLOCK
        if left < 7:
            position += left
            continue
        _checksum, length, kind = struct.unpack_from("<IHB", data, position)
        parts.append(data[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in (_FULL, _LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(b"".join(parts))
            parts = []
            yield record


def history(path):
    """The dictionaries that were logged, in order."""
    return [
        {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records(path)
        if record.HasField("history")
    ]
