"""torch.compile: used where it helps, left with a line that says why where it does not."""

import pytest
import torch

from gpt2tui import device as rules
from gpt2tui.model.config import GPT2Config
from gpt2tui.model.gpt2 import GPT2
from gpt2tui.preset import files as preset_files
from gpt2tui.training import compilation
from gpt2tui.training.activation_checkpointing import checkpoint_activations
from gpt2tui.training.compilation import compiled

SHAPE = (2, 8)


@pytest.fixture(autouse=True)
def _forgotten():
    """What was compiled here is nothing that other tests should know."""
    yield
    torch.compiler.reset()


@pytest.fixture
def network():
    torch.manual_seed(0)
    return GPT2(GPT2Config(n_layer=1, n_head=2, n_embd=16, n_positions=8, vocab_size=50))


def compiles(monkeypatch, device, *settings, native=True):
    monkeypatch.setattr(rules, "bf16_is_native", lambda device: native)
    monkeypatch.setattr(rules, "_missing_compiler", lambda device: None)
    return rules.choose_compilation(preset_files.load(["default"], settings).preset, torch.device(device)).wanted


@pytest.mark.parametrize(
    ("device", "width", "iterations", "expected"),
    [
        ("cuda", 64, 500, True),
        ("cuda", 64, 499, False),
        ("cpu", 256, 5_000, True),  # in bf16
        ("cpu", 256, 4_999, False),
        ("cpu", 192, 5_000, False),  # too narrow for bf16
        ("mps", 256, 5_000, False),
    ],
)
def test_auto_is_a_rule_of_device_precision_and_length(monkeypatch, device, width, iterations, expected):
    settings = (f"model.n_embd={width}", "model.n_head=1", f"training.num_iterations={iterations}")
    assert compiles(monkeypatch, device, *settings) is expected


def test_a_cpu_without_bf16_runs_eager_code_unless_the_preset_says_otherwise(monkeypatch):
    settings = ("model.n_embd=768", "training.num_iterations=50000")
    assert not compiles(monkeypatch, "cpu", *settings, native=False)
    assert compiles(monkeypatch, "cpu", *settings, "training.compile=on", native=False)
    assert not compiles(monkeypatch, "cpu", *settings, "training.compile=off")


def test_a_missing_compiler_is_reported_only_where_it_would_be_used(monkeypatch):
    monkeypatch.setattr(rules, "_missing_compiler", lambda device: "no compiler")
    for settings, note in (("training.compile=on",), "not compiled: no compiler"), (("training.compile=off",), None):
        loaded = preset_files.load(["test"], settings).preset
        found = rules.choose_compilation(loaded, torch.device("cpu"))
        assert not found.wanted
        assert found.reason == ("no compiler" if note else "training.compile = off")
        assert (found.note or "").startswith(note or "")
        assert (found.note is None) == (note is None)


@pytest.mark.parametrize(
    ("device", "native", "width", "expected", "reason"),
    [
        ("cuda", True, 64, "bf16", "this GPU multiplies bf16 in hardware"),
        ("cuda", False, 64, "fp16", "this GPU has no bf16 instructions"),
        ("cpu", True, 256, "bf16", "this CPU multiplies bf16 in hardware"),
        ("cpu", True, 255, "fp32", "n_embd = 255 is too narrow for a CPU to gain from bf16"),
        ("cpu", False, 768, "fp32", "this CPU has no bf16 instructions"),
        ("mps", False, 768, "fp32", "this mps has no bf16 instructions"),
    ],
)
def test_precision_auto_is_a_rule_with_a_reason(monkeypatch, device, native, width, expected, reason):
    monkeypatch.setattr(rules, "bf16_is_native", lambda device: native)
    loaded = preset_files.load(["default"], [f"model.n_embd={width}", "model.n_head=1"]).preset
    assert rules.choose_precision(loaded, torch.device(device)) == expected
    assert rules.precision_reason(loaded, torch.device(device)) == f"auto: {reason}"


def test_what_the_preset_asks_for_is_its_own_reason():
    asked = preset_files.load(["default"], ["training.precision=bf16", "training.compile=on"]).preset
    assert rules.precision_reason(asked, torch.device("cpu")) == "training.precision = bf16"


@pytest.mark.parametrize(
    ("device", "iterations", "reason"),
    [
        ("cuda", 499, "auto: 499 iterations; on cuda in bf16 compiling pays from 500 on"),
        ("cuda", 500, "auto: 500 iterations; on cuda in bf16 compiling pays from 500 on"),
        ("mps", 9_999, "auto: on mps in bf16 compiled code is hardly faster"),
    ],
)
def test_compile_auto_has_a_reason(monkeypatch, device, iterations, reason):
    monkeypatch.setattr(rules, "bf16_is_native", lambda device: True)
    monkeypatch.setattr(rules, "_missing_compiler", lambda device: None)
    loaded = preset_files.load(["default"], [f"training.num_iterations={iterations}"]).preset
    assert rules.choose_compilation(loaded, torch.device(device)).reason == reason


