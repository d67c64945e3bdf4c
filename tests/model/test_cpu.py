"""A network tuned for the CPU is the plain network: the same names, logits, loss and gradients."""

import copy

import pytest
import torch

from gpt2tui.model import cpu
from gpt2tui.model.config import GPT2Config
from gpt2tui.model.cpu import CPUGPT2, CPULinear, tune_for_cpu
from gpt2tui.model.gpt2 import GPT2


@pytest.fixture
def plain():
    torch.manual_seed(2)
    return GPT2(GPT2Config(vocab_size=61, n_positions=16, n_embd=32, n_layer=2, n_head=2))


@pytest.fixture
def tuned(plain, monkeypatch):
    monkeypatch.setattr(cpu, "LARGE", 1)  # so that these small matrices count as large
    return tune_for_cpu(copy.deepcopy(plain))


@pytest.fixture
def tokens():
    return torch.randint(61, (3, 17), generator=torch.Generator().manual_seed(4))


def test_names_and_values_of_the_parameters_stay(plain, tuned):
    assert list(tuned.state_dict()) == list(plain.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(tuned.parameters(), plain.parameters(), strict=True))


def test_a_copy_is_tuned_too(tuned):
    copied = copy.deepcopy(tuned)
    assert type(copied) is CPUGPT2
    assert type(copied.h[1].mlp.c_proj) is CPULinear


def test_logits_are_the_same(plain, tuned, tokens):
    with torch.no_grad():
        torch.testing.assert_close(tuned(tokens[:, :-1]), plain(tokens[:, :-1]), rtol=1e-5, atol=1e-5)


def test_loss_and_gradients_are_the_same(plain, tuned, tokens):
    losses = [network(tokens[:, :-1], tokens[:, 1:]) for network in (tuned, plain)]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    for (name, ours), theirs in zip(tuned.named_parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)


def test_training_adds_both_gradients_of_the_embedding_into_one_matrix(plain, tuned, tokens, monkeypatch):
    used = []
    tied = cpu.tied_embedding
    monkeypatch.setattr(cpu, "tied_embedding", lambda *arguments: used.append(True) or tied(*arguments))
    for network in (plain, tuned):
        network(tokens[:, :-1], tokens[:, 1:])
    assert used == [True]
