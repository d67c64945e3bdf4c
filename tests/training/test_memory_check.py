"""A run that does not fit is refused before it begins, and the advice is one with which it fits."""

import re
import shutil
from collections import namedtuple

import pytest

from gpt2tui.cli import parse
from gpt2tui.commands.train import train
from gpt2tui.errors import DataError, DoesNotFitError
from gpt2tui.launch import drive, new_run
from gpt2tui.memory_advice import advice_for_memory, step_memory
from gpt2tui.preset.files import LoadedPreset
from gpt2tui.run import folder as runs
from gpt2tui.run.events import RunFinished, Warned
from gpt2tui.system.numbers import byte_size
from gpt2tui.training import memory_check
from gpt2tui.training.controls import Controls
from gpt2tui.training.memory_check import check_fit, checkpoint_bytes
from tests import tiny_runs

LARGE = ("model.n_embd=64", "model.n_layer=6", "model.vocab_size=257")
Usage = namedtuple("Usage", "total used free")


def needed(preset):
    return step_memory(preset, "fp32").total


def with_free(monkeypatch, free):
    monkeypatch.setattr(memory_check, "free_bytes", lambda: int(free))


def with_free_disk(monkeypatch, free):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(10**12, 0, int(free)))


@pytest.mark.parametrize(("share", "close"), [(1.01, False), (0.99, True), (0.86, True)])
def test_what_needs_more_than_85_percent_of_the_free_memory_is_questioned(tmp_path, monkeypatch, share, close):
    preset = tiny_runs.preset(tmp_path, *LARGE)
    with_free(monkeypatch, needed(preset) / share)
    with pytest.raises(DoesNotFitError) as refused:
        check_fit(preset, tmp_path)
    assert refused.value.close is close
    memory = step_memory(preset, "fp32")
    for name in ("weights", "gradients", "optimizer", "activations"):
        assert f"{name} {byte_size(getattr(memory, name))}" in str(refused.value)


def test_what_needs_less_is_not(tmp_path, monkeypatch):
    preset = tiny_runs.preset(tmp_path, *LARGE)
    with_free(monkeypatch, needed(preset) / 0.84)
    check_fit(preset, tmp_path)


def test_the_copy_for_a_checkpoint_may_be_missing(tmp_path):
    preset = tiny_runs.preset(tmp_path, *LARGE)
    assert step_memory(preset, "fp32").checkpoint == 0


def test_a_model_that_is_too_large_for_its_moments_is_answered_with_muon(tmp_path):
    preset = tiny_runs.preset(tmp_path, *LARGE, "optimizer.name=adamw", "training.batch_size=1")
    muon = tiny_runs.preset(tmp_path, *LARGE, "optimizer.name=muon", "training.batch_size=1")
    assert needed(muon) < needed(preset)
    assert 'optimizer.name = "muon"' in advice_for_memory(preset, "fp32", needed(muon))


@pytest.mark.parametrize("divisor", [4, 8, 16])
def test_a_smaller_model_that_is_advised_fits(tmp_path, divisor):
    preset = tiny_runs.preset(tmp_path, *LARGE)
    free = needed(preset) // divisor
    advice = advice_for_memory(preset, "fp32", free)
    key, value = re.search(r"lower model\.(\w+) to (\d+), and training.batch_size to 1", advice).groups()
    smaller = tiny_runs.preset(tmp_path, *LARGE, f"model.{key}={value}", "training.batch_size=1")
    assert needed(smaller) <= free
    assert "the model itself is too large" in advice


def test_a_sequence_length_that_is_advised_fits(tmp_path):
    settings = ("model.n_positions=1024", "training.sequence_length=1024", "training.batch_size=1")
    preset = tiny_runs.preset(tmp_path, "model.vocab_size=257", *settings)
    free = needed(preset) // 3
    length = int(re.search(r"sequence_length to (\d+)", advice_for_memory(preset, "fp32", free))[1])
    assert (
        needed(preset.with_training(sequence_length=length))
        <= free
        < needed(preset.with_training(sequence_length=2 * length))
    )


def test_activation_checkpointing_that_is_advised_fits(tmp_path):
    settings = ("model.n_layer=8", "model.n_positions=256", "training.sequence_length=256")
    preset = tiny_runs.preset(tmp_path, "model.vocab_size=257", *settings)
    recomputed = preset.with_training(activation_checkpointing=True, batch_size=1, gradient_accumulation=2)
    advice = advice_for_memory(preset, "fp32", needed(recomputed))
    assert "activation_checkpointing = true, training.batch_size = 1 and training.gradient_accumulation = 2" in advice
    assert needed(recomputed) < needed(preset.with_training(batch_size=1))
    assert "activation_checkpointing" not in advice_for_memory(recomputed, "fp32", needed(recomputed) - 1)


