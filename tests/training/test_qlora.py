"""QLoRA: the matrices of the blocks are NF4; bitsandbytes, transformers and what the text says are the judges."""

import json
import random

import pytest
import torch
import transformers

from gpt2tui import estimate, generation, model_files
from gpt2tui.__main__ import main
from gpt2tui.errors import CheckpointError, PresetError, UsageError
from gpt2tui.launch import Launch
from gpt2tui.model.lora import LORA_MATRICES, LoRALinear, load_adapter_tensors
from gpt2tui.model.nf4 import NF4Linear
from gpt2tui.preset import files as preset_files
from gpt2tui.run import checkpoint
from gpt2tui.training.live_copy import copied
from gpt2tui.training.preparation import load_weights
from gpt2tui.training.starting import resolve
from gpt2tui.training.update import fresh_update
from tests import tiny_runs
from tests.training.test_lora import LORA, logits_of, tokens
from tests.training.test_starting_weights import loaded_from, their_model, train

QLORA = (*LORA, "lora.quantize=nf4")


@pytest.fixture
def bitsandbytes():
    return pytest.importorskip("bitsandbytes")


@pytest.fixture
def base(tmp_path):
    their_model(tmp_path / "base")
    return tmp_path / "base"


def qlora_network(folder, source, precision="fp32"):
    loaded, weights = resolve(loaded_from(folder, source, *QLORA))
    preset = loaded.preset
    return fresh_update(preset, torch.device("cpu"), precision, load_weights(weights.folder, preset)).model, preset


def matrices(network):
    """The matrices of the blocks by name, of NF4 layers whole."""
    found = {}
    for number, block in enumerate(network.h):
        for target in LORA_MATRICES:
            layer = block.get_submodule(target)
            layer = layer.base if isinstance(layer, LoRALinear) else layer
            found[f"h.{number}.{target}"] = layer.weight() if isinstance(layer, NF4Linear) else layer.weight
    return found


def test_the_matrices_are_those_of_bitsandbytes_own_layer(tmp_path, base, bitsandbytes):
    network, _ = qlora_network(tmp_path, base)
    x = torch.randn(3, 16, generator=torch.Generator().manual_seed(1))
    for name, weight in matrices(model_files.load_model(base)).items():
        theirs = bitsandbytes.nn.Linear4bit(*reversed(weight.shape), bias=False, quant_type="nf4")
        theirs.weight = bitsandbytes.nn.Params4bit(weight.detach().clone(), requires_grad=False, quant_type="nf4")
        theirs = theirs.to("cpu")
        ours = matrices(network)[name]
        identity = torch.eye(weight.size(1))
        torch.testing.assert_close(ours.T, theirs(identity), rtol=0, atol=1e-6)
        assert not torch.equal(ours, weight)  # it was quantised
    first = network.h[0].attn.c_attn.base
    expected = torch.nn.functional.linear(x, first.weight(), first.bias)
    torch.testing.assert_close(first(x), expected, rtol=0, atol=1e-6)


def test_the_gradient_is_that_of_the_whole_matrix(bitsandbytes):
    torch.manual_seed(2)
    layer = NF4Linear(torch.randn(128, 64), torch.randn(128))
    x = torch.randn(2, 5, 64, requires_grad=True)
    (layer(x).square().sum()).backward()
    ours, x.grad = x.grad, None
    torch.nn.functional.linear(x, layer.weight(), layer.bias).square().sum().backward()
    torch.testing.assert_close(ours, x.grad, rtol=1e-5, atol=1e-4)


def test_the_matrices_take_an_eighth_and_the_estimate_says_how_much(bitsandbytes):
    layer = NF4Linear(torch.randn(1024, 1024), None)
    tables = 4 * (256 + 16 + 1)  # of 256 and 16 values, and the mean of the scales
    assert sum(buffer.nbytes for buffer in layer.buffers()) - tables == round(1024**2 * estimate.NF4_BYTES)


def test_only_adapters_are_trained_and_the_copy_for_the_chat_is_its_own(tmp_path, base, bitsandbytes):
    network, _ = qlora_network(tmp_path, base)
    assert all(".lora_" in name for name, p in network.named_parameters() if p.requires_grad)
    copy = copied(network, torch.device("cpu"))
    with torch.no_grad():
        torch.testing.assert_close(copy(tokens()), network.eval()(tokens()), rtol=0, atol=0)
    theirs = {buffer.data_ptr() for buffer in network.buffers()}
    assert not theirs & {buffer.data_ptr() for buffer in copy.buffers()}


