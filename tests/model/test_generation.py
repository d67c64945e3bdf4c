"""The generation loop: the same text as without a cache, sliding, stopping, and no trace left in training."""

import pytest
import torch

from gpt2tui.model.config import GPT2Config
from gpt2tui.model.gpt2 import GPT2
from gpt2tui.model.sampling import generate

VOCABULARY = 61


def network(n_positions=16, dropout=0.0):
    torch.manual_seed(2)
    model = GPT2(
        GPT2Config(vocab_size=VOCABULARY, n_positions=n_positions, n_embd=32, n_layer=2, n_head=4, dropout=dropout)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # far from uniform, so that a wrong context changes the text
    return model


def prompt_of(length, batch_size=1):
    return torch.randint(VOCABULARY, (batch_size, length), generator=torch.Generator().manual_seed(8))


def text(model, prompt, max_length, seed=0, **settings):
    """The tokens (B, max_length) of a generation."""
    settings = {"generator": torch.Generator().manual_seed(seed)} | settings
    return torch.stack([t.token for t in generate(model, prompt, max_length=max_length, **settings)], dim=1)


def uncached_greedy(model, prompt, max_length):
    """The likeliest continuation by the definition of the window, which is read again for each token."""
    n, window, written = model.config.n_positions, prompt[:, -model.config.n_positions :], []
    model.eval()
    for _ in range(max_length):
        with torch.no_grad():
            written.append(model(window)[:, -1].argmax(-1))
        window = torch.cat((window, written[-1][:, None]), dim=1)
        if window.size(1) > n:
            window = window[:, -max(1, n // 2) :]
    return torch.stack(written, dim=1)


@pytest.mark.parametrize("n_positions", [1, 2, 7, 16])
@pytest.mark.parametrize("prompt_length", [1, 5, 16, 40])
def test_greedy_text_equals_the_uncached_one_far_beyond_the_context(n_positions, prompt_length):
    model = network(n_positions)
    prompt = prompt_of(prompt_length, batch_size=2)
    assert torch.equal(text(model, prompt, 45, temperature=0.0), uncached_greedy(model, prompt, 45))


def test_prompt_longer_than_the_context_keeps_its_end():
    model = network()
    prompt = prompt_of(100)
    assert torch.equal(text(model, prompt, 5), text(model, prompt[:, -16:], 5))
    assert not torch.equal(text(model, prompt, 5, temperature=0.0), text(model, prompt[:, :16], 5, temperature=0.0))


def test_probability_is_the_models_own_whatever_the_sampling():
    model = network().eval()
    prompt = prompt_of(4, batch_size=3)
    generator = torch.Generator().manual_seed(1)
    tokens = list(generate(model, prompt, max_length=6, temperature=0.3, top_k=7, top_p=0.8, generator=generator))
    whole = torch.cat((prompt, *(t.token[:, None] for t in tokens)), dim=1)
    with torch.no_grad():
        own = model(whole[:, :-1])[:, 3:].softmax(-1).gather(-1, whole[:, 4:, None]).squeeze(-1)
    torch.testing.assert_close(torch.stack([t.probability for t in tokens], dim=1), own, rtol=1e-4, atol=1e-6)


def test_seed_decides_the_text():
    model = network()
    prompt = prompt_of(3)
    assert torch.equal(text(model, prompt, 20, seed=1), text(model, prompt, 20, seed=1))
    assert not torch.equal(text(model, prompt, 20, seed=1), text(model, prompt, 20, seed=2))


def test_stop_token_ends_the_stream_and_is_part_of_it():
    model = network()
    prompt = prompt_of(3)
    free = text(model, prompt, 20)[0].tolist()
    stop = free[6]
    assert text(model, prompt, 20, stop_token=stop)[0].tolist() == free[: free.index(stop) + 1]


def test_a_sequence_that_stopped_repeats_the_stop_token_until_all_have():
    model = network()
    prompt = prompt_of(3, batch_size=2)
    free = text(model, prompt, 40)
    stop = free[0, 2].item()
    stopped = text(model, prompt, 40, stop_token=stop)
    first = free[0].tolist().index(stop)
    assert (stopped[0, first:] == stop).all()
    assert torch.equal(stopped[0, :first], free[0, :first])
    ends = stopped[1].tolist().index(stop) if stop in stopped[1] else 39
    assert stopped.size(1) == max(first, ends) + 1
    assert torch.equal(stopped[1, :ends], free[1, :ends])


def test_sampling_leaves_no_trace_in_training():
    model = network(dropout=0.2)
    model.h[1].eval()  # a mode that is not the same everywhere has to survive too
    modes = [m.training for m in model.modules()]
    state = torch.get_rng_state()
    stream = generate(model, prompt_of(3), max_length=20, generator=torch.Generator())
    for _ in range(5):
        token = next(stream)
        assert [m.training for m in model.modules()] == modes
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
    assert torch.equal(torch.get_rng_state(), state)
    model(token.token[:, None], token.token[:, None]).backward()  # tokens are ordinary tensors
    stream.close()
    assert [m.training for m in model.modules()] == modes
    assert all(not p.is_inference() for p in model.parameters())


def test_dropout_is_off_while_a_training_model_writes():
    model = network(dropout=0.5)
    assert torch.equal(
        text(model, prompt_of(3), 10, temperature=0.0), text(model.eval(), prompt_of(3), 10, temperature=0.0)
    )


def test_bf16_weights_write():
    model = network().bfloat16()
    assert text(model, prompt_of(3), 30).shape == (1, 30)


def test_nothing_is_written_when_nothing_is_asked_for():
    assert list(generate(network(), prompt_of(3), max_length=0, generator=torch.Generator())) == []


@pytest.mark.parametrize(
    "prompt",
    [
        torch.zeros(1, 0, dtype=torch.long),
        torch.zeros(3, dtype=torch.long),
        torch.tensor([[61]]),
        torch.tensor([[-1]]),
    ],
)
def test_a_prompt_that_cannot_be_read_is_refused(prompt):
    with pytest.raises(ValueError, match="the prompt"):
        next(generate(network(), prompt, max_length=1, generator=torch.Generator()))