def test_a_disk_without_room_for_the_checkpoints_is_refused(tmp_path, monkeypatch):
    preset = tiny_runs.preset(tmp_path, *LARGE, "training.checkpoint_frequency=1", "training.num_iterations=100")
    size = checkpoint_bytes(preset)
    with_free_disk(monkeypatch, 11 * size)  # 10 are kept, besides the best one and a new one
    with pytest.raises(DoesNotFitError, match=r"disk for 12 checkpoints: .*\n.*keep_checkpoints = 9") as refused:
        check_fit(preset, tmp_path / "not" / "there")
    assert not refused.value.close
    check_fit(preset, tmp_path, saved_checkpoints=6)
    with_free_disk(monkeypatch, 15 * size)
    check_fit(preset, tmp_path)


def test_few_checkpoints_need_little_room(tmp_path, monkeypatch):
    preset = tiny_runs.preset(tmp_path, *LARGE, "training.checkpoint_frequency=0")
    with_free_disk(monkeypatch, 1.5 * checkpoint_bytes(preset))
    check_fit(preset, tmp_path)


def test_the_size_of_a_checkpoint_is_that_of_its_files(tmp_path):
    trainer = tiny_runs.trainer(tmp_path, *LARGE)
    list(trainer.train())
    folder = max(trainer.run.checkpoints.iterdir())
    files = sum((folder / name).stat().st_size for name in ("model.safetensors", "training_state.safetensors"))
    assert checkpoint_bytes(trainer.preset) == pytest.approx(files, rel=0.05)


# ---- the start of a run


def driven(tmp_path, fit_check):
    loaded = LoadedPreset("tiny", tiny_runs.preset(tmp_path), ())
    return list(drive(new_run(loaded), Controls(), fit_check=fit_check))


@pytest.mark.parametrize("fit_check", ["refuse", "ask"])
def test_what_does_not_fit_leaves_nothing(tmp_path, monkeypatch, fit_check):
    with_free(monkeypatch, 1000)
    with pytest.raises(DoesNotFitError):
        driven(tmp_path, fit_check)
    assert runs.all_runs() == []


def test_what_is_close_is_asked_about_where_there_is_somebody_to_ask(tmp_path, monkeypatch):
    full = tiny_runs.preset(tmp_path).with_vocab_size(257)
    with_free(monkeypatch, needed(full) * 1.05)
    monkeypatch.setattr("gpt2tui.training.preparation.WORTH_A_TRIAL", 9)
    with pytest.raises(DoesNotFitError) as asked:
        driven(tmp_path, "ask")
    assert asked.value.close
    events = driven(tmp_path, "refuse")
    assert isinstance(events[-1], RunFinished)
    (warning,) = [event for event in events if isinstance(event, Warned)]
    assert "may not fit" in warning.message


def test_a_forced_run_is_trained_with_a_warning(tmp_path, monkeypatch):
    with_free(monkeypatch, 1000)
    events = driven(tmp_path, "warn")
    assert isinstance(events[-1], RunFinished)
    assert any("may not fit" in event.message for event in events if isinstance(event, Warned))


HUGE = ("model.n_embd=16384", "model.n_layer=96", "model.n_head=64")


def headless(*words):
    options = [word for key in HUGE for word in ("--set", key)]
    return train(parse(["--headless", "--preset", "default", *options, *words]))


def test_headless_a_model_of_terabytes_is_refused_with_exit_code_6_before_anything_is_read(monkeypatch):
    monkeypatch.setattr("gpt2tui.data.token_store.prepare", pytest.fail)
    with pytest.raises(DoesNotFitError) as refused:
        headless()
    assert refused.value.exit_code == 6
    message = str(refused.value)
    assert "this run does not fit. memory on cpu: needs about 4.9" in message  # 16 bytes of 309 billion parameters
    assert "the model itself is too large" in message
    assert "--force trains nevertheless" in message
    assert runs.all_runs() == []


def test_headless_force_goes_on_to_the_preparation(monkeypatch):
    def prepare(preset, cache, tokenizer):
        raise DataError("reached")
        yield

    monkeypatch.setattr("gpt2tui.data.token_store.prepare", prepare)
    with pytest.raises(DataError, match="reached"):
        headless("--force")


def test_the_workbench_asks_itself(capsys):
    with pytest.raises(SystemExit):
        parse(["--force"])
    assert "--force needs --headless" in capsys.readouterr().err
