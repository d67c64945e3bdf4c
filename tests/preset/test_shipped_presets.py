"""Every shipped preset is valid, described, and trains the model and tokens that it says."""

import json
import tomllib

import pytest

from gpt2tui.preset import files as preset_files
from gpt2tui.preset.catalog import shipped_folder
from gpt2tui.preset.schema import GPT2_VOCAB_SIZE

FILES = sorted(shipped_folder().glob("*.toml"))
PUBLISHED = {
    "gpt2-124m": (124_439_808, 12, 768, 12),
    "gpt2-350m": (354_823_168, 24, 1024, 16),
    "gpt2-774m": (774_030_080, 36, 1280, 20),
    "gpt2-1558m": (1_557_611_200, 48, 1600, 25),
}


def shipped(name):
    return preset_files.load([shipped_folder() / f"{name}.toml"]).preset


def test_all_presets_of_the_contract_are_shipped():
    assert {path.stem for path in FILES} == {
        "test", "small", "default", "bigger_default", "shakespeare-char", "shakespeare-cpu", "tinystories", "finetune",
        "instruct", "lora", "qlora",
        *PUBLISHED,
    }  # fmt: skip


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_preset_is_valid_and_described(path):
    preset = preset_files.check(path).preset
    assert preset.inconsistencies() == []
    assert len(preset.description) > 40
    text = path.read_text(encoding="utf-8")
    assert all(f"# {heading}:" in text for heading in ("What", "Size", "Data", "Time"))
    assert all(len(line) <= 130 for line in text.splitlines())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_preset_repeats_nothing_of_the_preset_it_extends(path):
    values = tomllib.loads(path.read_text(encoding="utf-8"))
    base = shipped(values["extends"]) if "extends" in values else None
    for table, settings in values.items():
        inherited = getattr(base, table, None)
        for key, value in settings.items() if inherited is not None and isinstance(settings, dict) else ():
            if (table, key) != ("sampling", "prompt"):  # which is not inherited
                assert getattr(inherited, key) != value, f"{table}.{key}"


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_sizes_are_exact(name):
    preset = shipped(name)
    parameters, *shape = PUBLISHED[name]
    model = preset.with_vocab_size(GPT2_VOCAB_SIZE).model
    assert model.parameter_count() == parameters
    assert [model.n_layer, model.n_embd, model.n_head] == shape
    assert (model.n_positions, model.bias, preset.data.tokenizer) == (1024, True, "gpt2")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_sizes_step_over_half_a_million_tokens_on_1_to_8_ranks(name):
    preset = shipped(name)
    assert preset.tokens_per_step == 2**19
    assert preset.training.gradient_accumulation % 8 == 0


@pytest.mark.parametrize(
    ("name", "tokens_per_parameter"),
    [("gpt2-124m", 80), ("gpt2-350m", 20), ("gpt2-774m", 20), ("gpt2-1558m", 20)],
)
def test_the_published_sizes_read_as_much_as_they_say(name, tokens_per_parameter):
    preset = shipped(name)
    tokens = preset.tokens_per_step * preset.training.num_iterations
    assert tokens / PUBLISHED[name][0] == pytest.approx(tokens_per_parameter, rel=0.01)
    assert f"{tokens_per_parameter} tokens per parameter" in " ".join(preset.description.split())
    assert f"{tokens / 1e9:.1f} billion tokens" in preset.description


def test_default_is_the_first_configuration_of_the_project():
    preset = shipped("default")
    training, optimizer = preset.training, preset.optimizer
    assert (preset.model.n_layer, preset.model.n_embd, preset.data.source) == (12, 768, "wikitext-103")
    assert (training.batch_size, training.sequence_length, training.checkpoint_frequency) == (4, 64, 50)
    assert (training.num_iterations, training.seed) == (10_000, 1337)
    assert "beyond 64 tokens of context is not used" in preset.description
    assert (optimizer.lr, optimizer.weight_decay) == (3e-4, 0.01)


def test_bigger_default_is_bigger_and_has_a_schedule():
    default, bigger = shipped("default"), shipped("bigger_default")
    count = [p.with_vocab_size(GPT2_VOCAB_SIZE).model.parameter_count() for p in (default, bigger)]
    assert count[1] > 2 * count[0]
    assert bigger.training.sequence_length == bigger.model.n_positions
    assert (default.schedule.name, bigger.schedule.name) == ("constant", "cosine")


@pytest.mark.parametrize(("name", "quantize"), [("finetune", None), ("lora", None), ("qlora", "nf4")])
def test_the_presets_for_further_training_start_from_gpt2_or_from_what_is_named(name, quantize, tmp_path):
    preset = shipped(name)
    assert preset.model.init_from == "openai-community/gpt2"
    assert preset.model.shape.model_dump(exclude={"vocab_size", "dropout"}) == {
        "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12, "bias": True,
    }  # fmt: skip
    assert (preset.lora.quantize if preset.lora else None) == quantize
    assert preset.training.time_budget == 300
    config = {"model_type": "gpt2", "vocab_size": 300, "n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    small = preset_files.load([name], [f"model.init_from={tmp_path}"]).preset
    assert (small.model.n_embd, small.training.sequence_length) == (16, 32)


def test_the_presets_for_a_first_run_download_nothing():
    for name in ("test", "small"):
        assert (shipped(name).data.source, shipped(name).data.tokenizer) == ("python-stdlib", "bpe")
