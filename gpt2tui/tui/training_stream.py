"""A training as one stream: what its thread tells, from opening the run folder to the last event."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Union

from gpt2tui.folders import cache_folder
from gpt2tui.training.controls import Controls
from gpt2tui.training.events import Event, Warned
from gpt2tui.tui.torch_loading import load_torch

if TYPE_CHECKING:
    from gpt2tui.launch import OpenedRun
    from gpt2tui.preset_files import LoadedPreset
    from gpt2tui.runs import Run
    from gpt2tui.tracking.preparation import Progress


@dataclass(frozen=True)
class Launch:
    """What is to be trained: a preset in a new run, or a run that goes on from its newest valid checkpoint.

    `layers` and `overrides` change how a resumed run goes on; `slow_down` multiplies the learning rate
    that it had: 0.5 after it diverged.
    """

    loaded: "LoadedPreset"
    resume: "Run | None" = None
    run_dir: Path | None = None
    layers: tuple[str | Path, ...] = ()
    overrides: tuple[str, ...] = ()
    slow_down: float = 1.0


Told = Union["OpenedRun", "Progress", Event]
"""What a training tells: once its run folder, then how far the preparation is, then its events."""

TrainingStream = Callable[[Launch, Controls], Iterator[Told]]
"""How a training is driven; tests put a stream of their own here."""


def training_stream(launch: Launch, controls: Controls) -> Iterator[Told]:
    """Trains; whoever iterates decides the thread. Raises what ends a training early, see `Trainer.train`."""
    from gpt2tui import checkpoint
    from gpt2tui.launch import make_trainer, new_run, resumed_run, trackers
    from gpt2tui.tracking.subscriber import Subscribers

    opening = (
        resumed_run(launch.resume, launch.layers, launch.overrides)
        if launch.resume is not None
        else new_run(launch.loaded, launch.run_dir)
    )
    with opening as opened:
        yield opened
        from gpt2tui.data.token_store import prepare  # numpy and more: not before somebody trains

        corpus = yield from prepare(opened.loaded.preset, cache_folder())
        if controls.stopping:
            return
        if launch.slow_down != 1.0 and opened.resume_from is not None:
            before = checkpoint.read_json(opened.resume_from.folder / "trainer.json").get("learning_rate_factor", 1.0)
            controls.change_learning_rate(before * launch.slow_down)
        load_torch()
        trainer = make_trainer(opened, corpus, controls)
        reports: list[str] = []
        subscribers = Subscribers(trackers(trainer, reports.append), reports.append)
        try:
            for event in trainer.train():
                subscribers.handle(event)
                yield event
                yield from _told(reports)
        finally:
            with contextlib.suppress(Exception):
                subscribers.close()
        yield from _told(reports)


def _told(reports: list[str]) -> Iterator[Warned]:
    """What the subscribers have had to say, as events; W&B's thread may be adding to it."""
    while reports:
        yield Warned(message=reports.pop(0))
