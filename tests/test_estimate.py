"""Estimates against hand-computed values, against the network itself, and against what autograd keeps."""

import contextlib
import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gpt2tui.estimate import (
    COMPILED_LOGITS,
    LIBRARY_BYTES,
    LOSS_CHUNK_LOGITS,
    LOSS_CHUNK_LOGITS_ON_CPU,
    activation_bytes,
    adapter_parameters,
    approximate_duration,
    as_dict,
    count_memory,
    count_parameters,
    estimate,
    flops_per_token,
    loss_bytes,
    memory_text,
    muon_flops,
    recomputed_flops_per_token,
    report_lines,
)
from gpt2tui.memory_advice import change_of
from gpt2tui.model import loss
from gpt2tui.model.config import GPT2Config
from gpt2tui.model.gpt2 import GPT2
from gpt2tui.model.lora import add_adapters
from gpt2tui.preset import files as preset_files
from gpt2tui.preset.schema import Preset
from gpt2tui.system import device_speed
from gpt2tui.system.device_speed import DeviceSpeed, peak_flops
from gpt2tui.system.numbers import byte_size
from gpt2tui.training.activation_checkpointing import checkpoint_activations
from gpt2tui.training.muon import orthogonalize

GPU = DeviceSpeed("a GPU", "bf16", flops_per_second_achievable=1e14, peak_flops=2e14, memory_free_bytes=10**12)


def preset_of(**tables):
    return Preset.model_validate(tables)


SMALL = {"n_layer": 3, "n_embd": 32, "n_head": 4, "n_positions": 64}


@pytest.mark.parametrize("bias", [True, False])
def test_parameters_by_part_are_those_of_the_network(bias):
    config = GPT2Config(**SMALL, vocab_size=100, bias=bias)
    parts, found = count_parameters(config), dict.fromkeys(("wte", "wpe", "attn", "mlp", "ln"), 0)
    for name, parameter in GPT2(config).named_parameters():
        (part,) = [part for part in found if f".{part}" in f".{name}"]
        found[part] += parameter.numel()
    assert dataclasses.astuple(parts) == tuple(found.values())
    assert parts.total == config.parameter_count()


def test_flops_per_token_by_hand():
    preset = preset_of(training={"sequence_length": 1024}).with_vocab_size(50257)
    N = 124_439_808 - 1024 * 768
    assert flops_per_token(preset) == 6 * N + 12 * 12 * 768 * 1024


