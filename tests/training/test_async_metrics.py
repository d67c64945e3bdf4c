"""Numbers that are read only after the next update has begun, as on a GPU, are the same numbers in the same order."""

import pytest
import torch

from gpt2tui.errors import DivergedError
from gpt2tui.run.events import CheckpointSaved, Evaluated, Paused, RunFailed, Sampled, Step
from gpt2tui.training import update
from tests import tiny_runs


@pytest.fixture
def late(monkeypatch):
    """A CPU whose results are read late."""
    begin = update.Update.begin

    def reading_late(self, *arguments):
        self.async_metrics = True
        return begin(self, *arguments)

    monkeypatch.setattr(update.Update, "begin", reading_late)


SETTINGS = ("model.dropout=0.2", "training.gradient_accumulation=2", "training.checkpoint_frequency=5")


def story(events):
    """Steps, evaluations and samples, without their times."""
    kept = [e for e in events if isinstance(e, Step | Evaluated | Sampled)]
    return [
        (type(e), e.step, getattr(e, "train_loss", None), getattr(e, "grad_norm", None), getattr(e, "val_loss", None))
        for e in kept
    ]


def test_the_events_are_the_same_bit_for_bit(tmp_path, request):
    early = story(tiny_runs.trainer(tmp_path, *SETTINGS).train())
    request.getfixturevalue("late")
    assert story(tiny_runs.trainer(tmp_path, *SETTINGS).train()) == early


def test_the_event_of_a_step_comes_after_the_next_has_begun_and_before_any_other_event_of_its_step(tmp_path, late):
    trainer = tiny_runs.trainer(tmp_path, *SETTINGS)
    order = []
    for event in trainer.train():
        if isinstance(event, Step):
            order.append(("step", event.step, trainer.step))
        elif isinstance(event, Evaluated | CheckpointSaved):
            order.append((type(event), event.step, None))
    steps = [(emitted, begun) for kind, emitted, begun in order if kind == "step"]
    # Evaluations are due at 4, 8 and 12, checkpoints at 5, 10 and the end.
    assert steps == [(s, s if s in (4, 5, 8, 10, 12) else s + 1) for s in range(1, 13)]
    assert order.index((Evaluated, 4, None)) > order.index(("step", 4, 4))


def test_a_pause_emits_the_last_step_first(tmp_path, late):
    trainer = tiny_runs.trainer(tmp_path, *SETTINGS)
    seen = []
    for event in trainer.train():
        seen.append(event)
        if isinstance(event, Step) and event.step == 1:
            trainer.controls.pause()
        if isinstance(event, Paused):
            trainer.controls.stop()
    paused = next(i for i, event in enumerate(seen) if isinstance(event, Paused))
    assert seen[paused].step == 2
    assert [e.step for e in seen[:paused] if isinstance(e, Step)] == [1, 2]


def test_a_loss_that_is_not_finite_still_ends_the_run_and_is_never_saved(tmp_path, late):
    trainer = tiny_runs.trainer(tmp_path, *SETTINGS)
    seen = []
    with pytest.raises(DivergedError, match="diverged at step 6"):
        for event in trainer.train():
            seen.append(event)
            if isinstance(event, Step) and event.step == 5:
                with torch.no_grad():
                    trainer.model.wte.weight.fill_(float("nan"))
    assert trainer.step == 7  # it had begun
    assert isinstance(seen[-1], RunFailed)
    assert [e.step for e in seen if isinstance(e, CheckpointSaved)] == [5]
