"""The schema: allowed values, and settings that do not fit each other."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from gpt2tui.model.config import GPT2Config
from gpt2tui.preset.schema import Preset


def keys_that_do_not_fit(**tables):
    return [found.key for found in Preset.model_validate(tables).inconsistencies()]


def test_the_defaults_are_a_valid_preset():
    assert Preset().inconsistencies() == []
    assert Preset().training.sequence_length == Preset().model.n_positions


def test_default_shape_has_the_published_number_of_parameters():
    assert GPT2Config(vocab_size=50257).parameter_count() == 124_439_808


def test_tokens_per_step_counts_all_micro_batches():
    table = {"batch_size": 3, "gradient_accumulation": 5, "sequence_length": 7}
    assert Preset.model_validate({"training": table}).tokens_per_step == 3 * 5 * 7


@pytest.mark.parametrize(
    ("tables", "key"),
    [
        ({"model": {"n_embd": 100, "n_head": 7}}, "model.n_embd"),
        ({"model": {"n_positions": 32}, "training": {"sequence_length": 33}}, "training.sequence_length"),
        (
            {"schedule": {"warmup_iterations": 2_000}, "training": {"num_iterations": 1_999}},
            "schedule.warmup_iterations",
        ),
        ({"schedule": {"min_lr": 2e-3}, "optimizer": {"lr": 1e-3}}, "schedule.min_lr"),
        ({"training": {"precision": "fp16", "device": "cpu"}}, "training.precision"),
        ({"model": {"vocab_size": 50_256}}, "model.vocab_size"),
        ({"model": {"vocab_size": 256}, "data": {"tokenizer": "bpe"}}, "model.vocab_size"),
        ({"data": {"tokenizer": "char", "streaming": True}}, "data.tokenizer"),
    ],
)
def test_settings_that_do_not_fit_together_are_found(tables, key):
    assert keys_that_do_not_fit(**tables) == [key]


@pytest.mark.parametrize(
    "tables",
    [
        {"model": {"n_embd": 98, "n_head": 7}},
        {"model": {"n_positions": 32}, "training": {"sequence_length": 32}},
        {"schedule": {"warmup_iterations": 2_000}, "training": {"num_iterations": 2_000}},
        {"model": {"vocab_size": 50_257}},
        {"model": {"vocab_size": 257}, "data": {"tokenizer": "bpe"}},
    ],
)
def test_settings_at_the_edge_of_fitting_fit(tables):
    assert keys_that_do_not_fit(**tables) == []


@pytest.mark.parametrize(
    "tables",
    [
        {"training": {"seed": "6"}},
        {"training": {"seed": True}},
        {"optimizer": {"lr": float("nan")}},
        {"optimizer": {"lr": float("inf")}},
        {"training": {"num_iterations": 10.0}},
        {"model": {"n_layers": 2}},
    ],
)
def test_nothing_is_converted_silently(tables):
    with pytest.raises(ValidationError):
        Preset.model_validate(tables)


def test_a_preset_never_changes():
    with pytest.raises(ValidationError):
        Preset().training.seed = 1


def test_presets_and_estimates_import_no_torch():
    heavy = {"torch", "datasets", "transformers", "wandb", "textual"}
    program = (
        "import sys, gpt2tui.preset.files, gpt2tui.estimate, gpt2tui.system.device_speed\n"
        "gpt2tui.preset.files.settings()\n"
        f"print(sorted({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