def test_flops_of_the_products_are_those_that_torch_counts():
    preset = preset_of(model=SMALL | {"bias": False}, training={"sequence_length": 64}).with_vocab_size(100)
    model = GPT2(preset.model)
    tokens = torch.zeros(2, 64, dtype=torch.long)
    with (
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        model(tokens).sum().backward()
    # Torch also counts nothing but products: no layer norm, which N includes.
    norms = 6 * count_parameters(preset.model).layer_norms
    assert counter.get_total_flops() / tokens.numel() == flops_per_token(preset) - norms


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_flops_of_muon_are_those_of_its_products(precision):
    preset = preset_of(model=SMALL, optimizer={"name": "muon"})
    C, shapes = 32, []
    shapes += [(C, C)] * 4 + [(4 * C, C), (C, 4 * C)]
    with FlopCounterMode(display=False) as counter:
        for shape in shapes * 3:
            orthogonalize(torch.randn(shape), {"fp32": torch.float32, "bf16": torch.bfloat16}[precision])
    assert muon_flops(preset, precision) == counter.get_total_flops()
    assert muon_flops(preset_of(model=SMALL), precision) == 0


def test_flops_of_activation_checkpointing_are_those_that_torch_counts_besides():
    plain = preset_of(model=SMALL | {"bias": False}, training={"sequence_length": 64}).with_vocab_size(100)
    tokens, counted = torch.zeros(2, 64, dtype=torch.long), []
    for model in (GPT2(plain.model), checkpoint_activations(GPT2(plain.model))):
        with (
            torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
            FlopCounterMode(display=False) as counter,
        ):
            model(tokens).sum().backward()
        counted.append(counter.get_total_flops() / tokens.numel())
    again = plain.with_training(activation_checkpointing=True)
    assert counted[1] - counted[0] == recomputed_flops_per_token(again)
    assert recomputed_flops_per_token(plain) == 0
    seconds = [estimate(p, vocab_size=100, train_tokens=None, device=GPU).seconds for p in (plain, again)]
    assert 1.1 < seconds[1] / seconds[0] < 4 / 3


def bytes_kept_for_backward(config, batch_size, sequence_length, precision, change=lambda model: model):
    model, kept = change(GPT2(config)), {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor):
        pointer = tensor.untyped_storage().data_ptr()
        if pointer not in weights and (tensor.ndim > 2 or tensor.shape[0] == batch_size * sequence_length):
            kept[pointer] = tensor  # a reference, so that no other tensor takes the place
        return tensor

    autocast = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()
    with autocast, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model.hidden(torch.zeros(batch_size, sequence_length, dtype=torch.long))
    kept[hidden.untyped_storage().data_ptr()] = hidden
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize(("precision", "size"), [("fp32", 4), ("bf16", 2)])
def test_activations_are_what_autograd_keeps(precision, size, dropout):
    config = GPT2Config(**SMALL, vocab_size=100, dropout=dropout)
    kept = bytes_kept_for_backward(config, 8, 64, precision)
    assert activation_bytes(config, 8, 64, size) == pytest.approx(kept, rel=0.03)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize(("precision", "size"), [("fp32", 4), ("bf16", 2)])
def test_with_activation_checkpointing_one_block_has_activations_and_the_others_their_inputs(precision, size, dropout):
    config, tokens = GPT2Config(**SMALL, vocab_size=100, dropout=dropout), 8 * 64
    kept = bytes_kept_for_backward(config, 8, 64, precision, checkpoint_activations)
    deeper = config.model_copy(update={"n_layer": config.n_layer + 1})
    block = activation_bytes(deeper, 8, 64, size) - activation_bytes(config, 8, 64, size)
    found = activation_bytes(config, 8, 64, size, checkpointed=True)
    assert found == pytest.approx(kept + block - tokens * 32 * 4, rel=0.03)
    preset = preset_of(model={**SMALL, "dropout": dropout}, training={"precision": precision})
    memory = [
        estimate(p, vocab_size=100, train_tokens=None, device=None).memory.activations
        for p in (preset, preset.with_training(activation_checkpointing=True))
    ]
    assert memory[1] < memory[0]


def test_memory_by_hand():
    preset = preset_of(
        model=SMALL,
        training={"precision": "bf16", "batch_size": 2, "sequence_length": 8},
        optimizer={"name": "muon"},
    )
    P, hidden, C = preset.with_vocab_size(100).model.parameter_count(), 3 * 12 * 32**2, 32
    memory = estimate(preset, vocab_size=100, train_tokens=None, device=None).memory
    assert memory.weights == memory.gradients == 4 * P
    assert memory.weight_copies == 2 * (hidden + 100 * C)
    assert memory.optimizer == 8 * (P - hidden) + 4 * hidden
    assert memory.activations == 16 * (3 * (14 * C * 2 + 2 * C * 4 + 4 * 4) + 8 * C)
    assert memory.temporaries == 16 * 11 * C * 2
    assert memory.loss == 16 * 100 * 6 + 4 * 100 * C
    assert memory.checkpoint == memory.weights + memory.optimizer
    assert memory.process == memory.libraries == 0
    assert memory.total == sum(dataclasses.astuple(memory))


def test_only_the_host_has_the_checkpoints_copy_and_the_process():
    here = DeviceSpeed("2 CPU threads", "fp32", memory_free_bytes=10**9, process_bytes=300_000_000)
    preset = preset_of(model=SMALL)

    def memory(device, **training):
        changed = preset.with_training(**training) if training else preset
        return estimate(changed, vocab_size=100, train_tokens=None, device=device).memory

    assert (memory(GPU).checkpoint, memory(GPU).process) == (0, 0)
    assert memory(here).checkpoint == memory(here).weights + memory(here).optimizer
    assert memory(here, checkpoint_frequency=0).checkpoint == 0
    assert (memory(here).process, memory(here).libraries) == (300_000_000, LIBRARY_BYTES)
    assert memory(here).still_needed == memory(here).total - 300_000_000


def test_the_memory_stands_beside_what_the_process_can_have():
    here = DeviceSpeed("2 CPU threads", "fp32", memory_free_bytes=8 * 10**9, process_bytes=350_000_000)
    found = estimate(preset_of(model=SMALL), vocab_size=100, train_tokens=None, device=here)
    assert memory_text(found) == f"{byte_size(found.memory.total)} of 8.35 GB"
    assert f"memory      {memory_text(found)}: weights " in "\n".join(report_lines(found))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        ("model.dropout=0.0", "training.batch_size=64"),
        ("model.dropout=0.2", "training.batch_size=64"),
        ("model.dropout=0.2", "training.batch_size=96", "training.activation_checkpointing=true"),
    ],
)
def test_memory_is_within_15_percent_of_the_peak_of_a_run(settings):
    script = Path(__file__).parent / "benchmarks" / "estimates.py"
    settings = [*settings, "training.precision=fp32"]
    overrides = [argument for setting in settings for argument in ("--set", setting)]
    ran = subprocess.run([sys.executable, script, "test", *overrides], capture_output=True, text=True, check=True)
    measured = json.loads(ran.stdout)
    assert 0.85 <= measured["memory_ratio"] <= 1.15, measured


