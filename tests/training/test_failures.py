"""The advice at out of memory: the part that is too large, with numbers, and a batch size that fits."""

import math
import re

import pytest
import torch

from gpt2tui.errors import DivergedError
from gpt2tui.launch import drive, new_run
from gpt2tui.memory_advice import advice_for_memory, step_memory
from gpt2tui.preset.files import LoadedPreset
from gpt2tui.run import folder as runs
from gpt2tui.run.events import RunFailed, RunStarted, Step
from gpt2tui.run.events_file import read_events
from gpt2tui.training.controls import Controls
from gpt2tui.training.update import AsyncStepMetrics, Update
from tests import tiny_runs


def needed(preset):
    return step_memory(preset, "fp32")


def large_batch(tmp_path):
    return tiny_runs.preset(
        tmp_path, "training.batch_size=48", "training.gradient_accumulation=2", "model.vocab_size=257"
    )


def test_a_batch_that_is_too_large_is_answered_with_the_largest_that_fits_and_trains_the_same(tmp_path):
    preset = large_batch(tmp_path)
    most = needed(preset.with_training(batch_size=20)).total
    advice = advice_for_memory(preset, "fp32", most)
    batch_size, accumulation = map(int, re.search(r"batch_size = (\d+) and .*accumulation = (\d+)", advice).groups())
    assert (batch_size, accumulation) == (16, 6)  # of the divisors of 96, 24 does not fit
    assert needed(preset.with_training(batch_size=24)).total > most


def test_a_model_that_is_too_large_is_not_answered_with_a_batch_size(tmp_path):
    preset = large_batch(tmp_path)
    memory = needed(preset)
    advice = advice_for_memory(preset, "fp32", memory.weights + memory.gradients)
    assert "the model itself is too large" in advice
    assert "choose training.batch_size" not in advice
    assert f"{(memory.weights + memory.gradients + memory.optimizer) / 1e3:.3g} kB" in advice


def test_what_should_fit_is_tried_with_half_the_batch(tmp_path):
    assert "training.batch_size = 24 and" in advice_for_memory(large_batch(tmp_path), "fp32", 10**12)


def test_one_sequence_that_does_not_fit_has_to_become_shorter(tmp_path):
    one = {"batch_size": 1, "gradient_accumulation": 1, "activation_checkpointing": True}
    preset = large_batch(tmp_path).with_training(**one)
    assert "lower training.sequence_length" in advice_for_memory(preset, "fp32", needed(preset).total - 1)


def test_a_run_that_diverges_in_its_first_steps_is_kept_with_its_events(tmp_path, monkeypatch):
    begin = Update.begin

    def diverging(self, micro_batches, iteration, learning_rate_factor=1.0):
        if iteration == 2:
            return AsyncStepMetrics(torch.tensor(math.inf), torch.tensor(1639.334716796875), 0.01, iteration)
        return begin(self, micro_batches, iteration, learning_rate_factor)

    monkeypatch.setattr(Update, "begin", diverging)
    loaded = LoadedPreset("tiny", tiny_runs.preset(tmp_path), ())
    with pytest.raises(DivergedError) as diverged:
        list(drive(new_run(loaded), Controls()))
    message = str(diverged.value)
    assert message.startswith("training diverged at step 3: the loss is inf, the gradient norm 1639. No checkpoint is ")
    assert "intact" not in message
    (run,) = runs.all_runs()
    assert f"--preset {run.preset_file}" in message
    kinds = [type(event) for event in read_events(run.events_file)]
    assert kinds == [RunStarted, Step, Step, RunFailed]
