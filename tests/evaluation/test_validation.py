import math

import numpy as np
import pytest
import torch

from gpt2tui.data.batches import evaluation_batches
from gpt2tui.evaluation.validation import ValidationLoss, validation_loss
from gpt2tui.model.config import GPT2Config
from gpt2tui.model.gpt2 import GPT2


def test_bits_per_byte_of_a_hand_computed_case():
    loss = ValidationLoss(nats=10 * math.log(2), tokens=4, bytes=5)
    assert loss.bits_per_byte == 2.0
    assert loss.val_loss == 2.5 * math.log(2)
    assert math.isclose(loss.perplexity, 2**2.5)


def test_a_loss_too_large_for_a_perplexity_is_infinite():
    assert ValidationLoss(nats=1e6, tokens=1, bytes=1).perplexity == math.inf


def test_sums_equal_transformers_cross_entropy_over_the_counted_targets():
    torch.manual_seed(0)
    model = GPT2(GPT2Config(vocab_size=7, n_positions=5, n_embd=8, n_layer=1, n_head=2, dropout=0.5)).train()
    inputs = torch.randint(0, 7, (3, 5))
    targets = torch.randint(0, 7, (3, 5))
    targets[2, 3:] = -1
    lengths = np.array([0, 1, 2, 3, 4, 5, 6])
    before = torch.get_rng_state()
    result = validation_loss(model, [(inputs, targets)], lengths)
    assert torch.equal(before, torch.get_rng_state())
    assert model.training
    logits = model.eval()(inputs)
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="sum"
    )
    assert math.isclose(result.nats, expected.item(), rel_tol=1e-5)
    assert result.tokens == 13
    assert result.bytes == int(targets[targets >= 0].sum())


@pytest.mark.parametrize("eval_tokens", [100, None])
def test_the_validation_loss_does_not_depend_on_the_batch_size(eval_tokens):
    torch.manual_seed(0)
    model = GPT2(GPT2Config(vocab_size=7, n_positions=8, n_embd=8, n_layer=1, n_head=2))
    tokens = np.random.default_rng(0).integers(0, 7, 1003, dtype=np.uint16)  # the last window is not full
    losses = [
        validation_loss(model, evaluation_batches(tokens, batch_size, 8, eval_tokens), np.ones(7, dtype=np.int64))
        for batch_size in (1, 3, 8)
    ]
    assert {loss.tokens for loss in losses} == {1002 if eval_tokens is None else 96}
    assert [loss.val_loss for loss in losses] == pytest.approx([losses[0].val_loss] * 3, abs=1e-6)