def test_adamw_keeps_eight_bytes_a_parameter_and_fp32_copies_nothing():
    preset = preset_of(model=SMALL, training={"precision": "fp32"})
    result = estimate(preset, vocab_size=100, train_tokens=None, device=None)
    assert result.memory.optimizer == 8 * result.parameters.total
    assert result.memory.weight_copies == 0


def test_dropout_on_a_gpu_adds_a_byte_mask_for_each_dropout():
    plain, dropped = GPT2Config(**SMALL), GPT2Config(**SMALL, dropout=0.1)
    with_masks, without = (activation_bytes(config, 2, 8, 4, on_cpu=False) for config in (dropped, plain))
    assert with_masks - without == 2 * 8 * (3 * 2 * 32 + 32)


@pytest.mark.parametrize(("on_cpu", "chunk"), [(True, LOSS_CHUNK_LOGITS_ON_CPU), (False, LOSS_CHUNK_LOGITS)])
def test_the_loss_holds_one_chunk_of_logits_however_many_tokens_there_are(on_cpu, chunk):
    ours = LOSS_CHUNK_LOGITS, LOSS_CHUNK_LOGITS_ON_CPU, COMPILED_LOGITS
    assert ours == (loss.CHUNK_LOGITS, loss.CPU_CHUNK_LOGITS, loss.COMPILED_LOGITS)
    config = GPT2Config()
    for tokens in (10**5, 10**6):
        logits = loss_bytes(config, 50257, tokens, 4, on_cpu=on_cpu) - 4 * 50257 * 768
        assert 0.98 * 4 * chunk < logits <= 4 * chunk


def test_chunks_of_the_loss_have_one_size():
    """A second chunk of a third would leave the room of the first unused."""
    V = LOSS_CHUNK_LOGITS_ON_CPU // 1000
    assert loss_bytes(GPT2Config(), V, 1334, 4, on_cpu=True) == 4 * V * (667 + 768)


def test_the_estimate_covers_compiled_code_on_a_gpu_which_holds_all_logits():
    """gpt2-124m, bf16, micro-batches of 16 x 1,024: 11.13 GB measured on an H100."""
    preset = preset_files.load(["gpt2-124m"]).preset.with_vocab_size(50257)
    assert 0.98 < count_memory(preset, preset.model, "bf16", on_host=False).total / 11.13e9 < 1.08
    eager = preset.with_training(compile="off")  # 9.74 GB, with a last chunk of the loss that was shorter
    assert 0.95 < count_memory(eager, eager.model, "bf16", on_host=False).total / 9.74e9 < 1.08


def test_tokens_epochs_and_chinchilla_by_hand():
    preset = preset_of(
        training={"num_iterations": 10, "batch_size": 2, "gradient_accumulation": 3, "sequence_length": 8}
    )
    result = estimate(preset, vocab_size=50257, train_tokens=240, device=None)
    assert (result.tokens_per_step, result.tokens, result.epochs) == (48, 480, 2.0)
    assert result.tokens_per_parameter == 480 / 124_439_808
    assert estimate(preset, vocab_size=50257, train_tokens=None, device=None).epochs is None


