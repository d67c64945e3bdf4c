"""TensorBoard: the numbers and samples of a run as event files in `<run folder>/tensorboard`.

A file for each session, whose name does not hold the machine's, as TensorBoard's own do. A resumed run begins with the
mark by which TensorBoard leaves out what the sessions before had at later steps.
"""

import os
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gpt2tui.errors import ResourceError
from gpt2tui.preset.files import dumps
from gpt2tui.preset.schema import Preset
from gpt2tui.run.events import Evaluated, Event, RunFailed, RunFinished, RunStarted, Sampled, Step
from gpt2tui.system.files import open_regular, without_home

FOLDER = "tensorboard"
FLUSH_SECONDS = 5.0
FILE_VERSION = "brain.Event:2"
NOT_NUMBERS = ("v", "event", "time", "step", "whole", "best")


class TensorBoardTracker:
    """A subscriber that writes steps and evaluations as scalars under their names in `events.jsonl`, samples as texts.

    The numbers of the evaluation over the whole validation text have `whole_` before their names. Raises ResourceError
    when the package is missing or the folder cannot be written; OSError from `handle` when the disk is full.
    """

    def __init__(self, preset: Preset, run_folder: Path) -> None:
        if find_spec("tensorboard") is None:
            raise ResourceError(
                "the package tensorboard is not installed: python -m pip install 'gpt2tui[tensorboard]', or in a "
                "checkout uv sync --extra tensorboard"
            )
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._preset = preset
        folder = run_folder / FOLDER
        try:
            if folder.is_symlink():
                raise OSError("it is a link")
            folder.mkdir(exist_ok=True)
            path = folder / f"events.out.tfevents.{time.time():.6f}.gpt2tui"  # read in the order of the names
            descriptor = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except OSError as error:
            raise ResourceError(f"{folder} cannot be written: {error.strerror or error}") from error
        self._file = os.fdopen(descriptor, "wb")
        self._records = RecordWriter(self._file)
        self._flushed = 0.0
        self._write(time.time(), file_version=FILE_VERSION)

    def handle(self, event: Event) -> None:
        """Write the event's numbers or text."""
        from tensorboard.compat.proto.event_pb2 import SessionLog

        match event:
            case RunStarted():
                mark = SessionLog(status=SessionLog.START)
                self._write(event.time, step=event.step + 1, session_log=mark)
                text = without_home(dumps(self._preset))
                # Four blanks before each line make it code in Markdown, whatever is in it.
                self._text(event.time, event.step, "preset", "\n".join(f"    {line}" for line in text.splitlines()))
            case Step() | Evaluated():
                self._scalars(event, "whole_" if isinstance(event, Evaluated) and event.whole else "")
            case Sampled():
                text = "\n".join(f"    {line}" for line in f"{event.prompt}{event.text}".splitlines())
                self._text(event.time, event.step, "sample", text)
        is_end = isinstance(event, RunFinished | RunFailed)
        if is_end or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._file.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _scalars(self, event: Step | Evaluated, prefix: str) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        numbers = {name: value for name, value in event.as_dict().items() if name not in NOT_NUMBERS}
        values = [
            Summary.Value(tag=prefix + name, simple_value=value) for name, value in numbers.items() if value is not None
        ]
        self._write(event.time, step=event.step, summary=Summary(value=values))

    def _text(self, seconds: float, step: int, tag: str, text: str) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
        from tensorboard.compat.proto.types_pb2 import DT_STRING

        kind = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
        tensor = TensorProto(dtype=DT_STRING, string_val=[text.encode("utf-8", "replace")], tensor_shape=shape)
        value = Summary.Value(tag=tag, metadata=kind, tensor=tensor)
        self._write(seconds, step=step, summary=Summary(value=[value]))

    def _write(self, seconds: float, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event as Record

        self._records.write(Record(wall_time=seconds, **content).SerializeToString())
