"""torch.compile: used where it helps, left with a line that says why where it does not."""

import pytest
import torch

from gpt2tui import device as precision
from gpt2tui.preset import files as preset_files
from gpt2tui.training.compilation import compiled
from model.config import GPT2Config
from model.gpt2 import GPT2

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


def choice(monkeypatch, device, *settings, native=True):
    monkeypatch.setattr(precision, "bf16_is_native", lambda device: native)
    monkeypatch.setattr(precision, "_missing_compiler", lambda device: None)
    return precision.choose_compilation(preset_files.load(["default"], settings).preset, torch.device(device)).wanted


@pytest.mark.parametrize(
    ("device", "width", "iterations", "compiles"),
    [
        ("cuda", 64, 500, True),
        ("cuda", 64, 499, False),
        ("cpu", 256, 5_000, True),  # in bf16
        ("cpu", 256, 4_999, False),
        ("cpu", 192, 5_000, False),  # too narrow for bf16
        ("mps", 256, 5_000, False),
    ],
)
def test_auto_is_a_rule_of_device_precision_and_length(monkeypatch, device, width, iterations, compiles):
    settings = (f"model.n_embd={width}", "model.n_head=1", f"training.num_iterations={iterations}")
    assert choice(monkeypatch, device, *settings) is compiles


def test_a_cpu_without_bf16_runs_eager_code_unless_it_is_told(monkeypatch):
    settings = ("model.n_embd=768", "training.num_iterations=50000")
    assert not choice(monkeypatch, "cpu", *settings, native=False)
    assert choice(monkeypatch, "cpu", *settings, "training.compile=on", native=False)
    assert not choice(monkeypatch, "cpu", *settings, "training.compile=off")


def test_a_missing_compiler_is_told_only_where_it_would_be_used(monkeypatch):
    monkeypatch.setattr(precision, "_missing_compiler", lambda device: "no compiler")
    for settings, note in (("training.compile=on",), "not compiled: no compiler"), (("training.compile=off",), None):
        loaded = preset_files.load(["test"], settings).preset
        found = precision.choose_compilation(loaded, torch.device("cpu"))
        assert not found.wanted
        assert (found.note or "").startswith(note or "")
        assert (found.note is None) == (note is None)


@pytest.mark.parametrize(
    ("device", "native", "width", "expected"),
    [
        ("cuda", True, 64, "bf16"),
        ("cuda", False, 64, "fp16"),
        ("cpu", True, 256, "bf16"),
        ("cpu", True, 255, "fp32"),
        ("cpu", False, 768, "fp32"),
        ("mps", False, 768, "fp32"),
    ],
)
def test_precision_auto_is_a_rule_of_device_instructions_and_width(monkeypatch, device, native, width, expected):
    monkeypatch.setattr(precision, "bf16_is_native", lambda device: native)
    loaded = preset_files.load(["default"], [f"model.n_embd={width}", "model.n_head=1"]).preset
    assert precision.choose_precision(loaded, torch.device(device)) == expected


def test_a_compiler_that_fails_leaves_the_eager_network_as_it_was(monkeypatch, network):
    def broken(model, **options):
        raise RuntimeError("ld: cannot find -lm\nand so on")

    monkeypatch.setattr(torch, "compile", broken)
    before = torch.get_rng_state()
    forward, note = compiled(network, SHAPE, "fp32")
    assert forward is network
    assert note == "not compiled (RuntimeError: ld: cannot find -lm); training runs the slower eager code"
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_compiled_it_is_the_same_function_and_nothing_else_has_changed(network):
    weights, before = {k: v.clone() for k, v in network.state_dict().items()}, torch.get_rng_state()
    forward, note = compiled(network, SHAPE, "fp32")
    assert note is None
    assert forward is not network
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, weights[key]) for key, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())

    tokens, targets = torch.randint(0, 50, (2, *SHAPE))
    losses, gradients = [], []
    for function in (forward, network):
        loss = function(tokens, targets)
        loss.backward()
        losses.append(loss.detach())
        gradients.append({name: p.grad.clone() for name, p in network.named_parameters()})
        network.zero_grad()
    torch.testing.assert_close(*losses)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], msg=name)


@pytest.mark.slow
def test_a_second_run_of_the_process_may_have_another_shape(network):
    breaks = torch._dynamo.utils.counters["graph_break"]
    breaks.clear()
    for shape in (SHAPE, (3, 5)):
        assert compiled(network, shape, "fp32")[1] is None
        assert not breaks


@pytest.mark.slow
def test_what_the_run_then_does_is_compiled_already(network):
    forward, _ = compiled(network, SHAPE, "fp32")
    compilations = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    forward(*torch.randint(0, 50, (2, *SHAPE))).backward()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == compilations > 0