def test_time_is_products_over_speed_shared_by_ranks_and_the_updates_that_are_not():
    preset = preset_of()
    result = estimate(preset, vocab_size=50257, train_tokens=None, device=GPU)
    assert result.seconds == pytest.approx(result.flops / 1e14)
    slow = dataclasses.replace(GPU, memory_bytes_per_second=28e9)
    shared = estimate(preset, vocab_size=50257, train_tokens=None, device=slow, world_size=4)
    updates = preset.training.num_iterations * result.parameters.total / 1e9
    kept = 4 * 1024 * (12 * (14 * 768 * 2 + 2 * 768 * 4 + 4 * 12) + 2 * 768 * 4 + 50257 * 4)  # bf16, 4 x 1,024 tokens
    passing = preset.training.num_iterations * 20 * kept / 28e9
    assert shared.seconds == pytest.approx((result.seconds + passing) / 4 + updates)


def test_what_is_not_known_is_none_and_never_zero():
    unknown = DeviceSpeed("a device", "fp32")
    for device in (None, unknown):
        result = estimate(Preset(), vocab_size=50257, train_tokens=None, device=device)
        assert (result.seconds, result.memory_free_bytes) == (None, None)
        assert any("not known" in line for line in report_lines(result) if line.startswith("time"))


def test_precision_is_the_presets_else_the_devices_else_fp32():
    def precision(asked, device):
        preset = preset_of(training={"precision": asked})
        return estimate(preset, vocab_size=50257, train_tokens=None, device=device).precision

    assert [precision("fp16", GPU), precision("auto", GPU), precision("auto", None)] == [
        "fp16",
        "bf16",
        "fp32",
    ]


def test_the_report_has_the_numbers_and_json_has_the_totals():
    result = estimate(
        preset_of(training={"sequence_length": 64}), vocab_size=50257, train_tokens=118_000_000, device=GPU
    )
    text = "\n".join(report_lines(result))
    for shown in ("124,439,808", "256 per step", "Chinchilla", "no part of it twice", "a GPU"):
        assert shown in text
    described = json.loads(json.dumps(as_dict(result), allow_nan=False))
    assert described["parameters"]["total"] == 124_439_808
    assert described["memory"]["total"] == result.memory.total


def test_a_model_that_does_not_fit_says_so_and_one_that_does_not():
    """With the change that makes it fit: less of the model where that is too large by itself, else of the batch."""

    def change(preset, free):
        tight = dataclasses.replace(GPU, memory_free_bytes=free)
        found = estimate(preset, vocab_size=50257, train_tokens=None, device=tight)
        assert found.is_too_large
        return change_of(preset, found)

    assert not estimate(Preset(), vocab_size=50257, train_tokens=None, device=GPU).is_too_large
    assert "the model itself is too large; lower model.n_embd to" in change(Preset(), 10**9)
    large = preset_of(training={"batch_size": 32, "sequence_length": 1024})
    words = change(large, 6 * 10**9)
    size = int(re.search(r"training.batch_size = (\d+) and training.gradient_accumulation", words)[1])
    assert (
        estimate(large.with_training(batch_size=size), vocab_size=50257, train_tokens=None, device=GPU).memory.total
        <= 6 * 10**9
    )
    given = preset_of(model={"init_from": "openai-community/gpt2"})
    assert "train adapters alone" in change(given, 2 * 10**9)
    adapted = preset_of(model={"init_from": "openai-community/gpt2"}, lora={}, training={"sequence_length": 128})
    assert 'lora.quantize = "nf4"' in change(adapted, 7 * 10**8)
    assert "start from a smaller model" in change(adapted, 10**8)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.2, "1 s"),
        (61.0, "61 s"),
        (600, "10 min"),
        (7_260, "2 h 1 min"),
        (3 * 86_400 + 7_200, "3 days 2 h"),
        (5e10, "1,584 years"),
    ],
)
def test_durations_have_two_units(seconds, shown):
    assert approximate_duration(seconds) == shown


