import math
import subprocess
import sys

import pytest
import torch

from gpt2tui.model.config import GPT2Config
from gpt2tui.model.gpt2 import GPT2
from gpt2tui.preset import files as preset_files
from gpt2tui.training import muon
from gpt2tui.training.muon import Muon, orthogonalize
from gpt2tui.training.optimizers import Optimizers


def model():
    torch.manual_seed(0)
    return GPT2(GPT2Config(vocab_size=31, n_positions=8, n_embd=16, n_layer=2, n_head=2))


def table(*overrides):
    return preset_files.load(["default"], ["model.n_positions=64", *overrides]).preset.optimizer


def fill_gradients(network, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_only_matrices_decay():
    network = model()
    optimizer = Optimizers(network, table("optimizer.weight_decay=0.1"))
    decayed = {
        id(p): group["weight_decay"] for o, _ in optimizer.all for group in o.param_groups for p in group["params"]
    }
    assert {name: decayed[id(p)] for name, p in network.named_parameters()} == {
        name: 0.1 if p.ndim == 2 else 0.0 for name, p in network.named_parameters()
    }


def test_muon_moves_the_hidden_matrices_and_adamw_the_rest():
    network = model()
    optimizer = Optimizers(network, table("optimizer.name=muon"))
    by_muon = set(optimizer.all[1][0].param_groups[0]["param_names"])
    assert by_muon == {name for name, p in network.named_parameters() if name.startswith("h.") and p.ndim == 2}
    everything = [p for o, _ in optimizer.all for group in o.param_groups for p in group["params"]]
    assert len(everything) == len(set(map(id, everything))) == len(list(network.parameters()))


def test_adamw_steps_equal_a_plain_torch_adamw():
    ours, theirs = model(), model()
    optimizer = Optimizers(ours, table("optimizer.lr=1e-2", "optimizer.weight_decay=0.1"))
    reference = torch.optim.AdamW(
        [
            {"params": [p for p in theirs.parameters() if p.ndim >= 2], "weight_decay": 0.1},
            {"params": [p for p in theirs.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=1e-2,
        betas=(0.9, 0.95),
    )
    for seed in range(3):
        fill_gradients(ours, seed)
        fill_gradients(theirs, seed)
        optimizer.set_learning_rate(1.0)
        optimizer.step()
        reference.step()
    for ours_parameter, parameter in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(ours_parameter, parameter, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("shape", [(24, 24), (16, 48), (48, 16), (3, 16, 16)])
def test_orthogonalize_brings_all_singular_values_near_one(shape):
    u, _, v = torch.linalg.svd(torch.randn(shape, generator=torch.Generator().manual_seed(3)), full_matrices=False)
    spread = torch.linspace(0.05, 1.0, u.size(-1))
    values = torch.linalg.svdvals(orthogonalize(u * spread @ v, torch.float32))
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_muon_equals_torchs_where_the_iteration_runs_in_bf16(monkeypatch):
    monkeypatch.setattr(muon, "product_dtype", lambda device: torch.bfloat16)
    start = torch.randn(16, 40, generator=torch.Generator().manual_seed(4))
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    settings = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.95}
    pairs = [(Muon([ours], **settings), ours), (torch.optim.Muon([theirs], **settings), theirs)]
    for seed in range(4):
        gradient = torch.randn(16, 40, generator=torch.Generator().manual_seed(seed))
        for optimizer, parameter in pairs:
            parameter.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    assert (ours - start).abs().max() > 0.01


@pytest.mark.parametrize("shape", [(16, 64), (64, 16), (3, 16, 40)])
def test_the_iteration_through_the_gram_matrix_is_the_same_function(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(6))
    matrices[..., 0] *= 1e3  # a steep spectrum; bf16 is off by 1e-2
    x = (matrices.mT if shape == (64, 16) else matrices).double()
    a, b, c = muon.NEWTON_SCHULZ
    x = x / x.norm(dim=(-2, -1), keepdim=True)
    for _ in range(muon.NEWTON_SCHULZ_STEPS):
        x = a * x + (b * (x @ x.mT) + c * (x @ x.mT) @ (x @ x.mT)) @ x
    expected = x.mT if shape == (64, 16) else x
    torch.testing.assert_close(orthogonalize(matrices, torch.float32).double(), expected, atol=2e-3, rtol=0)


def test_matrices_in_one_stack_move_as_each_alone(monkeypatch):
    together, alone = model(), model()
    for network, stacked in ((together, 2**24), (alone, 1)):
        monkeypatch.setattr(muon, "STACKED", stacked)
        optimizer = Optimizers(network, table("optimizer.name=muon", "optimizer.weight_decay=0.1"))
        for seed in range(2):
            fill_gradients(network, seed)
            optimizer.set_learning_rate(1 / (1 + seed))
            optimizer.step()
    for a, b in zip(together.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-7, rtol=0)


def test_muon_orthogonalizes_each_third_of_a_fused_qkv():
    parameter = torch.nn.Parameter(torch.zeros(48, 16))
    thirds = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(5)) * torch.tensor([1.0, 10.0, 100.0]).view(
        3, 1, 1
    )
    parameter.grad = thirds.reshape(48, 16)
    Muon([parameter], lr=1.0, weight_decay=0.0).step()
    for third in parameter.detach().chunk(3):
        assert torch.linalg.svdvals(third).median() == pytest.approx(0.9, abs=0.3)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_restored_state_continues_exactly(name):
    straight, resumed = model(), model()
    settings = table(f"optimizer.name={name}")
    first, second = Optimizers(straight, settings), Optimizers(resumed, settings)
    for network, optimizer in ((straight, first), (resumed, second)):
        fill_gradients(network)
        optimizer.set_learning_rate(1.0)
        optimizer.step()
    third = Optimizers(resumed, settings)
    third.load_state_tensors({key: value.clone() for key, value in second.state_tensors().items()})
    for network, optimizer in ((straight, first), (resumed, third)):
        fill_gradients(network, seed=2)
        optimizer.set_learning_rate(0.9)
        optimizer.step()
    for a, b in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)


def test_state_of_another_model_is_refused_with_its_name():
    network = model()
    optimizer = Optimizers(network, table())
    fill_gradients(network)
    optimizer.step()
    tensors = optimizer.state_tensors()
    tensors["wte.weight.exp_avg"] = torch.zeros(2, 2)
    with pytest.raises(ValueError, match=r"wte\.weight\.exp_avg has shape \(2, 2\)"):
        Optimizers(network, table()).load_state_tensors(tensors)


def test_moments_of_another_type_are_refused():
    network = model()
    optimizer = Optimizers(network, table())
    fill_gradients(network)
    optimizer.step()
    tensors = {key: value.double() for key, value in optimizer.state_tensors().items()}
    with pytest.raises(ValueError, match=r"float64, not torch\.float32"):
        Optimizers(network, table()).load_state_tensors(tensors)


def test_muon_has_the_learning_rate_factor_of_adamw():
    optimizer = Optimizers(model(), table("optimizer.name=muon", "optimizer.lr=3e-4", "optimizer.muon_lr=0.02"))
    rate = optimizer.set_learning_rate(2 / 4)
    assert math.isclose(rate, 3e-4 * 2 / 4)
    assert math.isclose(optimizer.all[1][0].param_groups[0]["lr"], 0.02 * 2 / 4)


def test_steps_do_not_load_torchs_compiler():
    """It takes two seconds, which every start of a training that is not compiled would wait."""
    script = """
import sys
import torch
from gpt2tui.preset import files
from gpt2tui.training.update import fresh_update
update = fresh_update(files.load(["test"], ["optimizer.name=muon"]).preset, torch.device("cpu"), "fp32")
tokens = torch.zeros(1, 8, dtype=torch.int64)
update.run([(tokens, tokens)], 0)
print("torch._dynamo" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
