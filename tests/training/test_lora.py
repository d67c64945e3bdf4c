"""LoRA: only adapters are trained and saved, in PEFT's format; transformers and PEFT are the judges."""

import json
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file

from gpt2tui import generation, model_files
from gpt2tui.__main__ import main
from gpt2tui.data import tokenizers
from gpt2tui.data.tokenizer_kinds import ByteTokenizer
from gpt2tui.errors import CheckpointError, PresetError
from gpt2tui.launch import Launch
from gpt2tui.model.lora import LoRALinear
from gpt2tui.preset import files as preset_files
from gpt2tui.run import checkpoint
from gpt2tui.run import folder as runs
from gpt2tui.run.events import RunStarted, Step
from gpt2tui.training.optimizers import Optimizers
from gpt2tui.training.preparation import load_weights
from gpt2tui.training.starting import resolve
from gpt2tui.training.update import fresh_update
from tests import tiny_runs
from tests.training.test_starting_weights import loaded_from, their_model, train

LORA = ("lora.rank=4", "lora.alpha=8", "training.num_iterations=6", "training.checkpoint_frequency=3")


@pytest.fixture
def base(tmp_path):
    their_model(tmp_path / "base")
    return tmp_path / "base"


def lora_run(folder, source, *overrides):
    return train(Launch(loaded_from(folder, source, *LORA, *overrides)))


def fresh_network(folder, source, *overrides):
    loaded, weights = resolve(loaded_from(folder, source, *LORA, *overrides))
    preset = loaded.preset
    return fresh_update(preset, torch.device("cpu"), "fp32", load_weights(weights.folder, preset)), preset


def tokens(seed=5):
    return torch.randint(257, (2, 16), generator=torch.Generator().manual_seed(seed))


def logits_of(reference):
    with torch.no_grad():
        return generation.load(str(reference), "cpu", "fp32").model(tokens())


def test_at_step_0_the_adapted_model_equals_the_base_exactly(tmp_path, base):
    update, _ = fresh_network(tmp_path, base)
    with torch.no_grad():
        assert torch.equal(update.model.eval()(tokens()), model_files.load_model(base).eval()(tokens()))


def test_only_adapters_are_trained_and_have_optimizer_state(tmp_path, base):
    update, preset = fresh_network(tmp_path, base)
    before = {name: tensor.clone() for name, tensor in update.model.state_dict().items()}
    for step in range(2):
        update.run([(tokens(step), tokens(step + 1))], step)
    changed = {name for name, tensor in update.model.state_dict().items() if not torch.equal(tensor, before[name])}
    adapters = {name for name in before if ".lora_" in name}
    assert changed == adapters
    assert len(adapters) == 2 * 4 * preset.model.n_layer
    assert {name.rpartition(".")[0] for name in update.optimizers.state_tensors()} == adapters


@pytest.mark.parametrize("overrides", [(), ("lora.use_rslora=true",), ('lora.targets=["attn.c_attn", "mlp.c_fc"]',)])
def test_peft_loads_it_over_the_same_base_and_gives_the_same_logits(tmp_path, base, overrides):
    peft = pytest.importorskip("peft")
    run, _ = lora_run(tmp_path, base, "lora.dropout=0.1", *overrides)
    saved = checkpoint.newest(run.checkpoints)
    theirs = transformers.GPT2LMHeadModel.from_pretrained(base).eval()
    with torch.no_grad():
        plain = theirs(tokens()).logits
        adapted = peft.PeftModel.from_pretrained(theirs, saved.folder).eval()(tokens()).logits
        assert (adapted - plain).abs().max() > 1e-2  # the adapter has learned something
        torch.testing.assert_close(logits_of(saved.folder), adapted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("settings", [{"r": 3, "lora_alpha": 5}, {"r": 4, "use_rslora": True}])
def test_an_adapter_made_by_peft_loads_here(tmp_path, base, settings):
    peft = pytest.importorskip("peft")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(base)
    config = peft.LoraConfig(target_modules=["c_attn", "mlp.c_proj"], fan_in_fan_out=True, **settings)
    adapted = peft.get_peft_model(theirs, config).eval()
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.2)
        expected = adapted(tokens()).logits
    adapted.save_pretrained(tmp_path / "adapter")
    torch.testing.assert_close(logits_of(tmp_path / "adapter"), expected, rtol=0, atol=1e-5)


