"""The two uses of the tied embedding and their one gradient, against what autograd does by itself."""

import pytest
import torch
import torch.nn.functional as F

from gpt2tui.model.cpu import tied_embedding

V, C = 11, 4


@pytest.fixture
def weight():
    return torch.randn(V, C, generator=torch.Generator().manual_seed(3)).requires_grad_()


@pytest.fixture
def tokens():
    return torch.tensor([[1, 5, 1], [10, 1, 0]])  # one of them three times


def both(embed, tokens, weight):
    words, head = embed(tokens, weight)
    return (F.linear(words.tanh(), head) ** 2).sum()


def gradient(embed, tokens, weight, loss=both):
    return torch.autograd.grad(loss(embed, tokens, weight), weight)[0]


def plain(tokens, weight):
    return F.embedding(tokens, weight), weight


def only_words(embed, tokens, weight):
    return (embed(tokens, weight)[0] ** 2).sum()


def only_logits(embed, tokens, weight):
    return (embed(tokens, weight)[1] ** 3).sum()


@pytest.mark.parametrize("loss", [both, only_words, only_logits])
def test_gradient_equals_that_of_autograd(tokens, weight, loss):
    ours, theirs = gradient(tied_embedding, tokens, weight, loss), gradient(plain, tokens, weight, loss)
    assert theirs.any()
    torch.testing.assert_close(ours, theirs)


def test_no_second_matrix_is_made(tokens, weight):
    words, head = tied_embedding(tokens, weight)
    arrived = []
    head.register_hook(lambda grad: arrived.append(grad.data_ptr()))
    F.linear(words, head).sum().backward()
    assert weight.grad.data_ptr() == arrived[0]


def test_gradients_of_two_batches_add_up(tokens, weight):
    for batch in (tokens, tokens.flip(0), tokens.clamp(max=7)):
        both(tied_embedding, batch, weight).backward()
    expected = sum(gradient(plain, batch, weight) for batch in (tokens, tokens.flip(0), tokens.clamp(max=7)))
    torch.testing.assert_close(weight.grad, expected)


def test_without_gradients_the_weight_itself_comes_back(tokens, weight):
    with torch.no_grad():
        words, head = tied_embedding(tokens, weight)
    assert head is weight
    assert torch.equal(words, weight[tokens])
