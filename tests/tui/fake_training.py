"""A training that is only a story: it obeys its controls as the real one does and needs no torch."""

import time

from gpt2tui.data.store_building import StageProgress
from gpt2tui.errors import DivergedError
from gpt2tui.launch import Launch, OpenedRun
from gpt2tui.preset.files import load
from gpt2tui.run import folder as runs
from gpt2tui.run.events import CheckpointSaved, LearningRateChanged, Paused, Resumed, RunFinished
from tests.tracking import event_samples


class FakeTraining:
    """A `TrainingStream`: `steps` is how many it takes, `seconds` how long each lasts.

    `fails` is raised after the step `fails_at`, or, where that is None, after the first checkpoint.
    """

    def __init__(self, steps=100_000, seconds=0.002, fails=None, fails_at=3, preparation=()):
        self.steps = steps
        self.seconds = seconds
        self.fails = fails
        self.fails_at = fails_at
        self.preparation = preparation
        self.launches = []
        self.saved = []
        self.requests = []

    def __call__(self, launch, controls):
        self.launches.append(launch)
        run = launch.resume or runs.create(launch.loaded.name, launch.run_dir)
        run.info_file.write_text("{}")
        yield OpenedRun(run, launch.loaded)
        for stage in self.preparation:
            yield StageProgress(stage, 1, 2)
            time.sleep(self.seconds)
        yield event_samples.run_started(run=run.name, num_iterations=self.steps)
        step = 0
        while step < self.steps:
            paused = False
            while not (decision := controls.decide()).stop:
                if (factor := decision.learning_rate_factor) is not None:
                    yield LearningRateChanged(step=step, factor=factor)
                for request in decision.requests:
                    self.requests.append(request)
                    if request == "checkpoint":
                        yield from self._save(run, step)
                    elif request == "evaluate":
                        yield event_samples.evaluated(step)
                    else:
                        yield event_samples.sampled(step)
                while (copy := controls.next_copy()) is not None:
                    copy.set_result(f"weights of step {step}")
                if not decision.pause:
                    break
                if not paused:
                    paused = True
                    yield Paused(step=step)
                controls.wait(0.01)
            if controls.stopping:
                break
            if paused:
                yield Resumed(step=step)
            if self.fails is not None and (self.saved if self.fails_at is None else step == self.fails_at):
                raise self.fails
            step += 1
            time.sleep(self.seconds)
            yield event_samples.step(step, train_loss=8.3 / (1 + step / 50) + 1)
        yield from self._save(run, step)
        yield RunFinished(step=step, best_val_loss=2.0, seconds=1.0, reason="stopped" if controls.stopping else "done")

    def _save(self, run, step):
        folder = run.checkpoints / f"step-{step:08}"
        folder.mkdir(parents=True, exist_ok=True)
        self.saved.append(step)
        yield CheckpointSaved(step=step, path=f"checkpoints/{folder.name}", seconds=0.0, bytes=51_000_000)


def launch(name="small", **changes):
    return Launch(load([name]), **changes)


def diverged():
    return DivergedError("training diverged at step 4: the loss is nan", last_good_step=0)