@pytest.mark.parametrize(
    ("name", "precision", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", "bf16", 312e12),
        ("NVIDIA A100 80GB PCIe", "fp16", 312e12),
        ("NVIDIA H100 80GB HBM3", "bf16", 989e12),
        ("NVIDIA H100 PCIe", "bf16", 756e12),
        ("NVIDIA H200", "bf16", 989e12),
        ("NVIDIA L4", "bf16", 121e12),
        ("NVIDIA L40S", "bf16", 362e12),
        ("NVIDIA GeForce RTX 4090", "bf16", 165e12),
        ("Tesla T4", "fp16", 65e12),
        ("Tesla V100-SXM2-16GB", "fp16", 125e12),
    ],
)
def test_known_cards_have_their_stated_peak(name, precision, peak):
    assert peak_flops(name, precision) == peak


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("Tesla T4", "bf16"),
        ("Tesla V100-SXM2-16GB", "bf16"),
        ("NVIDIA A100-SXM4-80GB", "fp32"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "bf16"),
        ("NVIDIA L40", "bf16"),
        ("NVIDIA GH200 480GB", "bf16"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "bf16"),
        ("2 CPU threads", "bf16"),
        ("", "bf16"),
    ],
)
def test_an_unknown_card_or_format_has_no_peak(name, precision):
    assert peak_flops(name, precision) is None


def test_a_cpu_is_measured_and_has_no_stated_peak(monkeypatch):
    monkeypatch.setattr(device_speed, "_MEASURING_SECONDS", 0.01)
    speed = device_speed.measure(torch.device("cpu"), "fp32")
    assert speed.peak_flops is None
    assert speed.flops_per_second_achievable > 1e7
    assert speed.memory_bytes_per_second > 1e7
    assert str(torch.get_num_threads()) in speed.name


def test_the_memory_that_is_free_is_psutils_on_every_system(monkeypatch):
    monkeypatch.setattr(device_speed, "_fastest_seconds", lambda work: 0.01)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=123_456))
    assert device_speed.measure(torch.device("cpu"), "fp32").memory_free_bytes == 123_456


def test_the_expected_speed_is_the_stated_fraction_of_the_measured_product(monkeypatch):
    monkeypatch.setattr(device_speed, "_fastest_seconds", lambda work: 0.01)
    speed = device_speed.measure(torch.device("cpu"), "fp32")
    assert speed.flops_per_second_achievable == pytest.approx(0.83 * 2 * 1024**3 / 0.01)
    assert speed.memory_bytes_per_second == 2 * 64 * 1024**2 / 0.01


def test_tokens_epochs_and_flops_are_of_the_steps_that_fit_a_time_budget():
    def costs(device, **training):
        training = {"num_iterations": 10_000, "batch_size": 2, "sequence_length": 8} | training
        return estimate(preset_of(training=training), vocab_size=257, train_tokens=1600, device=device)

    whole = costs(GPU)
    half = costs(GPU, time_budget=whole.seconds / 2)
    assert half.steps == pytest.approx(5_000, abs=1)
    assert half.tokens == 16 * half.steps
    assert half.epochs == half.tokens / 1600
    assert half.flops == pytest.approx(whole.flops / 2, rel=1e-3)
    assert half.tokens_per_parameter == half.tokens / half.parameters.total
    assert not half.steps_are_a_bound
    assert [line.split()[0] for line in report_lines(half) if "at most" in line] == ["time"]

    assert (half.bounds, whole.bounds) == (["seconds"], [])

    unknown = costs(None, time_budget=7.0)
    assert (unknown.steps, unknown.seconds) == (10_000, 7.0)
    assert unknown.bounds == ["steps", "tokens", "tokens_per_parameter", "epochs", "flops", "seconds"]
    assert as_dict(unknown)["bounds"] == unknown.bounds
    shown = {line.split()[0]: line for line in report_lines(unknown)}
    assert all("at most" in shown[row] for row in ("tokens", "data", "compute", "time"))
    assert "at most" not in "".join(report_lines(costs(None)))