def test_a_checkpoint_has_petfs_files_and_names_and_no_weights_of_the_base(tmp_path, base):
    run, events = lora_run(tmp_path, base)
    saved = checkpoint.newest(run.checkpoints)
    assert saved.kind == "adapter"
    assert not (saved.folder / "model.safetensors").exists()
    tensors = load_file(saved.folder / "adapter_model.safetensors")
    assert "base_model.model.transformer.h.1.attn.c_attn.lora_A.weight" in tensors
    assert tensors["base_model.model.transformer.h.0.attn.c_attn.lora_A.weight"].shape == (4, 16)
    assert tensors["base_model.model.transformer.h.0.attn.c_attn.lora_B.weight"].shape == (48, 4)
    config = json.loads((saved.folder / "adapter_config.json").read_text())
    assert (config["fan_in_fan_out"], config["base_model_name_or_path"]) == (True, str(base))
    assert saved.origin.sha256 == model_files.weights_sha256(base)
    started = next(event for event in events if isinstance(event, RunStarted))
    # Of each block: A (4, in) and B (out, 4) beside matrices of 16 to 48, 16 to 16, 16 to 64 and 64 to 16.
    assert started.trained_parameters == 2 * 4 * (16 + 48 + 16 + 16 + 16 + 64 + 64 + 16)


def test_merged_and_unmerged_logits_are_equal(tmp_path, base):
    update, preset = fresh_network(tmp_path, base)
    for module in update.model.modules():
        if isinstance(module, LoRALinear):
            torch.nn.init.normal_(module.lora_B.weight, std=0.2)
    run, _ = lora_run(tmp_path, base)
    saved = checkpoint.newest(run.checkpoints)
    from gpt2tui.model.lora import load_adapter_tensors

    load_adapter_tensors(update.model, load_file(saved.folder / "adapter_model.safetensors"))
    with torch.no_grad():
        torch.testing.assert_close(update.model.eval()(tokens()), logits_of(saved.folder), rtol=0, atol=1e-5)
    assert preset.lora.rank == 4


