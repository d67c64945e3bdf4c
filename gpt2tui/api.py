"""What `import gpt2tui` offers to scripts and notebooks: thin functions over the modules that do the work.

`docs/python.md` shows each with its output. Expected failures are the exceptions in `gpt2tui.errors`. Imports no torch
before a model is loaded or trained.
"""

import contextlib
import logging
import os
import signal
import threading
import warnings
import weakref
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, overload

from gpt2tui.errors import CheckpointError, PresetError, UsageError
from gpt2tui.launch import Emitted, OpenedRun, drive, new_run, refuse_several_processes, resumed_run
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.layers import merge, read_settings
from gpt2tui.preset.schema import Preset, SamplingTable
from gpt2tui.preset.validation import validate
from gpt2tui.run import checkpoint
from gpt2tui.run import folder as run_folders
from gpt2tui.run.checkpoint import Checkpoint
from gpt2tui.run.events import Evaluated, Event, RunStarted, Step
from gpt2tui.run.events_file import read_events
from gpt2tui.run.summary import summarize
from gpt2tui.system.terminal_text import report_on_stderr
from gpt2tui.training.controls import Controls

if TYPE_CHECKING:
    from gpt2tui.generation import DecodingPrecision, TextModel
    from gpt2tui.model.gpt2 import GPT2

PresetLike = str | Path | Preset | Mapping[str, Any]
"""A preset's name or file, a Preset, or a mapping with what a preset file says (`extends` included)."""

log = logging.getLogger("gpt2tui")


# ---- presets


def presets() -> list[str]:
    """The names of all presets: the user's own, then the shipped ones."""
    return [source.name for source in preset_files.available()]


def load_preset(preset: PresetLike, settings: Mapping[str, Any] | None = None, **tables: Mapping[str, Any]) -> Preset:
    """A preset with some settings changed: `load_preset("small", {"optimizer.lr": 1e-3})`.

    `settings` has dotted keys or tables; keywords are tables: `training={"seed": 3, "batch_size": 8}`, and win. None as
    a value leaves a setting out. Raises PresetError with every mistake.
    """
    return _loaded(preset, settings, tables).preset


def _loaded(
    preset: PresetLike, settings: Mapping[str, Any] | None, tables: Mapping[str, Any]
) -> preset_files.LoadedPreset:
    layer = preset.model_dump(exclude_none=True) if isinstance(preset, Preset) else preset
    return preset_files.load([layer, settings or {}], tables)


# ---- training


def train(
    preset: PresetLike,
    settings: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    **tables: Mapping[str, Any],
) -> "Training":
    """Trains a preset in a new run, in the caller's thread; iterate over the result for its events.

    `settings` and `tables` change the preset as in `load_preset`. The run folder is `run_dir`, or a new one in the runs
    folder whose name ends in `name`, or else the preset's. Raises PresetError, and UsageError under torchrun; the
    iteration raises DataError, CheckpointError, DivergedError, ResourceError and RunLockedError.
    """
    refuse_several_processes()
    loaded = _loaded(preset, settings, tables)
    return Training(new_run(loaded, None if run_dir is None else Path(run_dir), name))


def resume(
    run: "str | os.PathLike[str]",
    settings: Mapping[str, Any] | None = None,
    *,
    run_dir: str | os.PathLike[str] | None = None,
    **tables: Mapping[str, Any],
) -> "Training":
    """Continues a run from its newest valid checkpoint, or from that of RUN@STEP, with some settings changed.

    `run` is a TrainingRun, a folder, a name, a unique beginning of a name, or `latest`. With `run_dir` the run stays as
    it is, and a new one in that folder continues. Raises UsageError when there is no such run; the iteration raises
    what that of `train` does.
    """
    refuse_several_processes()
    found, saved = run_folders.find_with_checkpoint(os.fspath(run))
    branch = None if run_dir is None else Path(run_dir)
    return Training(resumed_run(found, (), {**(settings or {}), **tables}, resume_from=saved, branch=branch))