def test_a_time_budget_bounds_the_expected_time():
    free = preset_of(training={"num_iterations": 10_000})
    bounded = preset_of(training={"num_iterations": 10_000, "time_budget": 7.0})
    generous = preset_of(training={"num_iterations": 10_000, "time_budget": 1e9})
    seconds = [estimate(p, vocab_size=257, train_tokens=None, device=GPU).seconds for p in (free, bounded, generous)]
    assert seconds == [seconds[0], 7.0, seconds[0]]
    assert seconds[0] > 7.0


def test_nf4_takes_an_eighth_of_the_matrices_and_hardly_pays_at_124m():
    """At 1,558M the matrices are 95 % of the weights (QLoRA, section 3: 4 + 8/64 + 32/(64 * 256) bits a number)."""
    shares = {}
    for name, n_layer, n_embd, n_head in (("124m", 12, 768, 12), ("1558m", 48, 1600, 25)):
        shape = {"n_layer": n_layer, "n_embd": n_embd, "n_head": n_head, "n_positions": 1024, "vocab_size": 50257}
        model, memory = {**shape, "init_from": "someone/gpt2"}, {}
        for quantize in (None, "nf4"):
            preset = preset_of(model=model, lora={"quantize": quantize}, training={"batch_size": 1})
            memory[quantize] = count_memory(preset, preset.model, "bf16", on_host=False)
        saved = memory[None].weights - memory["nf4"].weights
        assert saved == pytest.approx(12 * n_layer * n_embd**2 * (4 - 4.127 / 8), rel=1e-4)
        shares[name] = 1 - memory["nf4"].total / memory[None].total
    assert shares["124m"] < 0.5 < shares["1558m"]


def test_weights_that_are_quantised_are_whole_while_they_are_read():
    shape = {"n_layer": 48, "n_embd": 1600, "n_head": 25, "n_positions": 1024, "vocab_size": 50257}
    preset = preset_of(model={**shape, "init_from": "x/y"}, lora={"quantize": "nf4"}, training={"sequence_length": 8})
    memory = count_memory(preset, preset.model, "fp32", on_host=True, process_bytes=10**9)
    assert memory.total == 4 * 1_557_611_200 + 10**9
    assert count_memory(preset, preset.model, "fp32", on_host=False).loading == 0


def test_only_adapters_have_gradients_and_moments():
    model = {**SMALL, "vocab_size": 100, "init_from": "someone/gpt2"}
    preset = preset_of(model=model, lora={"rank": 3, "targets": ["attn.c_attn", "mlp.c_proj"]})
    network = GPT2(preset.model)
    add_adapters(network, rank=3, scale=1.0, dropout=0.0, targets=preset.lora.targets)
    trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    assert adapter_parameters(preset, preset.model) == trained == 3 * 3 * (32 + 96 + 128 + 32)
    memory = count_memory(preset, preset.model, "fp32")
    assert (memory.gradients, memory.optimizer, memory.checkpoint) == (4 * trained, 8 * trained, 12 * trained)
    assert memory.weights == 4 * sum(parameter.numel() for parameter in network.parameters())
    whole = estimate(preset, vocab_size=100, train_tokens=None, device=None)
    assert whole.trained_parameters == trained
    assert f"adapters    {trained:,} parameters" in "\n".join(report_lines(whole))


@pytest.mark.parametrize(
    ("shape", "quantize", "measured"),
    [
        ({}, None, 1.79e9),
        ({}, "nf4", 1.69e9),
        ({"n_layer": 24, "n_embd": 1024, "n_head": 16}, None, 3.92e9),
        ({"n_layer": 24, "n_embd": 1024, "n_head": 16}, "nf4", 3.70e9),
    ],
)
def test_the_memory_of_adapters_on_a_host_is_within_15_percent_of_what_was_measured(shape, quantize, measured):
    """docs/log.md, 2026-11-26: 4 windows of 256 tokens, fp32, a process of 247 MB before."""
    shape = {"n_positions": 1024, "vocab_size": 50257, **shape}
    training = {"batch_size": 4, "sequence_length": 256}
    preset = preset_of(model={**shape, "init_from": "x/y"}, lora={"quantize": quantize}, training=training)
    total = count_memory(preset, preset.model, "fp32", on_host=True, process_bytes=247_000_000).total
    assert total == pytest.approx(measured, rel=0.15)
