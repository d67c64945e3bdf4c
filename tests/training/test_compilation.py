"""torch.compile: used where it helps, left with a line that says why where it does not."""

import pytest
import torch

from gpt2tui.training import compilation
from gpt2tui.training.compilation import compiled
from model.config import GPT2Config
from model.gpt2 import GPT2

SHAPE = (2, 8)


@pytest.fixture(autouse=True)
def _forgotten():
    """What was compiled here is nothing that other tests should know."""
    yield
    torch._dynamo.reset()


@pytest.fixture
def network():
    torch.manual_seed(0)
    return GPT2(GPT2Config(n_layer=1, n_head=2, n_embd=16, n_positions=8, vocab_size=50))


def fixed_times(monkeypatch, network, *, ours, eager):
    """Nothing is compiled, and what is asked how long it takes says so."""
    monkeypatch.setattr(torch, "compile", lambda model, **_: lambda *arguments: model(*arguments))
    monkeypatch.setattr(compilation, "_seconds", lambda forward, *_: eager if forward is network else ours)


def test_slower_code_is_not_used_and_that_is_said(monkeypatch, network):
    fixed_times(monkeypatch, network, ours=0.21, eager=0.18)
    forward, note = compiled(network, SHAPE, "fp32", if_faster=True)
    assert forward is network
    assert note == "not compiled: the eager code is as fast here (180 ms a batch, compiled 210)"


def test_faster_code_is_used(monkeypatch, network):
    fixed_times(monkeypatch, network, ours=0.15, eager=0.18)
    forward, note = compiled(network, SHAPE, "fp32", if_faster=True)
    assert forward is not network
    assert note is None


def test_who_asks_for_compiled_code_gets_it_slow_or_not(monkeypatch, network):
    fixed_times(monkeypatch, network, ours=0.21, eager=0.18)
    forward, note = compiled(network, SHAPE, "fp32")
    assert forward is not network
    assert note is None


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
