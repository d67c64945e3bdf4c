"""A training as the Train screen sees it: 412 steps of the small preset at once, then it waits for its controls."""

import math
import time

from gpt2tui.launch import OpenedRun
from gpt2tui.run import events
from gpt2tui.run import folder as runs
from tests.tracking import event_samples

TEXT = '''__init__(self, name=None):
        """Return the name of the file."""
        self.name = name
        return self
'''
DEVICE_MEMORY = {"device_memory_bytes": 6_100_000_000, "device_memory_reserved_bytes": 6_400_000_000, "mfu": 0.31}


def loss_at(step):
    return 1.6 + 6.7 * math.exp(-step / 45) + 0.12 * math.sin(step * 1.7) * math.sin(step * 0.31)


def rate_at(step):
    return 6e-3 * min(1.0, step / 20)


def story(steps=412, run="2026-01-31-120000-small", start=0, text=TEXT, num_iterations=1200, **step_changes):
    """The events of a run up to a step, as they would have come until now."""
    begin = time.time() - (steps - start) * 0.305
    at = lambda step: begin + (step - start) * 0.305  # noqa: E731
    yield event_samples.run_started(
        run=run, num_iterations=num_iterations, step=start, parameters=3_474_944, time=begin
    )
    lowest = None
    for step in range(start + 1, steps + 1):
        yield event_samples.step(
            step,
            time=at(step),
            train_loss=loss_at(step),
            learning_rate=rate_at(step),
            grad_norm=0.6 + 2.0 * math.exp(-step / 30) + 0.1 * math.sin(step),
            tokens_per_second=13_400 + 300 * math.sin(step / 9),
            step_seconds=0.153,
            host_memory_bytes=900_000_000 + 1_000_000 * min(step, 120),
            **step_changes,
        )
        if step % 100 == 0:
            val = loss_at(step) + 0.1
            best = lowest is None or val < lowest
            lowest = val if best else lowest
            yield event_samples.evaluated(
                step, val, bits_per_byte=val / 2.36, time=at(step), best=best, best_val_loss=lowest
            )
            written = "def self the , ( .\n" if step == 100 else text
            yield events.Sampled(step=step, prompt="def ", text=written, time=at(step))
            yield events.CheckpointSaved(
                step=step, path=f"checkpoints/step-{step:08}", seconds=0.2, bytes=51_000_000, time=at(step)
            )


class StoryTraining:
    """A `TrainingStream` that tells the story and then obeys its controls."""

    def __init__(self, *told, fails=None, **changes):
        self.told = told
        self.fails = fails
        self.changes = changes
        self.requests = []
        self.launches = []

    def __call__(self, launch, controls):
        self.launches.append(launch)
        run = launch.resume or runs.create(launch.loaded.name, launch.run_dir)
        run.info_file.write_text('{"data": {"train_bytes": 10500000}}')
        yield OpenedRun(run, launch.loaded)
        step = 0
        for event in self.told or story(run=run.name, **self.changes):
            step = getattr(event, "step", step)
            if isinstance(event, events.CheckpointSaved):
                (run.folder / event.path).mkdir(parents=True, exist_ok=True)
            yield event
        if self.fails is not None:
            fails, self.fails = self.fails, None
            raise fails
        paused = False
        while not (decision := controls.decide()).stop:
            if (factor := decision.learning_rate_factor) is not None:
                yield events.LearningRateChanged(step=step, factor=factor)
            self.requests.extend(decision.requests)
            if decision.pause != paused:
                paused = decision.pause
                yield events.Paused(step=step) if paused else events.Resumed(step=step)
            time.sleep(0.01)
        yield events.RunFinished(step=step, best_val_loss=1.7, seconds=125.0, reason="stopped")
