import itertools
from types import SimpleNamespace

import torch

from gpt2tui.data.batches import open_batches
from gpt2tui.run.events import RunStarted, Step
from gpt2tui.training import probe
from tests import tiny_runs


def fitted(tmp_path, monkeypatch, seconds_per_step, *overrides):
    ticks = itertools.count()
    monkeypatch.setattr(probe, "time", SimpleNamespace(perf_counter=lambda: next(ticks) * seconds_per_step))
    trainer = tiny_runs.trainer(tmp_path, *overrides)
    batches = open_batches(trainer.corpus, trainer.preset.training)
    return probe.within_budget(trainer.preset, batches, torch.device("cpu")).training


def test_iterations_shrink_to_what_fits(tmp_path, monkeypatch):
    settings = ("training.num_iterations=1000", "training.time_budget=30")
    assert fitted(tmp_path, monkeypatch, 0.5, *settings).num_iterations == 60


def test_iterations_never_grow(tmp_path, monkeypatch):
    settings = ("training.num_iterations=20", "training.time_budget=30")
    assert fitted(tmp_path, monkeypatch, 0.001, *settings).num_iterations == 20


def test_the_warm_up_always_fits(tmp_path, monkeypatch):
    settings = ("training.num_iterations=1000", "training.time_budget=1")
    assert fitted(tmp_path, monkeypatch, 100.0, *settings).num_iterations == 4


def test_the_frozen_preset_repeats_the_run_exactly(tmp_path):
    trainer = tiny_runs.trainer(tmp_path, "training.num_iterations=10", "training.time_budget=600")
    events = list(trainer.train())
    assert events[0].num_iterations == 10
    assert trainer.preset.training.time_budget == 0.0
    again = tiny_runs.trainer(tmp_path, "training.num_iterations=10")
    assert isinstance(events[0], RunStarted)
    assert [e.train_loss for e in events if isinstance(e, Step)] == [
        e.train_loss for e in again.train() if isinstance(e, Step)
    ]


def test_a_moment_in_which_others_work_does_not_count(tmp_path, monkeypatch):
    trainer = tiny_runs.trainer(tmp_path)
    batches = open_batches(trainer.corpus, trainer.preset.training)
    seconds = [9.0, 9.0, *[1.0, 1.0, 5.0] * 5]  # warm-up, then a third of the steps slow
    ticks = itertools.accumulate(itertools.chain.from_iterable((0.0, s) for s in seconds))
    monkeypatch.setattr(probe, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    assert probe.step_seconds(trainer.preset, batches, torch.device("cpu"), "fp32") == 1.0


def test_the_time_of_a_step_is_measured_in_that_format(tmp_path):
    trainer = tiny_runs.trainer(tmp_path)
    batches = open_batches(trainer.corpus, trainer.preset.training)
    assert probe.step_seconds(trainer.preset, batches, torch.device("cpu"), "bf16") > 0
