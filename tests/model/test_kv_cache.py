"""With the cache the network computes what it computes without."""

import pytest
import torch

from gpt2tui.model.config import GPT2Config
from gpt2tui.model.gpt2 import GPT2
from gpt2tui.model.kv_cache import KVCache

CONFIG = GPT2Config(vocab_size=61, n_positions=24, n_embd=32, n_layer=2, n_head=4)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    return GPT2(CONFIG).eval().requires_grad_(False)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("chunks", [(24,), (1,) * 24, (10, 1, 1, 12), (1, 23), (5, 7, 12)], ids=str)
def test_cached_logits_equal_uncached(model, chunks, batch_size):
    tokens = torch.randint(61, (batch_size, 24))
    cache = KVCache(CONFIG, batch_size)
    cached = torch.cat([model(chunk, cache=cache) for chunk in tokens.split(chunks, dim=1)], dim=1)
    assert cache.length == 24
    torch.testing.assert_close(cached, model(tokens), rtol=1e-5, atol=1e-5)


def test_a_cache_that_was_reset_begins_a_new_text(model):
    tokens, other = torch.randint(61, (1, 12)), torch.randint(61, (1, 5))
    cache = KVCache(CONFIG, 1)
    model(tokens, cache=cache)
    cache.reset()
    assert cache.length == 0
    torch.testing.assert_close(model(other, cache=cache), model(other), rtol=1e-5, atol=1e-5)


def test_cache_is_allocated_once(model):
    cache = KVCache(CONFIG, 1, max_length=9)
    addresses = cache.keys.data_ptr(), cache.values.data_ptr()
    assert cache.keys.shape == cache.values.shape == (2, 1, 4, 9, 8)
    for _ in range(9):
        model(torch.zeros(1, 1, dtype=torch.long), cache=cache)
    assert (cache.keys.data_ptr(), cache.values.data_ptr()) == addresses


def test_text_longer_than_the_cache_is_refused_and_leaves_it_as_it_was(model):
    cache = KVCache(CONFIG, 1, max_length=4)
    model(torch.zeros(1, 3, dtype=torch.long), cache=cache)
    with pytest.raises(ValueError, match="5 tokens do not fit in a context of 4"):
        model(torch.zeros(1, 2, dtype=torch.long), cache=cache)
    assert cache.length == 3


def test_impossible_lengths_are_refused():
    for length in (0, 25):
        with pytest.raises(ValueError, match="n_positions = 24"):
            KVCache(CONFIG, 1, max_length=length)


def test_cache_serves_bf16_autocast(model):
    tokens = torch.randint(61, (1, 10))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cache = KVCache(CONFIG, 1)
        cached = torch.cat([model(chunk, cache=cache) for chunk in tokens.split(4, dim=1)], dim=1)
    torch.testing.assert_close(cached.float(), model(tokens), rtol=0.05, atol=0.02)