def test_export_merges_and_transformers_loads_the_folder(tmp_path, base, capsys):
    run, _ = lora_run(tmp_path, base)
    assert main(["export", run.name, "--merge", "--to", str(tmp_path / "merged")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'merged'}\n"
    theirs, info = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not any(info.values())
    with torch.no_grad():
        torch.testing.assert_close(theirs.eval()(tokens()).logits, logits_of(run.name), rtol=0, atol=1e-5)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")("the")["input_ids"] == list(b"the")
    assert main(["export", run.name, "--merge", "--to", str(tmp_path / "merged")]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["export", run.name, "--to", str(tmp_path / "other")]) == 2
    assert main(["export", str(base), "--merge", "--to", str(tmp_path / "other")]) == 2
    assert not (tmp_path / "other").exists()


def test_a_resumed_run_is_bit_identical(tmp_path, base):
    whole, _ = lora_run(tmp_path, base, "lora.dropout=0.2")
    part = runs.Run(tmp_path / "part")
    shutil.copytree(whole.folder, part.folder)
    shutil.rmtree(part.checkpoints / "step-00000006")
    loaded = preset_files.LoadedPreset("x", preset_files.load_frozen(part.preset_file), ())
    _, events = train(Launch(loaded, part))
    assert [event.step for event in events if isinstance(event, Step)] == [4, 5, 6]
    for name in ("adapter_model.safetensors", "training_state.safetensors"):
        ends = [checkpoint.at(run.checkpoints, 6).files[name].sha256 for run in (whole, part)]
        assert ends[0] == ends[1]
    steps = {checkpoint.at(whole.checkpoints, step).files["adapter_model.safetensors"].sha256 for step in (0, 3, 6)}
    assert len(steps) == 3  # the comparison can fail


def test_it_is_sampled_and_evaluated_like_every_checkpoint(tmp_path, base, capsys):
    run, _ = lora_run(tmp_path, base)
    capsys.readouterr()
    assert main(["sample", run.name, "--prompt", "the", "--max-length", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["tokens"] == 4
    assert main(["eval", run.name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["is_training_corpus"] is True


def test_a_base_that_is_a_run_is_found_by_its_run_and_step_when_it_has_moved(tmp_path):
    trainer = tiny_runs.trainer(tmp_path)
    list(trainer.train())
    run, _ = lora_run(tmp_path, f"{trainer.run.name}@8")
    before = logits_of(run.name)
    trainer.run.folder.rename(trainer.run.folder.with_name("renamed"))
    assert torch.equal(logits_of(run.name), before)
    shutil.rmtree(trainer.run.folder.with_name("renamed"))
    with pytest.raises(CheckpointError, match=r"is an adapter, and the model that it belongs to, .*step-00000008, was"):
        logits_of(run.name)


def test_a_base_that_has_changed_is_refused(tmp_path, base):
    run, _ = lora_run(tmp_path, base)
    shutil.rmtree(base)
    their_model(base, initializer_range=0.5)
    with pytest.raises(CheckpointError, match="whose weights have changed since: their SHA-256 was"):
        logits_of(run.name)
    loaded = preset_files.LoadedPreset("x", preset_files.load_frozen(run.preset_file), ())
    with pytest.raises(CheckpointError, match="whose weights have changed"):
        train(Launch(loaded, run, overrides=("training.num_iterations=8",)))


def test_a_base_of_another_shape_is_refused(tmp_path, base):
    peft = pytest.importorskip("peft")
    theirs = transformers.GPT2LMHeadModel.from_pretrained(base)
    config = peft.LoraConfig(target_modules=["c_attn"], fan_in_fan_out=True)
    peft.get_peft_model(theirs, config).save_pretrained(tmp_path / "adapter")
    shutil.rmtree(base)
    their_model(base, n_embd=32)
    with pytest.raises(CheckpointError, match=r"another shape than the adapter: h.0.attn.c_attn is \(96, 32\)"):
        logits_of(tmp_path / "adapter")


@pytest.mark.parametrize(
    "change",
    [{"use_dora": True}, {"bias": "all"}, {"rank_pattern": {"h.0": 2}}, {"r": 0}, {"init_lora_weights": "pissa"}],
)
def test_an_adapter_that_is_not_plain_lora_is_refused_by_name(tmp_path, base, change):
    run, _ = lora_run(tmp_path, base)
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        shutil.copy(checkpoint.newest(run.checkpoints).folder / name, folder)
    logits_of(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError, match=next(iter(change))):
        logits_of(folder)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("lora.rank=17", "lora.rank: 17 is more than model.n_embd = 16"),
        ('lora.targets=["attn.cattn"]', "'attn.cattn' is no matrix of a block; did you mean attn.c_attn"),
        ("optimizer.name=muon", "muon orthogonalizes the update of a whole matrix"),
    ],
)
def test_settings_that_do_not_fit_an_adapter_are_refused_with_the_reason(tmp_path, base, override, message):
    with pytest.raises(PresetError) as caught:
        loaded_from(tmp_path, base, *LORA, override)
    assert message in str(caught.value)


def test_an_adapter_needs_weights_and_all_linear_means_the_four_matrices(tmp_path):
    with pytest.raises(PresetError, match="lora: adapters need weights to be trained beside"):
        tiny_runs.preset(tmp_path, "lora=true")
    their_model(tmp_path / "base")
    lora = loaded_from(tmp_path, tmp_path / "base", 'lora.targets="all-linear"').preset.lora
    assert lora.targets == ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]


def test_another_rank_is_refused_at_a_resume(tmp_path, base, capsys):
    run, _ = lora_run(tmp_path, base)
    assert main(["--headless", "--resume", run.name, "--set", "lora.rank=8"]) == 4
    assert "lora.rank: the run has 4, the preset 8: the saved adapters have another shape" in capsys.readouterr().err


def test_a_run_may_start_from_an_adapter_which_is_merged_then(tmp_path, base):
    adapter, _ = lora_run(tmp_path, base)
    full, _ = train(Launch(loaded_from(tmp_path, adapter.name, "training.num_iterations=3")))
    first = checkpoint.at(full.checkpoints, 0)
    assert first.kind == "full"
    torch.testing.assert_close(logits_of(first.folder), logits_of(full_source(full)), rtol=0, atol=0)


def full_source(run):
    return preset_files.load_frozen(run.preset_file).model.init_from


def test_the_optimizers_take_nothing_that_is_frozen():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[0].requires_grad_(False)
    table = preset_files.load(["default"]).preset.optimizer
    groups = Optimizers(model, table).all[0][0].param_groups
    assert {name for group in groups for name in group["param_names"]} == {"1.weight", "1.bias"}


def test_the_tokenizer_of_an_adapter_is_its_bases(tmp_path, base):
    run, _ = lora_run(tmp_path, base)
    assert tokenizers.load(checkpoint.newest(run.checkpoints).folder).token_table == ByteTokenizer().token_table
