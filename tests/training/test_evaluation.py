import math

import numpy as np
import torch

from gpt2tui.training.evaluation import HeldOutLoss, held_out_loss
from model.config import GPT2Config
from model.gpt2 import GPT2


def test_bits_per_byte_of_a_hand_computed_case():
    loss = HeldOutLoss(nats=10 * math.log(2), tokens=4, bytes=5)
    assert loss.bits_per_byte == 2.0
    assert loss.val_loss == 2.5 * math.log(2)
    assert math.isclose(loss.perplexity, 2**2.5)


def test_a_loss_too_large_for_a_perplexity_is_infinite():
    assert HeldOutLoss(nats=1e6, tokens=1, bytes=1).perplexity == math.inf


def test_sums_equal_transformers_cross_entropy_over_the_counted_targets():
    torch.manual_seed(0)
    model = GPT2(GPT2Config(vocab_size=7, n_positions=5, n_embd=8, n_layer=1, n_head=2, dropout=0.5)).train()
    inputs = torch.randint(0, 7, (3, 5))
    targets = torch.randint(0, 7, (3, 5))
    targets[2, 3:] = -1
    lengths = np.array([0, 1, 2, 3, 4, 5, 6])
    before = torch.get_rng_state()
    result = held_out_loss(model, [(inputs, targets)], lengths)
    assert torch.equal(before, torch.get_rng_state())
    assert model.training
    logits = model.eval()(inputs)
    expected = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=-1, reduction="sum"
    )
    assert math.isclose(result.nats, expected.item(), rel_tol=1e-5)
    assert result.tokens == 13
    assert result.bytes == int(targets[targets >= 0].sum())