@pytest.mark.parametrize(("seconds", "wanted"), [(0, True), (299, False), (300, True)])
def test_a_short_time_budget_is_not_spent_on_compiling(monkeypatch, seconds, wanted):
    monkeypatch.setattr(rules, "bf16_is_native", lambda device: True)
    monkeypatch.setattr(rules, "_missing_compiler", lambda device: None)
    settings = [f"training.time_budget={seconds}", "training.num_iterations=100000"]
    choice = rules.choose_compilation(preset_files.load(["default"], settings).preset, torch.device("cuda"))
    assert choice.wanted is wanted
    assert ("time budget of 299 s" in choice.reason) is not wanted


def test_a_compiler_that_fails_leaves_the_eager_network_as_it_was(monkeypatch, network):
    def broken(model, **options):
        raise RuntimeError("ld: cannot find -lm\nand so on")

    monkeypatch.setattr(torch, "compile", broken)
    before = torch.get_rng_state()
    forward, note = compiled(network, SHAPE, "fp32")
    assert forward is network
    assert note == "not compiled (RuntimeError: ld: cannot find -lm); training runs the slower eager code"
    assert torch.equal(torch.get_rng_state(), before)


def test_a_compiler_that_refuses_graphs_compiles_without_them(monkeypatch, network):
    """As torch 2.11 does in every thread but its first one; with the device of the network taken for a GPU."""
    tried = []

    def refusing(model, *, dynamic, mode):
        tried.append(mode)
        if mode == "reduce-overhead":
            raise AssertionError("torch._C._is_key_in_tls(attr_name)")
        return model.__call__

    monkeypatch.setattr(torch, "compile", refusing)
    monkeypatch.setattr(compilation, "can_record_graphs", lambda device: True)
    forward, note = compiled(network, SHAPE, "fp32", graphs=True)
    assert note == "compiled without CUDA graphs (AssertionError: torch._C._is_key_in_tls(attr_name))"
    assert tried == ["reduce-overhead", None]
    assert forward is not network


TOLERANCE = 3e-6
"""Of the relative error of loss and gradients in fp32: a few roundings. The exact GELU is off by 100 times as much."""


def loss_and_gradients(function, network, tokens, targets):
    loss = function(tokens, targets)
    loss.backward()
    gradients = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad()
    return [loss.detach(), *gradients]


def largest_error(found, expected):
    """The norm of the difference over that of the expected tensor, of the worst tensor."""
    return max((f - e).norm() / e.norm().clamp(min=1e-3) for f, e in zip(found, expected, strict=True))


@pytest.mark.slow
def test_compiled_it_is_the_same_function_and_nothing_else_has_changed(network, monkeypatch):
    weights, before = {k: v.clone() for k, v in network.state_dict().items()}, torch.get_rng_state()
    forward, note = compiled(network, SHAPE, "fp32")
    assert note is None
    assert forward is not network
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, weights[key]) for key, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())

    for parameter in network.parameters():  # initial weights are so small that attention is nearly uniform
        torch.nn.init.normal_(parameter, std=0.3)
    batch = torch.randint(0, 50, (2, *SHAPE))
    expected = loss_and_gradients(network, network, *batch)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert largest_error(loss_and_gradients(forward, network, *batch), expected) < TOLERANCE
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs > 0  # nothing was compiled in the run
    with torch.autocast("cpu", torch.bfloat16):
        assert largest_error(loss_and_gradients(network, network, *batch), expected) > 100 * TOLERANCE
    exact_gelu = torch.nn.functional.gelu
    monkeypatch.setattr(torch.nn.functional, "gelu", lambda x, approximate: exact_gelu(x))
    assert largest_error(loss_and_gradients(network, network, *batch), expected) > 10 * TOLERANCE


@pytest.mark.slow
def test_a_second_run_of_the_process_may_have_another_shape(network):
    breaks = torch._dynamo.utils.counters["graph_break"]
    breaks.clear()
    for shape in (SHAPE, (3, 5)):
        assert compiled(network, shape, "fp32")[1] is None
        assert not breaks


@pytest.mark.slow
def test_compiled_activation_checkpointing_drops_the_same_again():
    """With one dropout in the forward pass and another in its recomputation the gradients would be others."""
    found = []
    for change in (lambda network: network, checkpoint_activations):
        torch.manual_seed(0)
        network = change(GPT2(GPT2Config(n_layer=1, n_head=2, n_embd=16, n_positions=8, vocab_size=50, dropout=0.2)))
        forward, note = compiled(network, SHAPE, "fp32")
        assert note is None
        batch = torch.randint(0, 50, (2, *SHAPE), generator=torch.Generator().manual_seed(2))
        torch.manual_seed(1)
        found.append(loss_and_gradients(forward, network, *batch))
    assert largest_error(*found) < TOLERANCE