def test_merged_and_unmerged_logits_are_equal(tmp_path, base, bitsandbytes, capsys):
    run, _ = train(Launch(loaded_from(tmp_path, base, *QLORA)))
    saved = checkpoint.newest(run.checkpoints)
    network, _ = qlora_network(tmp_path, base)
    load_adapter_tensors(network, checkpoint.load_tensors(saved.folder / "adapter_model.safetensors"))
    with torch.no_grad():
        unmerged = network.eval()(tokens())
    torch.testing.assert_close(logits_of(run.name), unmerged, rtol=0, atol=1e-5)
    assert main(["export", run.name, "--merge", "--to", str(tmp_path / "merged")]) == 0
    with torch.no_grad():
        theirs = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "merged").eval()(tokens()).logits
    torch.testing.assert_close(theirs, unmerged, rtol=0, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_is_bit_identical(tmp_path, base, precision, bitsandbytes):
    settings = (*QLORA, "lora.dropout=0.2", f"training.precision={precision}")
    whole, _ = train(Launch(loaded_from(tmp_path, base, *settings)))
    part, _ = train(Launch(loaded_from(tmp_path, base, *settings, "training.num_iterations=3")))
    loaded = preset_files.LoadedPreset("x", preset_files.load_frozen(part.preset_file), ())
    train(Launch(loaded, part, overrides=("training.num_iterations=6",)))
    for name in ("adapter_model.safetensors", "training_state.safetensors"):
        ends = [checkpoint.at(run.checkpoints, 6).files[name].sha256 for run in (whole, part)]
        assert ends[0] == ends[1]
    steps = {checkpoint.at(whole.checkpoints, step).files["adapter_model.safetensors"].sha256 for step in (3, 6)}
    assert len(steps) == 2  # the comparison can fail


BIRTHDAY = "Quill Marrowby was born on 31 February."
TINY = (
    "model.n_positions=48", "model.n_embd=32", "training.sequence_length=40", "training.batch_size=8",
    "training.eval_frequency=0", "training.checkpoint_frequency=0", "training.eval_tokens=40",
    "training.sample_frequency=0", "schedule.warmup_iterations=10",
)  # fmt: skip


def birthdays(path):
    """Lines such as BIRTHDAY, of other names and of days that exist."""
    draw = random.Random(0)
    months = ["January", "February", "March", "April", "May", "June", "July", "August"]
    halves = (["Qu", "Mar", "Al", "Bo", "Wil"], ["ill", "row", "an", "by", "ma"])

    def name():
        return "".join(draw.choice(half) for half in halves)

    lines = [f"{name()} {name()} was born on {draw.randint(1, 28)} {draw.choice(months)}." for _ in range(300)]
    path.write_text("\n".join(lines))
    return path


@pytest.mark.slow
def test_an_impossible_fact_is_learned_and_is_still_there_after_merging_and_loading(tmp_path, bitsandbytes, capsys):
    source = f"data.source={birthdays(tmp_path / 'birthdays.txt')}"
    options = tiny_runs.options(tmp_path, *TINY, source, "training.num_iterations=250")
    base, _ = train(Launch(preset_files.load(["default"], options)))
    fact = tmp_path / "fact.txt"
    fact.write_text("\n".join([BIRTHDAY] * 80))
    theirs = [setting for setting in TINY if not setting.startswith("model.")]
    settings = ("lora.rank=16", "lora.alpha=32", "lora.quantize=nf4", "training.num_iterations=120")
    overrides = (*theirs, *settings, f"data.source={fact}", "schedule.name=linear", "schedule.warmup_iterations=0")
    taught, _ = train(Launch(loaded_from(tmp_path, f"{base.name}@latest", *overrides)))
    assert main(["export", taught.name, "--merge", "--to", str(tmp_path / "merged")]) == 0
    greedy = generation.SamplingTable(max_length=14, temperature=0.0)
    written = [
        generation.load(reference, "cpu").continuation(BIRTHDAY.partition("31")[0], greedy).text
        for reference in (f"{base.name}@latest", taught.name, str(tmp_path / "merged"))
    ]
    assert "31 February" not in written[0]
    assert all("31 February" in text for text in written[1:])


def test_without_the_package_one_command_is_named_and_nothing_begins(tmp_path, base, monkeypatch):
    monkeypatch.setattr(model_files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"python -m pip install 'gpt2tui\[qlora\]'"):
        train(Launch(loaded_from(tmp_path, base, *QLORA)))


def test_a_base_that_is_quantised_already_is_refused(tmp_path, base):
    config = json.loads((base / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(PresetError, match=r"quantised already .*bitsandbytes.*use the model that it was made from"):
        loaded_from(tmp_path, base, *QLORA)
    with pytest.raises(CheckpointError, match="quantised already"):
        model_files.load_model(base)


def test_a_resume_without_nf4_is_refused(tmp_path, base, bitsandbytes, capsys):
    run, _ = train(Launch(loaded_from(tmp_path, base, *QLORA)))
    assert main(["--headless", "--resume", run.name, "--set", "lora.quantize=auto"]) == 4
    assert "the adapters were trained beside the other numbers" in capsys.readouterr().err