class Training(Iterator[Event]):
    """A training that advances while it is iterated over: `for event in training: ...`, all in one thread.

    Ctrl-C, `stop`, `close`, the end of a `with` block, and a loop that is left while nothing else holds the training
    have the step finished and a checkpoint saved. After Ctrl-C the last events still arrive, then KeyboardInterrupt;
    a second Ctrl-C stops at once. Signals are handled in the main thread only, and only if Python's own handler was in
    place.
    """

    def __init__(self, opening: contextlib.AbstractContextManager[OpenedRun]) -> None:
        self.controls = Controls()
        """Pauses, resumes, asks for a checkpoint or an evaluation, changes the learning rate; from any thread."""
        self._started: list[TrainingRun] = []  # empty, or the run
        self._interrupted = False
        # It must not refer to `self`, which would then outlive the loop that holds it.
        self._events = _events(drive(opening, self.controls), self.controls, self._started)
        self._close = weakref.finalize(self, _close, self._events)  # at the latest when the process ends

    @property
    def run(self) -> "TrainingRun":
        """The run that is trained. Raises UsageError before the first event, when there is none yet."""
        if not self._started:
            raise UsageError("the training has no run before its first event: iterate over it first")
        return self._started[0]

    def stop(self) -> None:
        """Asks for the end, from any thread: the step is finished, a checkpoint saved, and the iteration ends."""
        self.controls.stop()

    def close(self) -> None:
        """Finishes the step, saves a checkpoint and waits for it; events that are left are in the run's events."""
        self._close()

    def __next__(self) -> Event:
        with self._stopping_on_interrupt():
            try:
                return next(self._events)
            except StopIteration:
                if self._interrupted:
                    self._interrupted = False
                    raise KeyboardInterrupt from None
                raise

    def __enter__(self) -> "Training":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextlib.contextmanager
    def _stopping_on_interrupt(self) -> Iterator[None]:
        """Turns a first Ctrl-C into a stop, except while the data is prepared, when there is nothing to save."""
        in_main_thread = threading.current_thread() is threading.main_thread()
        if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield
            return
        before = signal.signal(signal.SIGINT, self._interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if not self._started or self.controls.stopping:
            raise KeyboardInterrupt
        self._interrupted = True
        self.controls.stop()
        report_on_stderr("stopping after this step, then saving a checkpoint; press Ctrl-C again to stop at once")


def _events(
    stream: Generator[Emitted, None, None], controls: Controls, started: "list[TrainingRun]"
) -> Generator[Event, None, None]:
    """The events of a training; the progress of its preparation goes to the log. Closed early, it stops cleanly."""
    stage = ""
    with contextlib.closing(stream):
        first = next(stream)
        assert isinstance(first, OpenedRun)
        try:
            for emitted in stream:
                if isinstance(emitted, RunStarted):
                    started.append(TrainingRun(first.run.folder))
                if isinstance(emitted, Event):
                    yield emitted
                elif not isinstance(emitted, OpenedRun) and emitted.stage != stage:
                    stage = emitted.stage
                    log.info("%s", stage)
        except GeneratorExit:
            controls.stop()
            for _ in stream:  # to the end of the step and the checkpoint
                pass


def _close(events: Generator[Event, None, None]) -> None:
    with contextlib.suppress(ValueError):  # another thread is in it while the process ends
        events.close()


# ---- runs


def runs(folder: str | os.PathLike[str] | None = None) -> list[dict[str, Any]]:
    """A row for each run in a folder (default: GPT2TUI_RUNS, else ./runs), oldest first: `pandas.DataFrame(runs())`.

    A row is `TrainingRun.row()`. Raises UsageError when the folder that is named does not exist.
    """
    if folder is not None and not Path(folder).is_dir():
        raise UsageError(f"there is no folder {os.fspath(folder)}")
    found = run_folders.all_runs(None if folder is None else Path(folder))
    return [TrainingRun(run.folder).row() for run in found]


def find_run(run: str | os.PathLike[str]) -> "TrainingRun":
    """A run by its folder, its name, a unique beginning of its name, or `latest`. Raises UsageError."""
    return TrainingRun(run_folders.find(os.fspath(run)).folder)


@dataclass(frozen=True)
class TrainingRun:
    """A run on disk; everything is read anew from its folder, so it may still be training."""

    folder: Path

    def __fspath__(self) -> str:
        return os.fspath(self.folder)

    @property
    def name(self) -> str:
        """The folder's name."""
        return run_folders.Run(self.folder).name

    @property
    def preset(self) -> Preset:
        """The preset it was trained with, everything filled in. Raises CheckpointError when it cannot be read."""
        return preset_files.load_frozen(run_folders.Run(self.folder).preset_file)

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """The valid checkpoints, by step; each has a `step`, a `folder` and `metrics`."""
        return checkpoint.saved_in(run_folders.Run(self.folder).checkpoints)

    def row(self) -> dict[str, Any]:
        """State, progress, losses and metrics by name, then every setting by its dotted key; None is unknown or unset.

        Losses are in nats per token, times in seconds. A run whose preset cannot be read has no settings.
        """
        settings: dict[str, Any] = {}
        with contextlib.suppress(CheckpointError):
            settings = preset_files.flat(self.preset)
        return {**summarize(run_folders.Run(self.folder)).as_dict(), **settings}

    def events(self) -> Iterator[Event]:
        """All events as one history: what a resume has trained again replaces what was there. Raises OSError."""
        return read_events(run_folders.Run(self.folder).events_file)

    def curve(self) -> list[dict[str, Any]]:
        """A row for each step: its loss and speed, and what was measured where it was evaluated, else None.

        `val_loss` is over the fixed sample; the last evaluation, over the whole validation text, is in `events`. The
        metrics of `[evaluation]` have the names that they have in the events.
        """
        rows: dict[int, dict[str, Any]] = {}
        measured: dict[str, None] = {}  # names in their order
        columns = ("train_loss", "learning_rate", "tokens_seen", "tokens_per_second")
        for event in self.events():
            if isinstance(event, Step):
                rows[event.step] = {
                    "step": event.step,
                    **{name: getattr(event, name) for name in columns},
                    "val_loss": None,
                    "bits_per_byte": None,
                }
            elif isinstance(event, Evaluated) and not event.whole and event.step in rows:
                rows[event.step] |= {"val_loss": event.val_loss, "bits_per_byte": event.bits_per_byte, **event.metrics}
                measured |= dict.fromkeys(event.metrics)
        return [{**row, **{name: row.get(name) for name in measured}} for row in rows.values()]


# ---- models


class SamplingOptions(TypedDict, total=False):
    """How tokens are chosen; what is left out is as in the [sampling] table of the model's preset."""

    max_length: int
    temperature: float
    top_k: int
    top_p: float
    seed: int


@dataclass(frozen=True)
class TokenLogprob:
    """A token of a text and its log-probability after all tokens before it, in nats."""

    token: str
    """Its text; empty while a character of several tokens is incomplete."""
    id: int
    logprob: float


def load(
    model: str | os.PathLike[str], *, device: str = "auto", precision: "DecodingPrecision" = "auto"
) -> "LanguageModel":
    """Loads a checkpoint: its folder, a run (its best checkpoint), a folder in Hugging Face's form, or a Hub id.

    `device` is auto, cpu, cuda or mps; `precision` that of the weights of a CPU while it generates: auto, fp32 or fp16.
    Raises CheckpointError when it is missing, damaged or no GPT-2, and ResourceError when memory does not suffice.
    """
    from gpt2tui import generation

    loaded = generation.load(os.fspath(model), device, precision)
    for problem in loaded.saved.skipped if loaded.saved else ():
        warnings.warn(f"{problem}; using another checkpoint", stacklevel=2)
    return LanguageModel(loaded)


class LanguageModel:
    """A model with its tokenizer, in evaluation mode."""

    def __init__(self, loaded: "TextModel") -> None:
        self._loaded = loaded

    def __repr__(self) -> str:
        return f"<LanguageModel of {self.network.num_parameters:,} parameters from {str(self.folder)!r}>"

    @property
    def network(self) -> "GPT2":
        """The torch module: `network(ids)` of shape (B, T) gives logits (B, T, V)."""
        return self._loaded.model

    @property
    def folder(self) -> Path:
        """The folder that it was loaded from."""
        return Path(self._loaded.source)

    @property
    def context_length(self) -> int:
        """How many tokens it reads at once."""
        return self._loaded.context_length

    @property
    def sampling(self) -> SamplingTable:
        """The prompt and the sampling settings that are used where none are given."""
        return self._loaded.sampling

    def encode(self, text: str) -> list[int]:
        """The token ids of a text."""
        return [int(token) for token in self._loaded.tokenizer.encode(text)]

    def decode(self, ids: list[int]) -> str:
        """The text of token ids."""
        return self._loaded.tokenizer.decode(ids)

    @overload
    def generate(
        self, prompt: str | None = None, *, num_samples: None = None, **sampling: Unpack[SamplingOptions]
    ) -> str: ...
    @overload
    def generate(
        self, prompt: str | None = None, *, num_samples: int, **sampling: Unpack[SamplingOptions]
    ) -> list[str]: ...
    def generate(
        self, prompt: str | None = None, *, num_samples: int | None = None, **sampling: Unpack[SamplingOptions]
    ) -> str | list[str]:
        """The continuation of a prompt, without the prompt; a list of them where `num_samples` is given.

        A model that was trained on prompts and answers answers the prompt, in its template.
        Sampling settings: max_length (tokens), temperature, top_k, top_p, seed; sample n, from 0, has the seed + n.
        What is left out, the prompt too, is as in the preset of the model's run. Raises PresetError for a wrong value.
        """
        if num_samples is None:
            return "".join(self.stream(prompt, **sampling))
        if num_samples < 1:
            raise UsageError(f"num_samples must be at least 1, not {num_samples}")
        settings = self._sampling(prompt, sampling)
        return [each.text for each in self._loaded.continuations(settings.prompt, settings, num_samples)]

    def stream(self, prompt: str | None = None, **sampling: Unpack[SamplingOptions]) -> Iterator[str]:
        """The continuation of a prompt, piece by piece, as `generate` returns it."""
        return self._texts(self._sampling(prompt, sampling))

    def logprobs(self, text: str) -> list[TokenLogprob]:
        """The log-probability of each token of a text, in nats; the tokens' texts together are the text.

        The text begins a document, as in training. One longer than the context loses the older half of the context
        whenever that is full.
        """
        found: list[TokenLogprob] = []
        for scored in self._loaded.score(text):
            if scored.token >= 0:
                found.append(TokenLogprob(scored.text, scored.token, scored.log_probability))
            else:  # the rest of a character that stays incomplete
                found[-1] = TokenLogprob(found[-1].token + scored.text, found[-1].id, found[-1].logprob)
        return found

    def _texts(self, settings: SamplingTable) -> Iterator[str]:
        return (
            token.text
            for token in self._loaded.stream(self._loaded.prompt_tokens(settings.prompt), settings)
            if token.text
        )

    def _sampling(self, prompt: str | None, given: SamplingOptions) -> SamplingTable:
        """The sampling settings. Raises PresetError with every wrong value."""
        chosen = {**given} if prompt is None else {**given, "prompt": prompt}
        layers = (read_settings({"sampling": table}) for table in (self.sampling.model_dump(), chosen))
        preset, mistakes = validate(merge(*layers))
        if preset is None:
            raise PresetError(*mistakes)
        return preset.sampling
