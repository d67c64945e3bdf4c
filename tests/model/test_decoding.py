"""Reading from 16-bit weights is the model but for a rounding, and stays out of the way where it does not fit."""

import pytest
import torch

from gpt2tui.model import decoding
from gpt2tui.model.config import GPT2Config
from gpt2tui.model.decoding import Decoder, GraphDecoder
from gpt2tui.model.gpt2 import GPT2
from gpt2tui.model.kv_cache import KVCache
from gpt2tui.model.sampling import generate


def network(bias=True, **changes):
    torch.manual_seed(0)
    settings = {"vocab_size": 97, "n_positions": 16, "n_embd": 32, "n_layer": 3, "n_head": 4, "bias": bias} | changes
    model = GPT2(GPT2Config(**settings)).eval().requires_grad_(False)
    for parameter in model.parameters():  # away from the initial zeros and ones
        parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


@pytest.fixture(params=["packed", "plain"])
def products(request, monkeypatch):
    """With FBGEMM's products, and with torch's own, which other processors have."""
    if request.param == "plain":
        monkeypatch.setattr(decoding, "has_packed_products", lambda: False)
    elif not decoding.has_packed_products():
        pytest.skip("this torch has no FBGEMM")
    return request.param


def caches(model, prompt):
    """Two caches that hold the prompt."""
    pair = [KVCache(model.config, len(prompt)) for _ in range(2)]
    for cache in pair:
        model.hidden(prompt, cache)
    return pair


def text(model, decoder, prompt, length=30):
    generator = torch.Generator().manual_seed(1)
    return [
        t.token.tolist()
        for t in generate(model, prompt, max_length=length, generator=generator, temperature=0.0, decoder=decoder)
    ]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float16, 4e-3)])
def test_logits_and_cache_are_the_models_but_for_the_rounding(products, bias, dtype, tolerance):
    model = network(bias)
    ours, theirs = caches(model, torch.tensor([[5, 6, 7]]))
    decoder = Decoder(model, dtype)
    for token in (8, 96, 0, 11):
        given = torch.tensor([[token]])
        expected = model.logits(model.hidden(given, theirs)[:, -1])
        logits = decoder.logits(given, ours)
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, expected, atol=tolerance * float(expected.std()), rtol=0)
    assert ours.length == theirs.length == 7
    torch.testing.assert_close(ours.keys, theirs.keys, atol=tolerance * float(theirs.keys.std()), rtol=0)


def test_a_whole_text_is_written_with_it_also_beyond_the_context(monkeypatch):
    model = network()
    decoder = Decoder(model, torch.float32)
    read, logits = [], decoder.logits
    monkeypatch.setattr(decoder, "logits", lambda token, cache: read.append(int(token)) or logits(token, cache))
    prompt = torch.tensor([[1, 2, 3, 4]])
    assert text(model, decoder, prompt) == text(model, None, prompt)
    # All but those after which the prompt, or what is left of a window, was read at once.
    assert len(read) == 30 - 3


def test_several_texts_are_written_with_packed_matrices():
    model = network()
    prompt = torch.tensor([[5, 6, 7], [8, 9, 10]])
    ours, theirs = caches(model, prompt)
    token = torch.tensor([[8], [96]])
    decoder = Decoder(model, torch.float16)
    if not decoder.packs:
        pytest.skip("this torch has no FBGEMM")
    assert decoder.reads(2, 1)
    assert not decoder.reads(2, 3)
    expected = model.logits(model.hidden(token, theirs)[:, -1])
    torch.testing.assert_close(decoder.logits(token, ours), expected, atol=4e-3 * float(expected.std()), rtol=0)


def test_what_a_graph_records_is_the_model_at_each_position_within_its_length():
    """Of two texts; the recording itself needs a GPU."""
    model = network()
    ours, theirs = caches(model, torch.tensor([[5, 6, 7], [8, 9, 10]]))
    decoder = GraphDecoder(model, torch.float32)
    for token in (8, 96, 0, 11):
        given = torch.tensor([[token], [token + 1 if token < 96 else 0]])
        expected = model.logits(model.hidden(given, theirs)[:, -1])
        logits = decoder.fixed_length_logits(given, torch.tensor([ours.length]), ours, 12)
        torch.testing.assert_close(logits, expected, atol=1e-5 * float(expected.std()), rtol=0)
        ours.advance(1)


def test_several_sequences_are_read_by_the_model_itself_where_matrices_are_not_packed(monkeypatch):
    monkeypatch.setattr(decoding, "has_packed_products", lambda: False)
    model = network()
    decoder = Decoder(model, torch.float16)
    decoder.logits = None
    prompt = torch.tensor([[1, 2], [3, 4]])
    assert text(model, decoder, prompt, 5) == text(model, None, prompt, 5)


def test_a_weight_beyond_the_type_is_refused(products):
    model = network()
    model.h[1].mlp.c_fc.weight[0, 0] = 1e5
    with pytest.raises(ValueError, match=r"does not fit into torch\.float16"):
        Decoder(model, torch.float16)


def test_a_weight_that_is_no_number_is_not_refused_where_nothing_is_rounded():
    model = network()
    model.h[1].mlp.c_fc.weight[0, 0] = float("nan")
    decoder = GraphDecoder(model, torch.float32)
    assert decoder.fixed_length_logits(torch.tensor([[1]]), torch.tensor([0]), model.new_cache(1, 4), 4).isnan().all()


def test_an_activation_beyond_the_type_goes_through_the_model_where_activations_are_rounded(monkeypatch):
    monkeypatch.setattr(decoding, "has_packed_products", lambda: False)
    model = network()
    model.h[0].mlp.c_fc.bias.fill_(1e5)  # so that the hidden layer is too
    ours, theirs = caches(model, torch.tensor([[5, 6, 7]]))
    token = torch.tensor([[8]])
    expected = model.logits(model.hidden(token, theirs)[:, -1])
    assert torch.equal(Decoder(model, torch.float16).logits(token, ours), expected)
    assert torch.equal(ours.keys, theirs.keys)
    assert ours.length == theirs.length
